"""No event is stored twice, however often, how far apart and how much at the same time it is sent.

Whether an answer waited for the disk is shown by holding the disk: while the journal's sync is held, nobody may
be answered 202.
"""

import select
import time

import pytest

from support.disk_faults import DiskFaults
from support.kavachd import Kavachd, event, wait_until
from support.raw_http import Peer, ingest

CONNECTIONS = 32
HOUR_US = 3_600_000_000


@pytest.fixture
def held(make_node):
    """A node and the means to hold its journal's sync."""
    node = make_node(start=False)
    faults = DiskFaults(node)
    return node.start(), faults


def wait_until_received(node: Kavachd, events: int) -> None:
    wait_until(lambda: node.metric("kavach_ingest_events_received_total") == events, f"{events} events received")


def answered(peers: list[Peer]) -> list[Peer]:
    ready, _, _ = select.select([peer.socket for peer in peers], [], [], 0)
    return [peer for peer in peers if peer.socket in ready]


def send_on_all(peers: list[Peer], events: list) -> None:
    for peer in peers:
        peer.send(ingest(peer.node, events))


def test_one_batch_on_32_connections_at_once_is_stored_once_and_answered_when_durable(held):
    node, faults = held
    events = [event() for _ in range(10)]
    peers = [Peer(node) for _ in range(CONNECTIONS)]
    faults.set("fdatasync /journal/ hold")
    send_on_all(peers, events)
    wait_until_received(node, len(events) * CONNECTIONS)
    wait_until(lambda: node.metric("kavach_dedup_waits_total") == CONNECTIONS - 1, "all but one to wait")
    faults.wait_for_hit()
    assert answered(peers) == []
    assert node.event_count() == 0

    faults.clear()
    answers = [peer.answer() for peer in peers]
    assert [a.status for a in answers] == [202] * CONNECTIONS
    assert {a.headers["kavach-receipt"] for a in answers} == {"journal"}
    assert {a.json()["accepted"] for a in answers} == {len(events)}
    node.wait_for_events(len(events))
    assert node.metric("kavach_dedup_hits_total") == len(events) * (CONNECTIONS - 1)
    assert node.metric("kavach_journal_events_total") == len(events)
    node.check_roll_ups()


def test_when_the_first_try_fails_another_connection_takes_over(held):
    node, faults = held
    events = [event() for _ in range(10)]
    peers = [Peer(node) for _ in range(CONNECTIONS)]
    faults.set("fdatasync /journal/ hold")
    send_on_all(peers, events)
    wait_until(lambda: node.metric("kavach_dedup_waits_total") == CONNECTIONS - 1, "all but one to wait")
    faults.wait_for_hit()
    faults.set("fdatasync /journal/ errno=5")
    faults.wait_for_hit()
    faults.clear()

    statuses = [peer.answer().status for peer in peers]
    assert set(statuses) <= {202, 429}
    assert statuses.count(429) >= 1, "the try that the disk refused"
    for peer in peers:
        wait_until(lambda: peer.post(events).status == 202, "the retry to be accepted")
    node.wait_for_events(len(events))
    node.check_roll_ups()


def test_a_batch_killed_before_its_answer_is_stored_once_after_its_retry(held):
    node, faults = held
    events = [event() for _ in range(10)]
    faults.set("fdatasync /journal/ hold")
    with Peer(node) as peer:
        peer.send(ingest(node, events))
        faults.wait_for_hit()
        node.kill()
        assert peer.ended(), "no answer before the sync"
    faults.clear()
    node.start()
    assert node.post(events).status == 202
    node.wait_for_events(len(events))
    node.check_roll_ups()


def test_batches_that_overlap_wait_for_each_other_and_store_the_union(held):
    node, faults = held
    events = [event() for _ in range(CONNECTIONS + 4)]
    peers = [Peer(node) for _ in range(CONNECTIONS)]
    faults.set("fdatasync /journal/ hold")
    for i, peer in enumerate(peers):
        peer.send(ingest(node, events[i : i + 5]))
    wait_until_received(node, 5 * CONNECTIONS)
    faults.wait_for_hit()
    assert answered(peers) == []
    faults.clear()
    assert [peer.answer().status for peer in peers] == [202] * CONNECTIONS
    node.wait_for_events(len(events))
    node.check_roll_ups()


def test_an_event_twice_in_one_batch_is_stored_once(node):
    first, other = event(input_tokens=1), event()
    again = first | {"input_tokens": 2}
    answer = node.post([first, other, again])
    assert (answer.status, answer.json()["accepted"]) == (202, 3)
    node.wait_for_events(2)
    assert node.query("SELECT input_tokens FROM events WHERE dedup_key = ?", first["idempotency_key"]) == [(1,)]


