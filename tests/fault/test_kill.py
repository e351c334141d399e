"""Kills kavachd under load, again and again: what was answered 202 is stored once, whatever was sent how often.

Several agents send over connections of their own (tests/support/fleet.py) while the process is ended at random
moments and started again. KAVACH_TEST_KILL_ROUNDS says how often (`scripts/test --kill-rounds N`).
"""

import os
import random
import time

import pytest

from support.fleet import Fleet
from support.kavachd import SANITIZED, Kavachd

ROUNDS = int(os.environ.get("KAVACH_TEST_KILL_ROUNDS", 6 if SANITIZED else 25))
CONNECTIONS = 6

# Small segments, so that rounds also end between segments, and with several of them to be read again.
SETTINGS = {"http.body_bytes_max": 256 << 10, "journal.segment_bytes": 512 << 10}


@pytest.fixture
def seed() -> str:
    """KAVACH_TEST_SEED, or a new one; pytest shows it when the test fails."""
    chosen = os.environ.get("KAVACH_TEST_SEED", str(time.time_ns()))
    print(f"KAVACH_TEST_SEED={chosen}")
    return chosen


def start_with_orgs(node: Kavachd) -> list:
    node.start()
    orgs = [{"org_id": node.org_id, "api_key": node.key}, node.create_org("second"), node.create_org("third")]
    assert node.stop() == 0
    node.start()  # knows the keys from its first request on
    return orgs


def test_what_was_acknowledged_survives_kill_9_and_is_stored_once(make_node, seed):
    node = make_node(SETTINGS, start=False)
    rng = random.Random(seed)
    with Fleet(node, start_with_orgs(node), CONNECTIONS, seed) as fleet:
        for _ in range(ROUNDS):
            # The store right behind the journal, or so far that most is read from the journal after the kill.
            node.settings["store.batch_delay_ms"] = rng.choice([10, 2000])
            time.sleep(rng.uniform(0, 0.3))
            node.kill()
            node.start()
    assert node.stop() == 0
    fleet.check()
    assert len(fleet.acknowledged) > ROUNDS
    assert fleet.losses, "no answer was lost: nothing was killed under load"


def test_a_process_killed_while_it_starts_loses_and_repeats_nothing(make_node, seed):
    node = make_node(SETTINGS | {"store.batch_delay_ms": 2000}, start=False)
    rng = random.Random(seed)
    with Fleet(node, start_with_orgs(node), CONNECTIONS, seed) as fleet:
        for _ in range(max(1, ROUNDS // 5)):
            time.sleep(rng.uniform(0.1, 0.3))
            node.kill()
            started_at = time.monotonic()
            node.start()
            start_takes = time.monotonic() - started_at
            node.kill()
            for _ in range(5):
                node.start(wait=False)
                time.sleep(rng.uniform(0, start_takes))
                node.kill()
            node.start()
    assert node.stop() == 0
    fleet.check()


def test_sigterm_under_load_answers_what_was_sent_and_loses_nothing(make_node, seed):
    node = make_node(SETTINGS, start=False)
    rng = random.Random(seed)
    cut_off = []
    with Fleet(node, start_with_orgs(node), CONNECTIONS, seed) as fleet:
        for _ in range(max(1, ROUNDS // 3)):
            time.sleep(rng.uniform(0, 0.3))
            losses_before = len(fleet.losses)
            asked_to_stop_at = time.monotonic()
            assert node.stop() == 0
            cut_off += [
                loss.error
                for loss in fleet.losses[losses_before:]
                if loss.sent_at is not None and loss.sent_at < asked_to_stop_at
            ]
            node.start()
    assert node.stop() == 0
    assert cut_off == [], "requests that had been sent before SIGTERM were not answered"
    fleet.check()
