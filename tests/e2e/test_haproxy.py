"""Two real nodes behind a real haproxy with the shipped configs/haproxy.cfg: an organization stays with one node, and
a node that is stopped costs no request."""

import http.client
import sqlite3
import subprocess
import threading
from pathlib import Path

import pytest

from support.haproxy import CONFIG, Haproxy
from support.kavachd import PATIENCE_S, Kavachd, batch_body, event, wait_until

ORGS = 12


@pytest.fixture
def nodes(make_node, tmp_path, redis) -> list[Kavachd]:
    """Two that are one fleet, with one store."""
    settings = {"store.path": str(tmp_path / "kavach.db"), "redis.url": redis.url, "http.drain_delay_ms": 1500}
    return [make_node(settings), make_node(settings)]


class Client:
    """An organization's SDK: one connection that is kept, as long as the proxy keeps it."""

    def __init__(self, port: int, key: str):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        self.key = key

    def send(self) -> int:
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        self.connection.request("POST", "/v1/ingest", batch_body([event()]), headers)
        answer = self.connection.getresponse()
        answer.read()
        return answer.status


def batches(node: Kavachd) -> int:
    return int(node.metric("kavach_ingest_batches_accepted_total"))


def events_in(store: Path) -> int:
    connection = sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=PATIENCE_S)
    try:
        return connection.execute("SELECT count(*) FROM events").fetchone()[0]
    finally:
        connection.close()


def test_the_shipped_config_is_right():
    subprocess.run(["haproxy", "-c", "-f", CONFIG], check=True, capture_output=True)


def test_an_organization_stays_with_one_node(nodes, tmp_path):
    keys = [nodes[0].create_org(f"org-{n}")["api_key"] for n in range(ORGS)]
    with Haproxy(tmp_path, nodes) as proxy:
        for key in keys:
            assert wait_until(lambda: Client(proxy.port, key).send() == 202, "every node knows the key")
            before = [batches(node) for node in nodes]
            for _ in range(5):
                assert Client(proxy.port, key).send() == 202, "a new connection each time"
            taken = [batches(node) - then for node, then in zip(nodes, before)]
            assert sorted(taken) == [0, 5]
        assert all(batches(node) > 0 for node in nodes), "both have organizations"


def test_a_node_that_is_stopped_gets_no_more_requests_and_none_fails(nodes, tmp_path):
    keys = [nodes[0].create_org(f"org-{n}")["api_key"] for n in range(ORGS)]
    statuses: list[int] = []
    failures: list[str] = []
    stopping = threading.Event()

    with Haproxy(tmp_path, nodes) as proxy:
        for key in keys:
            wait_until(lambda: Client(proxy.port, key).send() == 202, "every node knows the key")

        def both_have_organizations() -> bool:
            # HAProxy may have taken a busy node for one that is down, and finds it again with its next checks.
            statuses.extend(Client(proxy.port, key).send() for key in keys)
            return all(batches(node) > 0 for node in nodes)

        wait_until(both_have_organizations, "both have organizations")

        def run(key: str) -> None:
            client = Client(proxy.port, key)
            try:
                while not stopping.is_set():
                    statuses.append(client.send())
            except Exception as error:  # told below
                failures.append(repr(error))

        threads = [threading.Thread(target=run, args=(key,)) for key in keys]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: len(statuses) > 100, "requests")
            leaving, staying = nodes
            assert leaving.stop() == 0
            before, taken = len(statuses), batches(staying)
            wait_until(lambda: len(statuses) > before + 100, "requests go on")
            assert batches(staying) > taken
        finally:
            stopping.set()
            for thread in threads:
                thread.join()
    assert failures == []
    assert set(statuses) == {202}
    sent = len(statuses) + len(keys)
    wait_until(lambda: events_in(tmp_path / "kavach.db") == sent, f"{sent} events in the store, each once")
