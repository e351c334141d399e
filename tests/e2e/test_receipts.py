"""What a 202 waits for: with `kafka.receipt = "broker"` Kafka has the batch, or the answer says that it has not yet.

The class in Kavach-Receipt is true at every moment: `broker` is only said of what can be read from the topic, and
`journal` is said soon, and at once while the broker is known to be away.
"""

import json
import threading
import time
from collections import Counter

from support.kafka import KafkaServer
from support.kavachd import Answer, Kavachd, event, wait_until

# Far above what the bound and a busy machine need, far below what a forgotten request would take.
SOON_S = 15


def receipt(answer: Answer) -> str:
    assert answer.status == 202, answer
    return answer.headers["kavach-receipt"]


def keys_in(kafka: KafkaServer, node: Kavachd) -> set[str]:
    lines = [line for record in kafka.records(node.settings["kafka.topic"]) for line in record.value.splitlines()]
    return {json.loads(line)["idempotency_key"] for line in lines}


def waiting(node: Kavachd) -> int:
    return node.request("GET", "/v1/status").json()["receipts"]["waiting"]


def post_until(node: Kavachd, wanted: str, statuses=(202,)) -> Answer:
    """Fresh batches until one is answered so."""
    def answered():
        answer = node.post([event()])
        assert answer.status in statuses, answer
        return answer if answer.headers.get("kavach-receipt") == wanted else None

    return wait_until(answered, f"a receipt of class {wanted}")


