"""The whole pipeline under load, and while all that it is made of is killed, frozen, cut off and filled up.

Nodes, real Kafka, writers, real Postgres: each acknowledged event is stored exactly once, roll-ups are the sums of their
events, and nobody is refused but for a backlog at its bound. More by environment (`scripts/test --long`):
KAVACH_TEST_PIPELINE_EVENTS, KAVACH_TEST_FAULT_ROUNDS, KAVACH_TEST_OUTAGE_S; KAVACH_TEST_SEED repeats a run's faults.
"""

import gzip
import http.client
import os
import random
import threading
import time

import pytest

from support.fleet import Fleet
from support.kavachd import PATIENCE_S, SANITIZED, wait_until
from support.pipeline import Pipeline, lag_of
from support.postgres import PostgresServer
from support.small_disk import SmallDisk

EVENTS = int(os.environ.get("KAVACH_TEST_PIPELINE_EVENTS", 20_000 if SANITIZED else 1_000_000))
ROUNDS = int(os.environ.get("KAVACH_TEST_FAULT_ROUNDS", 1))
OUTAGE_S = float(os.environ.get("KAVACH_TEST_OUTAGE_S", 3))
ORGS = 50
BATCH = 500
SMALL = {"http.body_bytes_max": 256 << 10, "journal.segment_bytes": 512 << 10}


@pytest.fixture
def postgres(tmp_path):
    with PostgresServer(tmp_path / "postgres", ["-c", "fsync=off", "-c", "max_wal_size=4GB"]) as server:
        yield server


@pytest.fixture
def make_pipeline(tmp_path, own_kafka, postgres):
    made = []

    def make(settings: dict | None = None) -> Pipeline:
        made.append(Pipeline(tmp_path, own_kafka, postgres, settings))
        return made[-1]

    yield make
    for pipeline in made:
        pipeline.close()


@pytest.fixture
def seed() -> str:
    """KAVACH_TEST_SEED, or a new one; pytest shows it when the test fails."""
    chosen = os.environ.get("KAVACH_TEST_SEED", str(time.time_ns()))
    print(f"KAVACH_TEST_SEED={chosen}")
    return chosen


def orgs_of(pipeline: Pipeline, count: int) -> list:
    """Organizations that every node knows from its next request on."""
    node = pipeline.nodes[0]
    orgs = [{"org_id": node.org_id, "api_key": node.key}, *(node.create_org(f"org {i}") for i in range(1, count))]
    for one in pipeline.nodes:
        assert one.stop() == 0
        one.start()
    return orgs


# --- a million events --------------------------------------------------------------------------------------


def batch_text(number: int) -> bytes:
    """Events with what a real one has; each is told from all others by its prompt."""
    rows = (
        f'{{"agent_name":"agent-{i % 7}","provider":"openai","model":"model-{i % 5}","input_tokens":{i % 1000},'
        f'"output_tokens":{i % 300},"cost":{i % 100}.00{i % 10},"timestamp":"2026-05-25T14:{i % 60:02}:00Z",'
        f'"duration_ms":{i % 5000},"idempotency_key":"event-{number}-{i}","prompt":"event-{number}-{i}","run_id":"run-{i % 11}"}}'
        for i in range(BATCH)
    )
    return ('{"events":[' + ",".join(rows) + "]}").encode()


