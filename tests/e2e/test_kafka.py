"""From the journal into a real Kafka: what was acknowledged is in the topic, whatever happens on the way."""

import json
import secrets
import threading
import uuid
from collections import Counter

import pytest

from support.kafka import KafkaServer, kafka_settings
from support.kavachd import event, wait_until


# Of a batch's UUIDv7 the bits that count its events (engine/ids.h).
RAND_A_AT = 64


def lag(node) -> dict:
    return node.request("GET", "/v1/status").json()["kafka_lag"]


def hexadecimal(chars: int) -> str:
    """Random, so that no compression makes much less of it."""
    return secrets.token_hex(chars // 2)


def wait_until_shipped(node) -> None:
    wait_until(lambda: lag(node) == {"events": 0, "bytes": 0, "seconds": 0.0}, "everything is in Kafka")


def keys_in(kafka: KafkaServer, node) -> Counter:
    """Idempotency keys of the topic's events, each event id once."""
    by_id = {}
    for record in kafka.records(node.settings["kafka.topic"]):
        for index, line in enumerate(record.value.splitlines()):
            event_id = uuid.UUID(record.header("event_id").decode()).int + (index << RAND_A_AT)
            key = json.loads(line)["idempotency_key"]
            assert by_id.setdefault(event_id, key) == key
    return Counter(by_id.values())


class Load:
    """Clients that send batches until they are told to stop, and remember what was acknowledged."""

    def __init__(self, node, clients: int = 3):
        self.node = node
        self.acknowledged: list[str] = []
        self.statuses: set[int] = set()
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._send) for _ in range(clients)]

    def _send(self) -> None:
        while not self.stopping.is_set():
            events = [event() for _ in range(20)]
            try:
                answer = self.node.post(events)
            except OSError:  # killed: not acknowledged
                self.stopping.wait(0.05)
                continue
            self.statuses.add(answer.status)
            if answer.status == 202:
                self.acknowledged.extend(sent["idempotency_key"] for sent in events)

    def wait_for_more(self, events: int = 1_000) -> None:
        wanted = len(self.acknowledged) + events
        wait_until(lambda: len(self.acknowledged) >= wanted, "more batches are acknowledged")

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join()


def check_all_there(kafka, node, load: Load) -> None:
    wait_until_shipped(node)
    found = keys_in(kafka, node)
    assert not [key for key in load.acknowledged if key not in found]
    assert not [key for key, times in found.items() if times > 1]


def test_topics_are_made_once(kafka, make_node):
    node = make_node(kafka_settings(kafka, **{"kafka.partitions": 5}), start=False)
    node.folder.mkdir(parents=True, exist_ok=True)
    node.write_config()
    names = [node.settings[f"kafka.{name}"] for name in ("topic", "dlq_topic", "alerts_topic")]
    for created in (True, False):
        lines = node.command("topics", "create").stdout.splitlines()
        assert [json.loads(line) for line in lines] == [{"topic": name, "created": created} for name in names]
    partitions = kafka.topics()
    assert [partitions[name] for name in names] == [5, 3, 3]


def test_an_event_is_a_record_with_its_org_as_key(kafka, make_kafka_node):
    node = make_kafka_node(kafka)
    sent = event(agent_name="résumé \"bot\"", cost=0.012345678, prompt="a\u0000b\n", status="error")
    answer = node.post([sent])
    assert answer.status == 202
    assert answer.json()["mode"] == "kafka"
    wait_until_shipped(node)
    (record,) = kafka.records(node.settings["kafka.topic"])
    value = json.loads(record.value)
    for name in ("agent_name", "model", "provider", "input_tokens", "output_tokens", "prompt"):
        assert value[name] == sent[name], name
    assert '"cost":0.012345678' in record.value.decode()
    assert record.key.decode() == node.org_id == record.header("org_id").decode()
    assert record.header("schema_version") == b"1"
    assert uuid.UUID(record.header("event_id").decode()).version == 7
    assert record.timestamp_ms == uuid.UUID(record.header("event_id").decode()).int >> 80


def test_every_acknowledged_event_is_in_the_topic_exactly_once(kafka, make_kafka_node):
    node = make_kafka_node(kafka)
    with Load(node) as load:
        load.wait_for_more(10_000)
    wait_until_shipped(node)
    records = kafka.records(node.settings["kafka.topic"])
    assert len(records) == len({record.header("event_id") for record in records}) == len(load.acknowledged)
    assert Counter(load.acknowledged) == keys_in(kafka, node)
    assert load.statuses == {202}
    assert node.request("GET", "/v1/status").json()["kafka"] == "ok"


