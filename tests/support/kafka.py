"""KafkaServer: a real Apache Kafka broker of a test's own, in its folder, to be hurt as the test likes.

It keeps its data and its address: who kills and starts it finds the same topics at the same place. One takes a few
seconds to start, so tests that only write and read share the one of the fixture `kafka`, with topics of their own.
"""

import socket
import subprocess
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic

from support.kavachd import PATIENCE_S, ROOT, hold_port, wait_until
from support.server import Server


@dataclass(frozen=True)
class Record:
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    headers: tuple  # of (name, bytes), as the producer ordered them
    value: bytes | None

    def header(self, name: str) -> bytes | None:
        """The first of that name."""
        return next((value for own, value in self.headers if own == name), None)


def kafka_settings(kafka: "KafkaServer", **more) -> dict:
    """Of a kavachd that uses it, with topics of its own and without limits."""
    return {
        "kafka.brokers": kafka.address, "kafka.topic": f"events-{uuid.uuid4().hex[:12]}",
        "kafka.dlq_topic": f"dlq-{uuid.uuid4().hex[:12]}", "kafka.alerts_topic": f"alerts-{uuid.uuid4().hex[:12]}",
        "quota.burst_mode": "shadow", "quota.daily_mode": "shadow", "quota.agents_mode": "shadow",
    } | more


@dataclass
class KafkaServer(Server):
    folder: Path
    # More broker settings, or other values, for example {"message.max.bytes": 2000}.
    settings: dict = field(default_factory=dict)
    port: int = 0  # 0: any free one, the same after a restart
    process: subprocess.Popen | None = None
    held: list[socket.socket] = field(default_factory=list)  # the ports

    @property
    def address(self) -> str:
        """For `bootstrap.servers`."""
        return f"127.0.0.1:{self.port}"

    def log(self) -> str:
        log = self.folder / "log"
        return log.read_text(errors="replace") if log.exists() else ""

    # --- its life --------------------------------------------------------------------------------------

    def start(self) -> "KafkaServer":
        """Returns when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.held:
            self.held = [hold_port(), hold_port()]
            self.port = self.port or self.held[0].getsockname()[1]
        command = [
            ROOT / "scripts/kafka/broker", self.folder, str(self.port), str(self.held[1].getsockname()[1]),
            *(f"{name}={value}" for name, value in self.settings.items()),
        ]
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self._answers, "the broker answers")
        return self

    def _answers(self) -> bool:
        assert self.process.poll() is None, "the broker did not start:\n" + self.log()
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        try:
            return bool(self._admin().list_topics(timeout=5).brokers)
        except KafkaException:
            return False

    def free_ports(self) -> None:
        for held in self.held:
            held.close()

    # --- asking it -------------------------------------------------------------------------------------

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.address, "log_level": 2})

    def topics(self) -> dict[str, int]:
        """Name to partitions, without Kafka's own."""
        topics = self._admin().list_topics(timeout=PATIENCE_S).topics
        return {name: len(topic.partitions) for name, topic in topics.items() if not name.startswith("__")}

    def create_topic(self, name: str = "", partitions: int = 1, **config) -> str:
        """Its name; a fresh one when none is given. `config` has the topic's settings, with `_` for `.`."""
        name = name or f"topic-{uuid.uuid4().hex[:12]}"
        settings = {key.replace("_", "."): str(value) for key, value in config.items()}
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=settings)
        admin = self._admin()
        admin.create_topics([topic], request_timeout=PATIENCE_S)[name].result(PATIENCE_S)
        wait_until(lambda: self.topics().get(name) == partitions, f"topic {name} is there")
        return name

    def change_topic(self, name: str, **config) -> None:
        """As in create_topic()."""
        changes = [
            ConfigEntry(key.replace("_", "."), str(value), incremental_operation=AlterConfigOpType.SET)
            for key, value in config.items()
        ]
        resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=changes)
        admin = self._admin()
        admin.incremental_alter_configs([resource])[resource].result(PATIENCE_S)

    def topic_setting(self, name: str, setting: str) -> str:
        resource = ConfigResource(ConfigResource.Type.TOPIC, name)
        admin = self._admin()
        return admin.describe_configs([resource])[resource].result(PATIENCE_S)[setting].value

    def delete_topic(self, name: str) -> None:
        admin = self._admin()
        admin.delete_topics([name], request_timeout=PATIENCE_S)[name].result(PATIENCE_S)

    def produce(self, topic: str, *records: dict) -> None:
        """Each record has value, and as it likes key, headers, partition, timestamp (ms). Returns when all are in."""
        producer = Producer({
            "bootstrap.servers": self.address, "acks": "all", "log_level": 2,
            "topic.metadata.propagation.max.ms": 2000,  # how long a topic that is unknown may still appear
        })
        failures = []
        for record in records:
            producer.produce(topic, **record, on_delivery=lambda error, _: failures.append(error) if error else None)
        left = producer.flush(PATIENCE_S)
        assert left == 0, f"{left} records not written"
        assert not failures, failures[0]

    def ends(self, topic: str) -> dict[int, int]:
        """Of each partition that ever had a record: the offset behind the last."""
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": "tests", "log_level": 2})
        try:
            partitions = consumer.list_topics(topic, timeout=PATIENCE_S).topics[topic].partitions
            ends = {one: consumer.get_watermark_offsets(TopicPartition(topic, one), timeout=PATIENCE_S)[1]
                    for one in partitions}
            return {partition: end for partition, end in ends.items() if end > 0}
        finally:
            consumer.close()

    def records(self, topic: str) -> list[Record]:
        """All that can be read now, by partition and offset."""
        consumer = Consumer({
            "bootstrap.servers": self.address, "group.id": "tests", "enable.auto.commit": False,
            "enable.partition.eof": True, "auto.offset.reset": "earliest", "log_level": 2,
        })
        try:
            partitions = consumer.list_topics(topic, timeout=PATIENCE_S).topics[topic].partitions
            consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
            found, open_ends = [], set(partitions)

            def read_on() -> bool:
                for message in consumer.consume(10_000, timeout=0.2):
                    if message.error() is None:
                        found.append(Record(
                            topic, message.partition(), message.offset(), message.timestamp()[1], message.key(),
                            tuple(message.headers() or ()), message.value(),
                        ))
                    elif message.error().code() == KafkaError._PARTITION_EOF:
                        open_ends.discard(message.partition())
                return not open_ends

            wait_until(read_on, f"the ends of topic {topic}")
        finally:
            consumer.close()
        return sorted(found, key=lambda record: (record.partition, record.offset))
