"""kavachd reconcile: tells what is missing or doubled between journal, topic and store, and is quiet when nothing is."""

import json
import uuid
from datetime import datetime, timedelta, timezone

import pytest

from support.kafka import KafkaServer
from support.kavachd import event, wait_until
from support.postgres import PostgresKavachd, PostgresServer

SHADOW = {"quota.burst_mode": "shadow", "quota.daily_mode": "shadow", "quota.agents_mode": "shadow"}


def reconcile(node, *words) -> tuple[int, dict]:
    """Exit code and report."""
    done = node.command("reconcile", "--json", *words, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout)


def last_line(node, *words) -> str:
    return node.command("reconcile", *words, check=False).stdout.splitlines()[-1]


def of_org(report: dict, org_id: str) -> dict:
    [org] = [org for org in report["organizations"] if org["org_id"] == org_id]
    return org


def found(report: dict, kind: str) -> list[str]:
    return [finding["event_id"] for finding in report["findings"] if finding["kind"] == kind]


def send(node, count: int, key: str | None = None, **changes) -> None:
    for first in range(0, count, 100):
        assert node.post([event(**changes) for _ in range(min(100, count - first))], key=key).status == 202


# --- journal and store -------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgres"])
def direct(request, tmp_path, make_node):
    """A node that stores what it was sent, with 150 events of one organization and 50 of another."""
    if request.param == "sqlite":
        node = make_node(dict(SHADOW))
    else:
        postgres = PostgresServer(tmp_path / "postgres", ["-c", "fsync=off"])
        request.addfinalizer(lambda: postgres.__exit__(None))
        postgres.start()
        node = PostgresKavachd(tmp_path / "node", dict(SHADOW), server=postgres)
        request.addfinalizer(lambda: node.__exit__(None))
        node.start()
    other = node.create_org("other")
    wait_until(lambda: node.post([event()], key=other["api_key"]).status == 202, "the other key is known")
    node.other = other["org_id"]
    send(node, 150)
    send(node, 49, key=other["api_key"])
    node.wait_for_events(200)
    return node


def test_a_node_that_stored_everything_is_clean_while_it_runs_and_after(direct):
    code, report = reconcile(direct)
    assert code == 0 and report["clean"] and not report["findings"]
    for org_id, count in ((direct.org_id, 150), (direct.other, 50)):
        org = of_org(report, org_id)
        assert (org["journal"], org["topic"], org["store"]) == (count, None, count)
        assert org["roll_ups"] is None
    assert report["total"]["journal"] == 200
    assert last_line(direct) == "clean"
    assert direct.stop() == 0
    assert reconcile(direct)[0] == 0


def test_rows_that_were_deleted_are_missing(direct):
    gone = sorted(row[0] for row in direct.query(f"SELECT id FROM events WHERE org_id = '{direct.other}' LIMIT 3"))
    direct.execute("DELETE FROM events WHERE id IN ('" + "', '".join(gone) + "')")
    code, report = reconcile(direct)
    assert code == 1 and not report["clean"]
    org = of_org(report, direct.other)
    assert (org["journal"], org["store"], org["missing_in_store"]) == (50, 47, 3)
    assert sorted(found(report, "missing_in_store")) == gone
    assert of_org(report, direct.org_id)["missing_in_store"] == 0
    # The roll-ups still have them.
    assert org["roll_ups"]["events"]["events"] == org["roll_ups"]["usage_hourly"]["events"] - 3
    text = direct.command("reconcile", check=False).stdout
    assert text.splitlines()[-1] == "3 missing, 0 doubled, organizations whose roll-ups differ: 1"
    assert all(f"missing in the store: event {id} of {direct.other}" in text for id in gone)


@pytest.mark.parametrize("table", ["usage_hourly", "usage_hourly_dim"])
def test_a_roll_up_that_was_changed_is_reported(direct, table):
    direct.execute(f"UPDATE {table} SET cost_nano = cost_nano + 1 WHERE org_id = '{direct.org_id}'")
    code, report = reconcile(direct)
    assert code == 1 and report["missing"] == report["doubled"] == 0
    sums = of_org(report, direct.org_id)["roll_ups"]
    assert sums[table]["cost_nano"] == sums["events"]["cost_nano"] + 1
    assert sums["events"] == {"events": 150, "cost_nano": 150 * 15_500_000, "input_tokens": 150 * 1500,
                              "output_tokens": 150 * 800}
    assert of_org(report, direct.other)["roll_ups"] is None
    assert last_line(direct) == "0 missing, 0 doubled, organizations whose roll-ups differ: 1"


def test_a_key_that_is_stored_twice_is_doubled(direct):
    [(first, second)] = direct.query(
        f"SELECT MIN(id) AS a, MAX(id) AS b FROM events WHERE org_id = '{direct.org_id}'")
    direct.execute(f"UPDATE events SET dedup_key = (SELECT dedup_key FROM events WHERE id = '{first}') WHERE id = '{second}'")
    code, report = reconcile(direct)
    assert code == 1
    assert (report["missing"], report["doubled"]) == (0, 1)
    # Within a millisecond ids are in no order: either may be the one that came second.
    [doubled] = found(report, "doubled_in_store")
    assert doubled in (first, second)
    assert last_line(direct) == "0 missing, 1 doubled"


