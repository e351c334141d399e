"""From Kafka into the store: each event once, whichever writer is killed, frozen or joined by another."""

import json
import random
import time

import pytest

from support.fleet import Fleet
from support.kavachd import event, wait_until
from support.pipeline import Pipeline, lag_of
from support.postgres import PostgresServer


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    """Each test has a database of its own in it."""
    with PostgresServer(tmp_path_factory.mktemp("postgres"), ["-c", "fsync=off"]) as server:
        yield server


@pytest.fixture
def pipeline(tmp_path, kafka, postgres):
    made = Pipeline(tmp_path, kafka, postgres.with_new_database())
    yield made
    made.close()


def run_ids(node) -> set:
    return {row[0] for row in node.query("SELECT run_id FROM events")}


def test_events_pass_through_kafka_into_postgres_once(pipeline):
    node = pipeline.add_node()
    writer = pipeline.add_writer()
    sent = [event(run_id=f"run-{i}", cost=i / 1000) for i in range(300)]
    for _ in range(2):
        for at in range(0, len(sent), 50):
            assert node.post(sent[at:at + 50]).status == 202
    pipeline.wait_until_stored()
    assert run_ids(node) == {one["run_id"] for one in sent}
    assert node.event_count() == len(sent)
    node.check_roll_ups()
    assert writer.metric("kavach_writer_events_total") == len(sent)
    wait_until(lambda: writer.metric("kavach_writer_lag_records") == 0, "the writer's lag is 0 again")
    status = writer.asker.request("GET", "/v1/status").json()
    assert status["status"] == "ok" and status["writer_lag"] == {"records": 0, "seconds": 0}
    assert status["journal"] == "not_configured"
    assert lag_of(node)["kafka_lag"] == {"events": 0, "bytes": 0, "seconds": 0.0}


def test_a_node_can_have_its_writer_inside(pipeline):
    node = pipeline.add_node(**{"writer.enabled": True})
    assert node.post([event() for _ in range(20)]).status == 202
    pipeline.wait_until_stored()
    assert node.event_count() == 20
    wait_until(lambda: lag_of(node).get("writer_lag") == {"records": 0, "seconds": 0}, "the writer's lag is 0")
    assert node.metric("kavach_writer_events_total") == 20
    assert node.post([event() for _ in range(5)]).status == 202
    assert node.stop() == 0
    node.start()
    pipeline.wait_until_stored()
    assert node.event_count() == 25


def test_what_the_store_has_counts_once_after_a_restart_and_what_is_only_in_kafka_counts_too(pipeline):
    node = pipeline.add_node(**{"quota.daily_mode": "enforce"})
    node.command("org", "set", "--org", node.org_id, "--events-per-day", "30")
    writer = pipeline.add_writer()

    def accepted(count: int) -> int:
        answer = node.post([event() for _ in range(count)])
        return answer.json()["accepted"] if answer.status == 202 else 0

    wait_until(lambda: node.post([event() for _ in range(31)]).status == 202 and True, "the limit is known")
    node.kill()
    node.start()
    assert accepted(1) == 0
    node.command("org", "set", "--org", node.org_id, "--events-per-day", "50")
    wait_until(lambda: accepted(1) == 1, "the new limit is known")
    pipeline.wait_until_stored()
    assert writer.stop() == 0
    repeated = [event() for _ in range(9)]
    assert node.post(repeated).status == 202
    wait_until(lambda: lag_of(node)["kafka_lag"]["events"] == 0, "everything is in Kafka")
    node.kill()
    node.start()
    # Only in Kafka: known all the same, and its use counts.
    assert node.post(repeated).json()["accepted"] == 9
    assert accepted(30) == 10
    pipeline.add_writer()
    pipeline.wait_until_stored()
    assert node.event_count() == 50