class Senders:
    """Connections that send numbered batches, each batch once and then every tenth of them again."""

    def __init__(self, node, orgs: list, batches: int, connections: int):
        self.node, self.orgs, self.batches = node, orgs, batches
        self.statuses: set[int] = set()
        self.threads = [
            threading.Thread(target=self._run, args=(range(first, batches, connections),)) for first in range(connections)
        ]

    def _run(self, numbers: range) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.node.port, timeout=PATIENCE_S)
        for number in numbers:
            body = gzip.compress(batch_text(number), 1)
            headers = {
                "Authorization": f"Bearer {self.orgs[number % len(self.orgs)]['api_key']}",
                "Content-Type": "application/json", "Content-Encoding": "gzip",
            }
            for _ in range(2 if number % 10 == 0 else 1):
                self.statuses.add(self._send(connection, body, headers))
        connection.close()

    @staticmethod
    def _send(connection: http.client.HTTPConnection, body: bytes, headers: dict) -> int:
        connection.request("POST", "/v1/ingest", body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status

    def run(self) -> None:
        for thread in self.threads:
            thread.start()
        for thread in self.threads:
            thread.join()


def test_every_event_of_many_organizations_is_in_postgres_exactly_once(make_pipeline):
    pipeline = make_pipeline({"store.reply_timeout_ms": 10_000})
    node = pipeline.add_node()
    pipeline.add_writer()
    orgs = orgs_of(pipeline, ORGS)
    batches = EVENTS // BATCH
    senders = Senders(node, orgs, batches, connections=4)
    senders.run()
    assert senders.statuses == {202}
    pipeline.wait_until_stored(patience_s=10 * PATIENCE_S)

    per_org = {
        org_id: (int(events), int(keys), int(tokens))
        for org_id, events, keys, tokens in pipeline.postgres.query(
            "SELECT org_id, count(*), count(DISTINCT prompt), sum(input_tokens) FROM events GROUP BY 1")
    }
    tokens = sum(i % 1000 for i in range(BATCH))
    expected = {}
    for number in range(batches):
        org_id = orgs[number % ORGS]["org_id"]
        events, keys, sum_of_tokens = expected.get(org_id, (0, 0, 0))
        expected[org_id] = (events + BATCH, keys + BATCH, sum_of_tokens + tokens)
    assert per_org == expected
    node.check_roll_ups()
    for status in (lag_of(node), pipeline.writers[0].asker.request("GET", "/v1/status").json()):
        assert status["status"] == "ok"
    print(pipeline.reconcile())
    assert node.metric("kavach_journal_backlog_events") == node.metric("kavach_journal_backlog_bytes") == 0


# --- faults ------------------------------------------------------------------------------------------------


def restart_node(node):
    def kill_node():
        node.kill()
        node.start()

    return kill_node


def restart_writer(writer):
    def kill_writer():
        writer.kill()
        writer.start()

    return kill_writer


def outage_of(server, way: str):
    def outage():
        getattr(server, way)()
        time.sleep(OUTAGE_S)
        server.resume() if way == "pause" else server.start()

    outage.__name__ = f"{way} {type(server).__name__}"
    return outage


def hurt_at_random(rng: random.Random, faults: list) -> None:
    """Each fault once a round, in any order, at any moment."""
    for _ in range(ROUNDS):
        for fault in rng.sample(faults, len(faults)):
            time.sleep(rng.uniform(0, 1))
            print(f"{time.strftime('%T')} {fault.__name__}")
            fault()


def test_nothing_is_lost_or_doubled_while_everything_is_hurt(make_pipeline, own_kafka, postgres, seed):
    pipeline = make_pipeline(SMALL)
    node, writer = pipeline.add_node(), pipeline.add_writer()
    rng = random.Random(seed)
    orgs = orgs_of(pipeline, 5)
    with Fleet(node, orgs, connections=4, seed=seed) as fleet:
        hurt_at_random(rng, [
            restart_node(node), restart_writer(writer), outage_of(own_kafka, "stop"), outage_of(own_kafka, "kill"),
            outage_of(own_kafka, "pause"), postgres.restart, postgres.cut_connections, outage_of(postgres, "pause"),
        ])
    # What came during the outages is a backlog of as long again, and more on a busy machine.
    pipeline.wait_until_stored(patience_s=4 * PATIENCE_S + 20 * ROUNDS * OUTAGE_S)
    fleet.check()
    pipeline.reconcile()
    # The backlog never came near its bound.
    assert fleet.busy == 0
    assert len(fleet.acknowledged) > ROUNDS


def test_a_full_disk_refuses_for_a_while_and_loses_nothing(make_pipeline, tmp_path, seed):
    pipeline = make_pipeline(SMALL | {"journal.backlog_bytes_max": 2 << 20})
    node = pipeline.add_node()
    writer = pipeline.add_writer()
    orgs = orgs_of(pipeline, 3)
    assert node.stop() == 0
    with SmallDisk(node, node.journal, 16 << 20) as disk:
        node.start()
        with Fleet(node, orgs, connections=3, seed=seed) as fleet:
            for fault in (restart_writer(writer), restart_node(node)):
                time.sleep(1)
                disk.fill()
                busy = fleet.busy
                wait_until(lambda: fleet.busy > busy, "batches are refused")
                fault() if fault.__name__ == "kill_writer" else None
                disk.free()
                acknowledged = len(fleet.acknowledged)
                wait_until(lambda: len(fleet.acknowledged) > acknowledged + 10, "batches are taken again")
        pipeline.wait_until_stored()
        pipeline.reconcile()
        assert node.stop() == 0
    fleet.check()


def test_a_backlog_at_its_bound_refuses_until_kafka_is_back(make_pipeline, own_kafka, seed):
    pipeline = make_pipeline(SMALL | {"journal.backlog_bytes_max": 1 << 20})
    node = pipeline.add_node()
    pipeline.add_writer()
    with Fleet(node, orgs_of(pipeline, 3), connections=4, seed=seed) as fleet:
        wait_until(lambda: len(fleet.acknowledged) > 10, "batches are taken")
        own_kafka.pause()
        wait_until(lambda: fleet.busy > 0, "batches are refused", 4 * PATIENCE_S)
        assert lag_of(node)["kafka_lag"]["bytes"] >= 1 << 20
        own_kafka.resume()
        acknowledged = len(fleet.acknowledged)
        wait_until(lambda: len(fleet.acknowledged) > acknowledged + 10, "batches are taken again")
    pipeline.wait_until_stored()
    fleet.check()
    pipeline.reconcile()


def test_two_nodes_and_two_writers_lose_nothing_when_one_of_each_is_killed(make_pipeline, seed):
    pipeline = make_pipeline(SMALL)
    nodes = [pipeline.add_node(), pipeline.add_node()]
    writers = [pipeline.add_writer(), pipeline.add_writer()]
    rng = random.Random(seed)
    orgs = orgs_of(pipeline, 5)

    def freeze_writer():
        writers[0].pause()
        time.sleep(8)  # longer than its session
        writers[0].resume()

    with Fleet(nodes[0], orgs, connections=4, seed=seed, others=(nodes[1],)) as fleet:
        hurt_at_random(rng, [restart_node(nodes[1]), restart_writer(writers[1]), freeze_writer])
    pipeline.wait_until_stored(patience_s=4 * PATIENCE_S)
    fleet.check()
    pipeline.reconcile(with_repetitions=True)
    assert fleet.busy == 0