def test_an_event_whose_key_another_one_has_was_dropped_and_is_not_missing(direct):
    [(id, key)] = direct.query(f"SELECT id, dedup_key FROM events WHERE org_id = '{direct.org_id}' ORDER BY id LIMIT 1")
    # As if two nodes had taken the same event, and the other one's came first: here it has the key of the last.
    [(other_id, other_key, received_at)] = direct.query(
        f"SELECT id, dedup_key, received_at_us FROM events WHERE org_id = '{direct.org_id}' ORDER BY id DESC LIMIT 1")
    direct.execute(f"DELETE FROM events WHERE id = '{id}'")
    direct.execute(f"UPDATE events SET dedup_key = '{key}' WHERE id = '{other_id}'")
    direct.execute(f"UPDATE dedup_keys SET seen_at_us = {received_at} WHERE dedup_key = '{key}'")
    code, report = reconcile(direct)
    org = of_org(report, direct.org_id)
    assert (org["duplicates_dropped"], org["missing_in_store"], org["doubled_in_store"]) == (1, 0, 0)


def test_what_is_not_stored_yet_is_on_its_way(direct):
    direct.execute("UPDATE shipper_positions SET seq = 0")
    direct.execute(f"DELETE FROM events WHERE org_id = '{direct.other}'")
    for table in ("usage_hourly", "usage_hourly_dim"):
        direct.execute(f"DELETE FROM {table} WHERE org_id = '{direct.other}'")
    code, report = reconcile(direct)
    assert code == 0
    assert of_org(report, direct.other)["on_its_way"] == 50
    assert report["total"]["missing_in_store"] == 0


def test_only_the_period_counts(direct):
    now = datetime.now(timezone.utc)
    assert reconcile(direct, "--since", "2h", "--until", "1h")[1]["organizations"] == []
    code, report = reconcile(direct, "--since", (now - timedelta(hours=1)).isoformat(),
                             "--until", (now + timedelta(hours=1)).isoformat())
    assert code == 0 and report["total"]["store"] == 200
    assert datetime.fromisoformat(report["until"].replace("Z", "+00:00")) < now + timedelta(minutes=5)


def test_the_journals_of_several_nodes_are_compared_with_one_store(direct, make_node):
    other = make_node(dict(SHADOW))
    send(other, 5)
    other.wait_for_events(5)
    code, report = reconcile(direct, "--journal", str(other.journal), "--journal", str(direct.journal))
    assert code == 0
    # Another journal, of which this store has nothing: it follows.
    assert (report["total"]["journal"], report["total"]["store"], report["total"]["on_its_way"]) == (205, 200, 5)


def test_wrong_usage_and_what_cannot_be_read_have_codes_of_their_own(make_node):
    node = make_node(start=False)
    node.folder.mkdir()
    node.write_config()
    for words in (["--since", "yesterday"], ["--since", "1h", "--until", "2h"], ["--journal", "/nowhere"]):
        assert node.command("reconcile", *words, check=False).returncode == 2
    refused = node.command("reconcile", check=False)
    assert refused.returncode == 3 and "there is no such database" in refused.stderr
    assert not node.store.exists()


# --- with the topic ----------------------------------------------------------------------------------------


@pytest.fixture
def shipping(kafka, make_node):
    """A node whose 120 events are in Kafka, and that nobody writes into the store."""
    node = make_node(SHADOW | {
        "kafka.brokers": kafka.address, "kafka.topic": f"events-{uuid.uuid4().hex[:12]}",
        "kafka.dlq_topic": f"dlq-{uuid.uuid4().hex[:12]}", "kafka.alerts_topic": f"alerts-{uuid.uuid4().hex[:12]}",
        "kafka.partitions": 4,
    }, start=False)
    node.folder.mkdir(parents=True, exist_ok=True)
    node.write_config()
    node.command("topics", "create")
    node.start()
    send(node, 120)
    wait_until(lambda: node.request("GET", "/v1/status").json()["kafka_lag"]["events"] == 0, "all is in Kafka")
    wait_until(lambda: node.metric("kavach_kafka_position") == 2, "the position is remembered")
    return node


def records_of(kafka: KafkaServer, node) -> list:
    return kafka.records(node.settings["kafka.topic"])


def produce_again(kafka: KafkaServer, topic: str, record, **changes) -> None:
    kafka.produce(topic, {"key": record.key, "value": record.value, "headers": list(record.headers),
                          "partition": record.partition, "timestamp": record.timestamp_ms} | changes)


def claim(node, kafka: KafkaServer, behind: int = 0) -> None:
    """As if a writer had stored all records, but for the last ones."""
    topic = node.settings["kafka.topic"]
    ends = {}
    for record in records_of(kafka, node):
        ends[record.partition] = record.offset + 1
    for partition, end in ends.items():
        node.execute("INSERT INTO partition_positions VALUES (?, ?, 7, ?, 0)", topic, partition, end - behind)


