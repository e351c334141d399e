"""Disks that are full, broken, read-only or taken: events are refused for a moment, and nothing is lost.

A refusal is a transient 429 with Retry-After and never a 5xx, the probes say what is wrong, and everything goes
on by itself when the cause is gone.
"""

import shutil
import socket
import sqlite3

import pytest

from support.disk_faults import DiskFaults
from support.kavachd import Kavachd, event, wait_until
from support.small_disk import SmallDisk

MIB = 1 << 20
# A segment is preallocated, so this is also how much must be free for the next one.
SMALL_SEGMENTS = {"http.body_bytes_max": 64 << 10, "journal.segment_bytes": 128 << 10}


def check_backpressure(answer) -> None:
    assert answer.status == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["reason"] == "backpressure"  # not one of those that stop the SDK for good


def status(node: Kavachd) -> dict:
    assert node.request("GET", "/healthz").status == 200
    answer = node.request("GET", "/v1/status")
    assert answer.status == 200
    return answer.json()


def check_journal_down(node: Kavachd) -> None:
    ready = node.request("GET", "/readyz")
    assert (ready.status, ready.json()) == (503, {"status": "journal failed"})
    state = status(node)
    assert (state["status"], state["journal"], state["database"]) == ("degraded", "down", "ok")


def wait_until_ready(node: Kavachd) -> None:
    """Without traffic: a load balancer sends none to a node that is not ready."""
    wait_until(lambda: node.request("GET", "/readyz").status == 200, "readiness")
    assert status(node)["status"] == "ok"


def post_until_refused(node: Kavachd) -> tuple[list, list]:
    """Batches that were acknowledged, and the one that was not."""
    acknowledged = []
    while True:
        batch = [event(prompt="x" * 1000) for _ in range(20)]
        answer = node.post(batch)
        if answer.status != 202:
            check_backpressure(answer)
            return acknowledged, batch
        acknowledged.append(batch)


def check_stored_once(node: Kavachd, batches: list) -> None:
    node.wait_for_events(sum(len(batch) for batch in batches))
    stored = {key for (key,) in node.query("SELECT dedup_key FROM events")}
    assert stored == {e["idempotency_key"] for batch in batches for e in batch}
    node.check_roll_ups()


# --- the journal's disk ------------------------------------------------------------------------------------


def test_a_full_journal_disk_is_backpressure_until_there_is_space_again(make_node):
    node = make_node(SMALL_SEGMENTS, start=False)
    with SmallDisk(node, node.journal, 2 * MIB) as disk:
        node.start()
        disk.fill()
        acknowledged, refused = post_until_refused(node)
        check_journal_down(node)
        check_backpressure(node.post(refused))  # a retry, too early
        assert node.metric("kavach_journal_failures_total") > 0
        assert "No space left on device" in node.log()

        disk.free()
        wait_until_ready(node)
        assert "journal: writes again" in node.log()
        assert node.post(refused).status == 202
        assert node.post(refused).status == 202  # its answer got lost
        check_stored_once(node, [*acknowledged, refused])
        assert node.stop() == 0


def test_a_process_killed_on_a_full_disk_starts_on_it_and_has_lost_nothing(make_node):
    # The store follows so late that the journal is the only copy.
    node = make_node(SMALL_SEGMENTS | {"store.batch_delay_ms": 60_000}, start=False)
    with SmallDisk(node, node.journal, 2 * MIB) as disk:
        node.start()
        acknowledged, refused = post_until_refused(node)
        disk.fill()
        assert acknowledged
        node.kill()
        node.settings["store.batch_delay_ms"] = 10
        node.start()
        check_stored_once(node, acknowledged)
        wait_until_ready(node)
        disk.free()
        wait_until(lambda: node.post(refused).status == 202, "the refused batch to be accepted")
        check_stored_once(node, [*acknowledged, refused])
        assert node.stop() == 0


def test_spares_may_be_deleted_to_make_room(make_node):
    node = make_node(SMALL_SEGMENTS)
    batches = [[event(prompt="x" * 1000) for _ in range(20)] for _ in range(30)]
    for batch in batches[:20]:
        assert node.post(batch).status == 202
    wait_until(lambda: list(node.journal.glob("*.spare")), "a segment that is kept to be written again")
    for spare in node.journal.glob("*.spare"):
        spare.unlink()
    for batch in batches[20:]:
        assert node.post(batch).status == 202
    check_stored_once(node, batches)


@pytest.mark.parametrize("call", ["fdatasync", "pwritev"])
def test_a_group_that_failed_is_refused_and_never_reappears(make_node, call):
    node = make_node(start=False)
    faults = DiskFaults(node)
    node.start()
    before, behind = [event()], [event()]
    keyless = [event(idempotency_key=...)]
    assert node.post(before).status == 202
    # The tail cannot even be cut off.
    faults.set(f"{call} /journal/ errno=5", "ftruncate /journal/ errno=5")
    check_backpressure(node.post(keyless))
    faults.wait_for_hit(2)
    faults.clear()
    wait_until_ready(node)
    assert node.post(behind).status == 202
    node.kill()
    node.start()
    check_stored_once(node, [before, behind])
    assert node.post(keyless).status == 202
    node.wait_for_events(3)


