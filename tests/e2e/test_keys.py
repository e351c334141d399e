"""What becomes known of a key's use, and what keys are worth while the store is away.

How keys are read and refused is in test_credentials.py.
"""

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor

from support.kavachd import Kavachd, event, wait_until

ATTEMPTS = 40


def use_of(node: Kavachd, key: dict) -> tuple:
    """auth_failures_count, last_used_at_us, last_failed_at_us"""
    columns = "auth_failures_count, last_used_at_us, last_failed_at_us"
    return node.query(f"SELECT {columns} FROM api_keys WHERE id = ?", key["key_id"].removeprefix("key_"))[0]


def use_until_revoked(node: Kavachd, key: dict) -> None:
    wait_until(lambda: node.post([event()], key=key["api_key"]).status == 202, "the new key")
    node.command("key", "revoke", key["key_id"])
    wait_until(lambda: node.post([event()], key=key["api_key"]).status == 401, "the key to be refused")


def test_a_key_made_and_revoked_by_another_process_takes_effect_with_the_defaults(make_node):
    # auth.poll_ms is at most a second, so nobody waits longer for another process's change.
    node = make_node()
    key = node.create_key("second")
    use_until_revoked(node, key)
    assert node.stop() == 0
    node.start()
    assert node.post([event()], key=key["api_key"]).status == 401
    assert node.post([event()]).status == 202


def test_use_is_noted_once_a_minute(node):
    key = node.create_key("second")
    before_us = time.time_ns() // 1000
    wait_until(lambda: node.post([event()], key=key["api_key"]).status == 202, "the new key")
    first = wait_until(lambda: use_of(node, key)[1], "the use to be noted")
    assert before_us <= first <= time.time_ns() // 1000
    for _ in range(20):
        assert node.post([event()], key=key["api_key"]).status == 202
    assert node.stop() == 0
    failures, last, last_failed = use_of(node, key)
    assert (failures, last_failed) == (0, None)
    # Each shard notes for itself, so the second one's note may be later than the first one's.
    assert first <= last < first + 60_000_000


def test_every_use_of_a_revoked_key_is_counted_also_right_before_a_stop(node):
    key = node.create_key("leaked")
    use_until_revoked(node, key)
    failed_so_far = wait_until(lambda: use_of(node, key)[0], "the refusal to be counted")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: node.post([event()], key=key["api_key"]), range(ATTEMPTS)))
    assert {a.status for a in answers} == {401}
    assert node.stop() == 0
    failures, last_used, last_failed = use_of(node, key)
    assert failures == failed_so_far + ATTEMPTS
    assert last_used < last_failed <= time.time_ns() // 1000


def test_use_of_an_unknown_key_is_noted_nowhere(node):
    before = node.query("SELECT * FROM api_keys")
    assert node.post([event()], key="ak_prod_" + "0" * 64).status == 401
    assert node.stop() == 0
    assert node.query("SELECT * FROM api_keys") == before


def test_keys_work_while_the_store_is_locked_and_their_use_is_written_later(node):
    key = node.create_key("leaked")
    use_until_revoked(node, key)
    failed_so_far = wait_until(lambda: use_of(node, key)[0], "the refusal to be counted")
    other = sqlite3.connect(node.store, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    for _ in range(3):
        assert node.post([event()]).status == 202
        assert node.post([event()], key=key["api_key"]).status == 401
    assert use_of(node, key)[0] == failed_so_far
    other.execute("ROLLBACK")
    other.close()
    wait_until(lambda: use_of(node, key)[0] == failed_so_far + 3, "the refusals to be counted")