def test_a_stop_waits_for_kafka_and_a_start_sends_nothing_again(kafka, make_kafka_node):
    node = make_kafka_node(kafka)
    with Load(node) as load:
        load.wait_for_more()
    assert node.stop() == 0
    assert len(kafka.records(node.settings["kafka.topic"])) == len(load.acknowledged)
    node.start()
    assert node.post([event()]).status == 202
    wait_until_shipped(node)
    assert len(kafka.records(node.settings["kafka.topic"])) == len(load.acknowledged) + 1


def test_nothing_is_lost_when_the_node_is_killed_while_it_ships(kafka, make_kafka_node):
    node = make_kafka_node(kafka)
    with Load(node) as load:
        for _ in range(3):
            load.wait_for_more()
            node.kill()
            node.start()
        load.wait_for_more()
    check_all_there(kafka, node, load)


@pytest.mark.parametrize("harm", ["pause", "kill"])
def test_a_broker_that_is_away_delays_and_loses_nothing(own_kafka, make_kafka_node, harm):
    node = make_kafka_node(own_kafka)
    with Load(node) as load:
        load.wait_for_more()
        getattr(own_kafka, harm)()
        load.wait_for_more(2_000)
        wait_until(lambda: node.request("GET", "/v1/status").json()["kafka"] == "down", "the status says so")
        assert lag(node)["events"] > 0
        own_kafka.resume() if harm == "pause" else own_kafka.start()
        load.wait_for_more()
    check_all_there(own_kafka, node, load)
    assert load.statuses == {202}
    assert node.request("GET", "/v1/status").json()["kafka"] == "ok"


def test_a_topic_that_is_missing_is_waited_for(own_kafka, make_node):
    node = make_node(kafka_settings(own_kafka))
    assert node.post([event()]).status == 202
    wait_until(lambda: node.request("GET", "/v1/status").json()["kafka"] == "down", "the status says so")
    node.command("topics", "create")
    wait_until_shipped(node)
    assert sum(keys_in(own_kafka, node).values()) == 1


def test_topics_take_the_longest_record(kafka, make_kafka_node):
    node = make_kafka_node(kafka, **{"kafka.record_bytes_max": 4_000_000})
    for topic in ("kafka.topic", "kafka.dlq_topic"):
        assert int(kafka.topic_setting(node.settings[topic], "max.message.bytes")) > 4_000_000


def test_events_of_a_batch_share_records_if_so_wanted(kafka, make_kafka_node):
    node = make_kafka_node(kafka, **{"kafka.record_events_max": 30, "kafka.record_bytes_max": 65_536})
    small, large = [event() for _ in range(70)], [event(prompt=hexadecimal(2_000)) for _ in range(70)]
    for events in (small, large):
        assert node.post(events).status == 202
    wait_until_shipped(node)
    records = kafka.records(node.settings["kafka.topic"])
    assert max(len(record.value) for record in records) <= 65_536
    counts = [len(record.value.splitlines()) for record in records]
    assert max(counts) == 30
    assert sum(counts) == 140
    assert keys_in(kafka, node) == Counter(sent["idempotency_key"] for sent in small + large)


def small_topic(kafka, make_node, bytes_max: int, **more):
    node = make_node(kafka_settings(kafka, **more), start=False)
    kafka.create_topic(node.settings["kafka.topic"], max_message_bytes=bytes_max)
    return node.start()


def test_what_a_topic_refuses_as_too_large_is_sent_in_smaller_pieces(kafka, make_node):
    node = small_topic(kafka, make_node, 20_000, **{"kafka.record_events_max": 1_000})
    sent = [event(prompt=hexadecimal(1_000)) for _ in range(300)]
    for first in range(0, 300, 100):
        assert node.post(sent[first:first + 100]).status == 202
    wait_until_shipped(node)
    assert keys_in(kafka, node) == Counter(made["idempotency_key"] for made in sent)
    assert "max.message.bytes" in node.log()
    assert node.request("GET", "/v1/status").json()["kafka"] == "ok"


def test_an_event_that_is_too_large_for_the_topic_is_said_and_waited_with(kafka, make_node):
    node = small_topic(kafka, make_node, 1_500)
    sent = [event(), event(prompt=hexadecimal(2_000)), event()]
    for made in sent:
        assert node.post([made]).status == 202
    status = wait_until(lambda: (found := node.request("GET", "/v1/status").json()).get("kafka_problem") and found, "it says so")
    assert status["kafka"] == "down"
    assert node.settings["kafka.topic"] in status["kafka_problem"]
    assert "max.message.bytes" in status["kafka_problem"]
    answer = node.post([event()])
    assert (answer.status, answer.headers["kavach-receipt"]) == (202, "journal")
    kafka.change_topic(node.settings["kafka.topic"], max_message_bytes=100_000)
    wait_until_shipped(node)
    assert keys_in(kafka, node).keys() >= {made["idempotency_key"] for made in sent}
    status = node.request("GET", "/v1/status").json()
    assert status["kafka"] == "ok"
    assert "kafka_problem" not in status