def test_a_broken_journal_disk_is_tried_again_without_traffic(make_node):
    node = make_node(start=False)
    faults = DiskFaults(node)
    node.start()
    batch = [event()]
    faults.set("fdatasync /journal/ errno=5", "fsync /journal errno=5")
    check_backpressure(node.post(batch))
    check_journal_down(node)
    assert "Input/output error" in node.log()
    faults.clear()
    wait_until_ready(node)
    assert node.post(batch).status == 202
    check_stored_once(node, [batch])


# --- the store ---------------------------------------------------------------------------------------------


def test_a_full_store_disk_lets_the_ingest_go_on(make_node):
    node = make_node(start=False)
    folder = node.folder / "store"
    node.settings["store.path"] = str(folder / "kavach.db")
    with SmallDisk(node, folder, 4 * MIB) as disk:
        node.start()
        batches = [[event(prompt="x" * 1000) for _ in range(20)] for _ in range(20)]
        assert node.post(batches[0]).status == 202
        wait_until(lambda: node.metric("kavach_shipper_events_total") == 20, "the first batch in the store")
        disk.fill()
        for batch in batches[1:]:
            assert node.post(batch).status == 202
        wait_until(lambda: status(node)["database"] == "down", "the status to tell")
        assert status(node)["journal"] == "ok"
        assert node.request("GET", "/readyz").status == 200
        assert "the store refuses writes" in node.log()

        disk.free()
        wait_until(lambda: status(node)["status"] == "ok", "the store to go on")
        assert node.stop() == 0
        shutil.copy(disk.inside / "kavach.db", node.store)
    check_stored_once(node, batches)


def test_a_locked_store_is_a_growing_backlog_and_at_its_bound_backpressure(make_node):
    node = make_node(SMALL_SEGMENTS | {"journal.backlog_bytes_max": 256 << 10})
    first = [event()]
    assert node.post(first).status == 202
    node.wait_for_events(1)
    other = sqlite3.connect(node.store, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        acknowledged, refused = post_until_refused(node)
        assert acknowledged, "the ingest goes on while the store is locked"
        assert node.metric("kavach_journal_backlog_bytes") >= 256 << 10
        assert node.metric("kavach_journal_backlog_frames") == len(acknowledged)
        assert node.metric("kavach_ingest_batches_refused_total", reason="backpressure") == 1
        assert node.event_count() == 1
        wait_until(lambda: status(node)["database"] == "down", "the status to tell")
        assert node.request("GET", "/readyz").status == 200
        check_backpressure(node.post(refused))
    finally:
        other.execute("ROLLBACK")
        other.close()
    wait_until(lambda: node.post(refused).status == 202, "the refused batch to be accepted")
    check_stored_once(node, [first, *acknowledged, refused])
    assert status(node)["status"] == "ok"


def test_a_locked_store_does_not_hinder_a_stop_and_a_start_goes_on_where_it_was(make_node):
    node = make_node({"http.drain_timeout_ms": 100})
    batches = [[event()] for _ in range(5)]
    other = sqlite3.connect(node.store, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    for batch in batches:
        assert node.post(batch).status == 202
    assert node.stop() == 0
    assert node.event_count() == 0
    other.execute("ROLLBACK")
    other.close()
    node.start()
    check_stored_once(node, batches)


# --- what a start cannot use -------------------------------------------------------------------------------


def refusal(node: Kavachd) -> str:
    node.folder.mkdir(exist_ok=True)
    node.write_config()
    done = node.command("serve", check=False)
    assert done.returncode == 1
    return done.stderr


def test_a_journal_directory_in_use_is_refused(make_node):
    first = make_node()
    second = make_node({"journal.directory": str(first.journal)}, start=False)
    assert f"journal.directory: {first.journal} is in use by another kavachd" in refusal(second)
    assert first.post([event()]).status == 202


def test_a_port_that_another_kavachd_listens_on_is_refused(make_node):
    first = make_node()
    second = make_node({"http.port": first.port}, start=False)
    assert f"cannot listen on 127.0.0.1:{first.port}: Address already in use" in refusal(second)
    assert first.post([event()]).status == 202


def test_a_port_that_another_program_listens_on_is_refused(make_node):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = refusal(make_node({"http.port": port}, start=False))
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in said
    assert "http.port" in said


def test_a_read_only_journal_directory_is_refused(make_node):
    node = make_node(start=False)
    with SmallDisk(node, node.journal, MIB) as disk:
        disk.make_read_only()
        assert f"journal.directory: cannot open {node.journal}/lock: Read-only file system" in refusal(node)


def test_a_read_only_store_is_refused(make_node):
    node = make_node(start=False)
    folder = node.folder / "store"
    node.settings["store.path"] = str(folder / "kavach.db")
    with SmallDisk(node, folder, MIB) as disk:
        disk.make_read_only()
        said = refusal(node)
    assert f"cannot open the store: {folder}/kavach.db" in said
    assert "Read-only file system" in said