def test_without_a_writer_everything_is_on_its_way(kafka, shipping):
    code, report = reconcile(shipping)
    assert code == 0 and report["clean"]
    org = of_org(report, shipping.org_id)
    assert (org["journal"], org["topic"], org["store"]) == (120, 120, 0)
    assert (org["on_its_way"], org["missing_in_topic"], org["missing_in_store"]) == (120, 0, 0)
    assert last_line(shipping) == "clean"


def test_what_the_writers_have_passed_must_be_in_the_store(kafka, shipping):
    claim(shipping, kafka, behind=10)
    code, report = reconcile(shipping)
    org = of_org(report, shipping.org_id)
    assert code == 1
    assert (org["on_its_way"], org["missing_in_store"]) == (10, 110)
    assert last_line(shipping) == "110 missing, 0 doubled"
    # Nothing was claimed by looking.
    assert {row[0] for row in shipping.query("SELECT generation FROM partition_positions")} == {7}


def test_an_event_in_two_records_is_repeated_and_no_fault(kafka, shipping):
    record = records_of(kafka, shipping)[5]
    produce_again(kafka, shipping.settings["kafka.topic"], record)
    code, report = reconcile(shipping)
    org = of_org(report, shipping.org_id)
    assert code == 0
    assert (org["topic"], org["repeated_in_topic"], org["on_its_way"]) == (120, 1, 120)


def test_a_topic_that_lost_its_records_is_missing_them(kafka, shipping):
    kafka.delete_topic(shipping.settings["kafka.topic"])
    topic = shipping.settings["kafka.topic"]
    wait_until(lambda: topic not in kafka.topics(), "the topic is gone")
    refused = shipping.command("reconcile", check=False)
    assert refused.returncode == 3 and f"there is no topic {topic}" in refused.stderr
    shipping.command("topics", "create")
    code, report = reconcile(shipping)
    assert code == 1
    assert of_org(report, shipping.org_id)["missing_in_topic"] == 120
    assert last_line(shipping) == "120 missing, 0 doubled"


def test_frames_that_kafka_has_not_acknowledged_are_on_their_way(kafka, shipping):
    assert shipping.stop() == 0
    position = shipping.journal / "kafka.position"
    journal_id, _ = position.read_text().split()
    position.write_text(f"{journal_id} 1\n")
    topic = shipping.settings["kafka.topic"]
    kafka.delete_topic(topic)
    wait_until(lambda: topic not in kafka.topics(), "the topic is gone")
    shipping.command("topics", "create")
    _, report = reconcile(shipping)
    org = of_org(report, shipping.org_id)
    assert (org["missing_in_topic"], org["on_its_way"]) == (100, 20)


def test_a_dead_letter_explains_what_is_not_in_the_store(kafka, shipping):
    claim(shipping, kafka)
    records = records_of(kafka, shipping)
    for record in records[:3]:
        headers = [*record.headers, ("kavach-dlq-reason", b"refused"), ("kavach-dlq-topic", record.topic.encode()),
                   ("kavach-dlq-timestamp-ms", str(record.timestamp_ms).encode())]
        produce_again(kafka, shipping.settings["kafka.dlq_topic"], record, partition=0, headers=headers)
    # The same one twice, and one that is no event and says only what it was.
    produce_again(kafka, shipping.settings["kafka.dlq_topic"], records[0], partition=1)
    produce_again(kafka, shipping.settings["kafka.dlq_topic"], records[3], partition=1, value=b"{")
    code, report = reconcile(shipping)
    org = of_org(report, shipping.org_id)
    assert code == 1
    assert (org["dead_letters"], org["missing_in_store"]) == (4, 116)
    assert report["unreadable_letters"] == 1
    letters = sorted(record.header("event_id").decode() for record in records[:4])
    assert sorted(found(report, "dead_letter")) == letters


def test_records_that_cannot_be_decoded_are_counted(kafka, shipping):
    topic = shipping.settings["kafka.topic"]
    kafka.produce(topic, {"value": b"no event", "partition": 0})
    code, report = reconcile(shipping)
    assert code == 0 and report["unreadable_records"] == 1
    assert of_org(report, shipping.org_id)["topic"] == 120
    # One of an event that is elsewhere stays that event.
    record = next(record for record in records_of(kafka, shipping) if record.header("event_id"))
    produce_again(kafka, topic, record, value=b"{}")
    code, report = reconcile(shipping)
    assert code == 0 and report["unreadable_records"] == 2
    assert of_org(report, shipping.org_id)["repeated_in_topic"] == 1


def test_nodes_without_a_store_are_compared_with_the_topic_alone(kafka, shipping):
    shipping.settings["store.kind"] = "none"
    shipping.write_config()
    code, report = reconcile(shipping)
    org = of_org(report, shipping.org_id)
    assert code == 0
    assert (org["journal"], org["topic"], org["store"], org["on_its_way"]) == (120, 120, None, 0)
