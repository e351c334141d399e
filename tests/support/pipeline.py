"""Pipeline: nodes whose events go through a real Kafka and `kavachd writer` into a real Postgres."""

import json
import uuid
from pathlib import Path

from support.kafka import KafkaServer
from support.kavachd import PATIENCE_S, wait_until
from support.postgres import PostgresKavachd, PostgresServer
from support.writer import WriterProcess

# Limits are another test's subject; servers that say nothing are given up soon, so that a test sees them come back.
SETTINGS = {
    "quota.burst_mode": "shadow", "quota.daily_mode": "shadow", "quota.agents_mode": "shadow",
    "store.reply_timeout_ms": 1000, "writer.session_timeout_ms": 6000,
}


class Pipeline:
    def __init__(self, folder: Path, kafka: KafkaServer, postgres: PostgresServer, settings: dict | None = None):
        name = uuid.uuid4().hex[:12]
        self.folder, self.kafka, self.postgres = folder, kafka, postgres
        self.settings = SETTINGS | {
            "kafka.brokers": kafka.address, "kafka.topic": f"events-{name}", "kafka.dlq_topic": f"dlq-{name}",
            "kafka.alerts_topic": f"alerts-{name}", "writer.group": f"group-{name}",
        } | (settings or {})
        self.nodes: list[PostgresKavachd] = []
        self.writers: list[WriterProcess] = []

    def add_node(self, **settings) -> PostgresKavachd:
        """One that runs; the first one makes the topics and the organization."""
        node = PostgresKavachd(self.folder / f"node{len(self.nodes)}", self.settings | settings, server=self.postgres)
        if self.nodes:
            node.key, node.org_id = self.nodes[0].key, self.nodes[0].org_id
        else:
            node.folder.mkdir(parents=True)
            node.write_config()
            node.command("topics", "create")
        self.nodes.append(node)
        return node.start()

    def add_writer(self, start: bool = True, **settings) -> WriterProcess:
        writer = WriterProcess(self.nodes[0], f"writer{len(self.writers)}", settings)
        self.writers.append(writer)
        return writer.start() if start else writer

    def wait_until_stored(self, patience_s: float = PATIENCE_S) -> None:
        """Until nothing is on its way."""
        for node in self.nodes:
            wait_until(lambda: lag_of(node)["kafka_lag"]["events"] == 0, "everything is in Kafka", patience_s)
        ends = self.ends()
        topic = self.settings["kafka.topic"]

        def stored() -> bool:
            sql = f"SELECT partition, next_offset FROM partition_positions WHERE topic = '{topic}'"
            positions = {int(partition): int(offset) for partition, offset in self.postgres.query(sql)}
            return all(positions.get(partition, 0) >= end for partition, end in ends.items())

        wait_until(stored, "the writer stores what is in Kafka", patience_s)

    def ends(self) -> dict[int, int]:
        """Of each partition that has records: the offset behind the last."""
        return self.kafka.ends(self.settings["kafka.topic"])

    def letters(self, *words) -> list[dict]:
        return [json.loads(line) for line in self.nodes[0].command("dlq", "list", *words).stdout.splitlines()]

    def reconcile(self, with_repetitions: bool = False) -> dict:
        """`kavachd reconcile` over all journals, which finds nothing missing and nothing doubled. `with_repetitions`: so many
        batches were sent to several nodes that not all of their events can be told from missing ones."""
        first, *others = self.nodes
        more = [word for node in others for word in ("--journal", str(node.journal))]
        done = first.command("reconcile", "--json", *more, check=False, patience_s=300)
        assert done.returncode in (0, 1), done.stderr
        report = json.loads(done.stdout)
        assert report["total"]["missing_in_topic"] == 0, done.stdout
        # Of very many repetitions not every one is looked up.
        assert with_repetitions or report["missing"] == report["unchecked"], done.stdout
        assert report["doubled"] == report["roll_ups_differ"] == report["damaged_frames"] == 0, done.stdout
        return report

    def close(self) -> None:
        for process in self.writers:
            process.close()
        for node in self.nodes:
            node.__exit__(None)


def lag_of(node) -> dict:
    return node.request("GET", "/v1/status").json()
