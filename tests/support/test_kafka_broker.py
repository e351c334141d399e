"""What the tests' own Kafka promises them: records come back whole, and data and address outlive it."""

import pytest
from confluent_kafka import KafkaException

from support.kafka import KafkaServer


def test_records_come_back_with_key_headers_and_timestamp(kafka):
    topic = kafka.create_topic(partitions=2)
    kafka.produce(
        topic,
        {"value": b"one", "key": b"k", "headers": [("h", b"1"), ("g", b"2")], "partition": 1, "timestamp": 1_700_000_000_123},
        {"value": b"two", "partition": 1},
        {"value": b"three", "partition": 0},
    )
    third, first, second = kafka.records(topic)
    assert (first.topic, first.partition, first.offset, first.timestamp_ms) == (topic, 1, 0, 1_700_000_000_123)
    assert (first.key, first.headers, first.value) == (b"k", (("h", b"1"), ("g", b"2")), b"one")
    assert first.header("g") == b"2"
    assert first.header("none") is None
    assert (second.offset, second.key, second.headers, second.value) == (1, None, (), b"two")
    assert (third.partition, third.value) == (0, b"three")


def test_no_topic_appears_by_itself(kafka):
    with pytest.raises(AssertionError):
        kafka.produce("never-made", {"value": b"x"})
    assert "never-made" not in kafka.topics()


@pytest.mark.parametrize("end", [KafkaServer.kill, KafkaServer.stop])
def test_data_and_address_outlive_the_broker(tmp_path, end):
    with KafkaServer(tmp_path / "kafka") as server:
        address = server.address
        server.create_topic("events", partitions=3)
        server.produce("events", *({"value": b"%d" % n, "partition": n % 3} for n in range(30)))
        end(server)
        server.start()
        assert server.address == address
        assert server.topics() == {"events": 3}
        assert sorted(int(record.value) for record in server.records("events")) == list(range(30))


def test_a_paused_broker_answers_nothing_until_it_is_resumed(tmp_path):
    with KafkaServer(tmp_path / "kafka") as server:
        topic = server.create_topic()
        server.pause()
        with pytest.raises(KafkaException):
            server._admin().list_topics(timeout=1)
        server.resume()
        server.produce(topic, {"value": b"again"})
        assert [record.value for record in server.records(topic)] == [b"again"]
