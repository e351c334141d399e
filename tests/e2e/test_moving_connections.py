"""Connections move to the shard where their organization is decided, over TLS, too, and nothing is lost on the way."""

import pytest

from support.kavachd import event, wait_until
from support.raw_http import Peer, ingest
from support.tls import make_tls_node

SHARDS = 2
CONNECTIONS = 4  # of an organization
ROUNDS = 60


@pytest.fixture(params=["plain", "tls"])
def node(request, make_node, tmp_path):
    settings = {"engine.shards": SHARDS}
    if request.param == "plain":
        yield make_node(settings)
    else:
        with make_tls_node(tmp_path, settings) as secure:
            yield secure


def received(node) -> list[float]:
    return [node.metric("kavach_ingest_events_received_total", shard=i) for i in range(SHARDS)]


def home_of(node, key: str) -> int:
    """The shard that remembers what this organization sends."""
    def keys() -> list[float]:
        return [node.metric("kavach_dedup_keys", shard=i) for i in range(SHARDS)]

    wait_until(lambda: node.post([], key=key).status != 401, "the key to be known")
    before = keys()
    assert node.post([event()], key=key).status == 202
    wait_until(lambda: keys() != before, "the event's key to be counted")
    return next(i for i, (was, now) in enumerate(zip(before, keys())) if was != now)


def test_connections_go_where_their_organization_is_decided(node):
    by_home = {}
    sent = 0
    while len(by_home) < SHARDS:
        key = node.create_org(f"org-{sent}")["api_key"]
        by_home.setdefault(home_of(node, key), key)
        sent += 1
    peers = {home: [Peer(node) for _ in range(CONNECTIONS)] for home in by_home}

    def send_with(home: int) -> None:
        for peer in peers[home]:
            answer = peer.ask(ingest(node, [event()], {"Authorization": f"Bearer {by_home[home]}"}))
            assert answer.status == 202

    for _ in range(ROUNDS):
        for home in by_home:
            send_with(home)
    for home in by_home:
        before = received(node)
        send_with(home)
        came = [now - was for was, now in zip(before, received(node))]
        assert came == [CONNECTIONS if i == home else 0 for i in range(SHARDS)]
    node.wait_for_events(sent + SHARDS * CONNECTIONS * (ROUNDS + 1))
    node.check_roll_ups()