def test_poison_ends_in_the_dead_letter_topic_and_the_rest_goes_on(pipeline, kafka):
    node = pipeline.add_node()
    good = event(run_id="good")
    assert node.post([good]).status == 202
    wait_until(lambda: lag_of(node)["kafka_lag"]["events"] == 0, "everything is in Kafka")
    topic = pipeline.settings["kafka.topic"]
    (record,) = kafka.records(topic)
    headers = dict(record.headers)
    value = json.loads(record.value)
    rng = random.Random(1)

    def produce(changed_value: dict | bytes, **changed_headers):
        body = changed_value if isinstance(changed_value, bytes) else json.dumps(value | changed_value).encode()
        kafka.produce(topic, {"value": body, "key": record.key, "partition": record.partition,
                              "headers": list((headers | changed_headers).items())})

    produce(b"{no json")
    produce({}, schema_version=b"99")
    produce({}, event_id=b"no id")
    produce({"model": "m" * 300, "idempotency_key": "too-long"}, event_id=b"019b0000-0000-7000-8000-000000000001")
    produce({"run_id": "behind", "idempotency_key": "k2"}, event_id=b"019b0000-0000-7000-8000-000000000002")
    produce({"agent_name": "".join(rng.choices("0123456789abcdef", k=20_000)), "idempotency_key": "no-index-takes-it"},
            event_id=b"019b0000-0000-7000-8000-000000000003")
    # As a database that somebody made narrower.
    pipeline.postgres.query("ALTER TABLE events ALTER COLUMN model TYPE varchar(255)")
    writer = pipeline.add_writer()
    pipeline.wait_until_stored()
    assert {"good", "behind"} == run_ids(node)
    letters = pipeline.letters()
    reasons = [letter["reason"] for letter in letters]
    assert len(reasons) == 5 == writer.metric("kavach_writer_dead_letters_total")
    for words in ("JSON", "schema", "event_id", "too long", "index row"):
        assert any(words in reason for reason in reasons), (words, reasons)
    assert all(letter["topic"] == topic and letter["partition"] == record.partition for letter in letters)
    assert all(letter["key"] == node.org_id for letter in letters)

    # A fix, and once more: what can be stored now is; what cannot comes back with its reason.
    pipeline.postgres.query("ALTER TABLE events ALTER COLUMN model TYPE text")
    assert json.loads(node.command("dlq", "replay").stdout) == {"replayed": 5, "left_out": 0}
    pipeline.wait_until_stored()
    assert node.event_count() == 3
    wait_until(lambda: writer.metric("kavach_writer_dead_letters_total") == 9, "the others are back")
    assert len(pipeline.letters()) == 4
    assert len(pipeline.letters("--all")) == 9
    assert json.loads(node.command("dlq", "replay", "--all").stdout)["replayed"] == 9
    pipeline.wait_until_stored()
    assert node.event_count() == 3
    node.check_roll_ups()


def test_the_dead_letter_commands_say_what_is_missing(make_node, tmp_path):
    node = make_node()
    for words in (("dlq", "list"), ("dlq", "replay"), ("writer",)):
        refused = node.command(*words, check=False)
        assert refused.returncode in (1, 2) and "kafka.brokers" in refused.stderr


def test_two_writers_share_the_topic_and_one_takes_over_from_the_other(pipeline):
    node = pipeline.add_node()
    one, other = pipeline.add_writer(), pipeline.add_writer()
    wait_until(lambda: one.metric("kavach_writer_partitions") == other.metric("kavach_writer_partitions") == 8,
               "they share the partitions")
    orgs = [{"org_id": node.org_id, "api_key": node.key}, *(node.create_org(f"org {i}") for i in range(5))]
    time.sleep(1)  # until the node knows them
    with Fleet(node, orgs, connections=3, seed="writers") as fleet:
        time.sleep(1)
        one.kill()
        wait_until(lambda: other.metric("kavach_writer_partitions") == 16, "the other one takes over")
        one.start()
        wait_until(lambda: one.metric("kavach_writer_partitions") == 8, "they share again")
        # Frozen, it loses its partitions and does not know.
        other.pause()
        wait_until(lambda: one.metric("kavach_writer_partitions") == 16, "the first one takes over")
        other.resume()
        wait_until(lambda: other.metric("kavach_writer_partitions") == 8, "they share again")
    pipeline.wait_until_stored()
    fleet.check()
    assert fleet.acknowledged