def test_events_without_a_key_are_never_taken_for_duplicates(node):
    keyless = event(idempotency_key=...)
    assert node.post([keyless, keyless]).status == 202
    assert node.post([keyless, keyless | {"idempotency_key": None}]).status == 202
    node.wait_for_events(4)


def test_the_same_key_of_another_organization_is_another_event(node):
    other = node.create_org("other")
    shared = event()
    assert node.post([shared]).status == 202
    wait_until(lambda: node.post([shared], key=other["api_key"]).status == 202, "the new key to be known")
    node.wait_for_events(2)
    assert node.query("SELECT count(DISTINCT org_id) FROM events") == [(2,)]


def test_two_keys_of_an_organization_share_its_duplicates(node):
    second = node.create_key("second")
    shared = event()
    assert node.post([shared]).status == 202
    wait_until(lambda: node.post([shared], key=second["api_key"]).status == 202, "the new key to be known")
    assert node.post([event()]).status == 202
    node.wait_for_events(2)


# Every shard takes connections of every organization; whose home is another one must be asked.
def test_duplicates_are_found_across_shards(make_node):
    node = make_node({"engine.shards": 4}, start=False)
    faults = DiskFaults(node)
    node.start()
    orgs = [{"api_key": node.key}] + [node.create_org(f"org-{i}") for i in range(4)]
    for org in orgs:
        wait_until(lambda: node.post([event()], key=org["api_key"]).status == 202, "the new key to be known")
    node.wait_for_events(len(orgs))
    shared = [event() for _ in range(3)]
    peers = [(Peer(node), org) for org in orgs for _ in range(16)]
    faults.set("fdatasync /journal/ hold")
    for peer, org in peers:
        peer.send(ingest(node, shared, {"Authorization": f"Bearer {org['api_key']}"}))
    wait_until(lambda: node.metric("kavach_dedup_waits_total") == 15 * len(orgs), "all but one of each to wait")
    shards = [i for i in range(4) if node.metric("kavach_ingest_events_received_total", shard=i) > 0]
    assert len(shards) > 1, "the connections were to be spread over the shards"
    faults.clear()
    assert {peer.answer().status for peer, _ in peers} == {202}
    node.wait_for_events(len(orgs) + len(shared) * len(orgs))
    node.check_roll_ups()


@pytest.mark.parametrize("end", ["kill", "stop"])
@pytest.mark.parametrize("delay_ms", [10, 1000])
def test_duplicates_are_found_after_a_restart(make_node, end, delay_ms):
    # Remembered from the store, or from the journal's tail that is not stored yet.
    node = make_node({"store.batch_delay_ms": delay_ms})
    stored, unstored = [event() for _ in range(10)], [event() for _ in range(10)]
    assert node.post(stored).status == 202
    node.wait_for_events(10)
    assert node.post(unstored).status == 202
    getattr(node, end)()
    # With other shards, organizations have other homes.
    node.settings["engine.shards"] = 3
    node.start()
    assert node.post(unstored + [event()] + stored).status == 202
    node.wait_for_events(21)
    assert node.metric("kavach_dedup_hits_total") == 20
    node.check_roll_ups()


def test_what_the_memory_has_forgotten_the_store_still_refuses(make_node):
    node = make_node({"quota.dedup_keys_max": 1000})
    events = [event() for _ in range(10_000)]
    batches = [events[i : i + 1000] for i in range(0, len(events), 1000)]
    for batch in batches:
        assert node.post(batch).status == 202
    node.wait_for_events(len(events))
    wait_until(lambda: node.metric("kavach_dedup_evicted_keys") > 0, "keys to be forgotten")
    for batch in batches:
        assert node.post(batch).status == 202
    last = [event()]
    assert node.post(last).status == 202
    node.wait_for_events(len(events) + 1)
    assert node.metric("kavach_shipper_duplicates_total") > 0
    node.check_roll_ups()


def test_pruning_forgets_what_is_older_than_the_window_and_nothing_younger(make_node):
    node = make_node({"quota.dedup_window_hours": 24})
    old, young = [event() for _ in range(5)], [event() for _ in range(5)]
    assert node.post(old + young).status == 202
    node.wait_for_events(10)
    node.stop()
    now_us = time.time_ns() // 1000
    for events, age_hours in ((old, 25), (young, 23)):
        seen_at_us = now_us - age_hours * HOUR_US
        for e in events:
            key = e["idempotency_key"]
            node.execute("UPDATE dedup_keys SET seen_at_us = ? WHERE dedup_key = ?", seen_at_us, key)
    node.start()
    remembered = "SELECT dedup_key FROM dedup_keys"
    wait_until(lambda: len(node.query(remembered)) == 5, "the old keys to be pruned")
    assert {key for (key,) in node.query(remembered)} == {e["idempotency_key"] for e in young}
    assert node.post(young).status == 202
    assert node.post(old).status == 202  # beyond the window: events of their own
    node.wait_for_events(15)
    node.check_roll_ups()