class Sent:
    """Requests that are sent now and answered later."""

    def __init__(self, node: Kavachd, count: int):
        self.answers: list[Answer] = []
        self.threads = [threading.Thread(target=self._send, args=[node]) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def _send(self, node: Kavachd) -> None:
        self.answers.append(node.post([event()]))

    def join(self) -> list[Answer]:
        for thread in self.threads:
            thread.join(SOON_S)
        assert not any(thread.is_alive() for thread in self.threads)
        return self.answers


class Parked(Sent):
    """All of them are durable and wait for Kafka."""

    def __init__(self, node: Kavachd, count: int, beside: int = 0):
        super().__init__(node, count)
        wait_until(lambda: waiting(node) == count + beside, "all of them wait", SOON_S)


def test_a_broker_receipt_is_of_events_that_are_in_the_topic(kafka, make_kafka_node):
    node = make_kafka_node(kafka)
    post_until(node, "broker")
    for count in (1, 7):
        events = [event() for _ in range(count)]
        answer = node.post(events)
        assert receipt(answer) == "broker"
        assert {sent["idempotency_key"] for sent in events} <= keys_in(kafka, node)
    # Nothing is to be written, and what was sent before is in Kafka.
    assert receipt(node.post(events)) == "broker"
    assert node.metric("kavach_ingest_receipts_total", **{"class": "broker"}) >= 4
    assert node.metric("kavach_ingest_receipts_waiting") == 0


def test_an_answer_takes_no_longer_than_linger_and_a_round_trip(kafka, make_kafka_node):
    node = make_kafka_node(kafka)
    post_until(node, "broker")
    times = []
    for _ in range(50):
        start = time.monotonic()
        assert receipt(node.post([event()])) == "broker"
        times.append(time.monotonic() - start)
    # 10 ms on a machine at rest. A thread that sleeps through what it waits for would make it a tick or more.
    assert sorted(times)[25] < 0.1


def test_many_connections_are_answered_by_both_shards(kafka, make_kafka_node):
    node = make_kafka_node(kafka, **{"engine.shards": 2})
    receipts, sent = Counter(), []

    def send():
        for _ in range(20):
            events = [event() for _ in range(10)]
            receipts[receipt(node.post(events))] += 1
            sent.extend(made["idempotency_key"] for made in events)

    threads = [threading.Thread(target=send) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert receipts["broker"] > 300
    assert receipts.total() == 320
    for shard in "01":
        assert node.metric("kavach_ingest_receipts_total", shard=shard, **{"class": "broker"}) > 0
    wait_until(lambda: keys_in(kafka, node) == set(sent), "all are in the topic", SOON_S)


def test_the_journals_receipt_is_the_answer_while_the_broker_is_away(own_kafka, make_kafka_node):
    node = make_kafka_node(own_kafka, **{"kafka.receipt_timeout_ms": 1_000})
    post_until(node, "broker")
    own_kafka.pause()
    assert [receipt(answer) for answer in Sent(node, 10).join()] == ["journal"] * 10
    # It is known now: nobody waits.
    start = time.monotonic()
    for _ in range(20):
        assert receipt(node.post([event()])) == "journal"
    assert time.monotonic() - start < 20 * 1.0 / 2
    assert waiting(node) == 0
    own_kafka.resume()
    post_until(node, "broker")
    assert node.request("GET", "/v1/status").json()["kafka"] == "ok"


def test_what_waits_is_answered_when_the_broker_comes_back(own_kafka, make_kafka_node):
    node = make_kafka_node(own_kafka, **{"kafka.receipt_timeout_ms": 60_000})
    post_until(node, "broker")
    own_kafka.pause()
    parked = Parked(node, 10)
    own_kafka.resume()
    assert [receipt(answer) for answer in parked.join()] == ["broker"] * 10


def test_batches_are_refused_while_the_broker_is_away_if_so_wanted(own_kafka, make_kafka_node):
    node = make_kafka_node(
        own_kafka, **{"kafka.receipt_when_away": "refuse", "kafka.receipt_timeout_ms": 1_000}
    )
    post_until(node, "broker", statuses=(202, 429))
    own_kafka.pause()
    # Durable when it turned out that the broker is away: so it says, and is not refused. The first of them is.
    answers = Sent(node, 4).join()
    assert "journal" in [receipt(answer) for answer in answers if answer.status != 429]
    refused_before = node.metric("kavach_ingest_batches_refused_total", reason="broker")
    frames = node.metric("kavach_journal_frames_total")
    for _ in range(20):
        refused = node.post([event()])
        assert refused.status == 429
        assert refused.json()["reason"] == "backpressure"
        assert 1 <= int(refused.headers["retry-after"]) <= 10
    assert node.metric("kavach_ingest_batches_refused_total", reason="broker") == refused_before + 20
    assert node.metric("kavach_journal_frames_total") == frames
    own_kafka.resume()
    post_until(node, "broker", statuses=(202, 429))


def test_a_broker_that_is_not_there_at_the_start_is_away(make_node):
    node = make_node({"kafka.brokers": "127.0.0.1:1", "kafka.receipt_timeout_ms": 500, "http.drain_timeout_ms": 500})
    for _ in range(20):
        assert receipt(node.post([event()])) == "journal"


def test_a_stop_answers_what_waits(own_kafka, make_kafka_node):
    node = make_kafka_node(
        own_kafka, **{"kafka.receipt_timeout_ms": 60_000, "http.drain_timeout_ms": 4_000}
    )
    post_until(node, "broker")
    own_kafka.pause()
    parked = Parked(node, 10)
    assert node.stop() == 0
    assert [receipt(answer) for answer in parked.join()] == ["journal"] * 10
    own_kafka.resume()
    node.start()
    wait_until(lambda: len(keys_in(own_kafka, node)) >= 11, "what was said to be durable is in the topic", SOON_S)


def test_who_hangs_up_while_waiting_harms_nobody(own_kafka, make_kafka_node):
    node = make_kafka_node(own_kafka, **{"kafka.receipt_timeout_ms": 60_000})
    post_until(node, "broker")
    own_kafka.pause()
    body = json.dumps({"events": [event()]})
    with node.connect() as connection:
        connection.sendall((
            f"POST /v1/ingest HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {node.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode())
        wait_until(lambda: waiting(node) == 1, "it waits")
    parked = Parked(node, 4, beside=1)
    own_kafka.resume()
    assert [receipt(answer) for answer in parked.join()] == ["broker"] * 4
    wait_until(lambda: waiting(node) == 0, "nobody waits")


def test_a_reload_changes_what_is_waited_for(own_kafka, make_kafka_node):
    node = make_kafka_node(own_kafka, **{"kafka.receipt_timeout_ms": 60_000})
    post_until(node, "broker")
    own_kafka.pause()
    parked = Parked(node, 4)
    node.reload(kafka__receipt="journal")
    assert [receipt(answer) for answer in parked.join()] == ["journal"] * 4
    assert receipt(node.post([event()])) == "journal"
    own_kafka.resume()
    node.reload(kafka__receipt="broker")
    post_until(node, "broker")


def test_the_journals_receipt_is_enough_if_so_wanted(kafka, make_kafka_node):
    node = make_kafka_node(kafka, **{"kafka.receipt": "journal"})
    assert receipt(node.post([event()])) == "journal"
    assert node.request("GET", "/v1/status").json()["receipts"] == {"journal": 1, "broker": 0, "waiting": 0}
