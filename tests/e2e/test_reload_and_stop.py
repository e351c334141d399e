"""SIGHUP and SIGTERM: what a reload changes and refuses, and how a process ends without cutting anybody off."""

import signal
import socket

import pytest

from support.disk_faults import DiskFaults
from support.kavachd import PATIENCE_S, Kavachd, event, wait_until
from support.raw_http import Peer, ingest, request


def terminate(node: Kavachd) -> None:
    node.process.send_signal(signal.SIGTERM)


def wait_until_draining(node: Kavachd) -> None:
    wait_until(lambda: "stopping: readiness is off" in node.log(), "the stop")


def refuses_connections(node: Kavachd) -> bool:
    try:
        node.connect().close()
        return False
    except ConnectionRefusedError:
        return True


def end_of(node: Kavachd) -> int:
    code = node.process.wait(timeout=PATIENCE_S)
    node.process = None
    return code


# --- reload ------------------------------------------------------------------------------------------------


def test_live_settings_take_effect_also_on_open_connections(node):
    with Peer(node) as peer:
        assert peer.post([event(), event()]).status == 202
        said = node.reload(ingest__batch_events_max=1)
        assert "ingest.batch_events_max: 1000 -> 1\n" in said
        assert peer.post([event(), event()]).status == 422
        node.reload(ingest__batch_events_max=2, http__body_bytes_max=1024)
        assert peer.post([event(), event()]).status == 202
        assert peer.post([event(prompt="x" * 2000)]).status == 413
    assert node.post([event()]).status == 202


def test_log_level_and_tiers_are_read_again(make_node):
    node = make_node({"log.level": "error"}, start=False)
    tiers = node.folder / "tiers.toml"
    node.folder.mkdir()
    tiers.write_text("[free]\n[max]\n")
    node.settings["quota.tiers_file"] = str(tiers)
    node.start()
    assert node.log() == ""
    node.settings["log.level"] = "info"
    node.write_config()
    node.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "reload: done" in node.log(), "the reload")

    tiers.write_text("[free]\nevents_per_day = -1\n")
    said = node.reload_file()
    assert "reload: refused, the old settings stay" in said and f"{tiers}:2" in said


def test_a_wrong_file_is_refused_and_the_old_settings_stay(node):
    node.reload(ingest__batch_events_max=2)
    node.config.write_text("[ingest]\nbatch_events_max = 0\n[http]\nprot = 1\n")
    said = node.reload_file()
    assert "reload: refused, the old settings stay" in said
    assert f"{node.config}:2:20: ingest.batch_events_max: 0 is out of range" in said
    assert f"{node.config}:4:1: http.prot: no such setting; did you mean http.port?" in said
    assert node.post([event()] * 2).status == 202
    assert node.post([event()] * 3).status == 422
    node.config.unlink()
    assert "cannot be opened" in node.reload_file()
    assert node.post([event()] * 3).status == 422
    assert "reload: done" in node.reload(ingest__batch_events_max=3)
    assert node.post([event()] * 3).status == 202


def test_a_setting_that_needs_a_restart_is_named_and_the_others_are_taken(node):
    said = node.reload(engine__shards=1, ingest__batch_events_max=1)
    assert "engine.shards: 2 -> 1 (takes effect with the next start)" in said
    assert "ingest.batch_events_max: 1000 -> 1\n" in said
    assert node.post([event(), event()]).status == 422
    # It is not forgotten with the next reload.
    assert "engine.shards: 2 -> 1 (takes effect with the next start)" in node.reload()


def test_a_reload_of_the_same_file_changes_nothing(node):
    said = node.reload_file()
    assert "->" not in said
    assert node.post([event()]).status == 202


# --- stop --------------------------------------------------------------------------------------------------


def test_sigterm_turns_readiness_off_while_others_are_still_served(make_node):
    node = make_node({"http.drain_delay_ms": 3_600_000})
    with Peer(node) as peer:
        assert peer.ask(request("GET", "/readyz")).status == 200
        terminate(node)
        wait_until_draining(node)
        answer = node.request("GET", "/readyz")
        assert (answer.status, answer.json()) == (503, {"status": "draining"})
        assert node.request("GET", "/healthz").status == 200
        assert node.metric("kavach_ready") == 0
        # Who has not noticed yet is served as before.
        assert peer.post([event()]).status == 202
        assert node.post([event()]).status == 202
    terminate(node)  # the delay is long, and a second signal ends at once
    assert end_of(node) == 1


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_stop_finishes_requests_closes_idle_connections_and_exits_0(make_node, name):
    node = make_node(start=False)
    faults = DiskFaults(node)
    node.start()
    idle, late, held = Peer(node), Peer(node), Peer(node)
    assert idle.post([event()]).status == 202
    whole = ingest(node, [event()])
    late.send(whole[:-10])  # its body is under way
    faults.set("fdatasync /journal/ hold")
    held.send(ingest(node, [event()]))  # its answer waits for the disk
    faults.wait_for_hit()

    node.process.send_signal(signal.Signals[name])
    assert idle.ended()
    wait_until(lambda: refuses_connections(node), "the listeners to be closed")
    late.send(whole[-10:])
    faults.clear()
    for peer in (late, held):
        answer = peer.answer()
        assert (answer.status, answer.headers["connection"]) == (202, "close")
        peer.finish_sending()
        assert peer.ended()
    assert end_of(node) == 0
    assert node.log().endswith("stopped\n")
    assert node.event_count() == 3


def test_what_was_connected_or_asked_before_the_stop_is_answered(make_node):
    """More connections than a shard looks at in one turn, all asking while the process does not get to run."""
    node = make_node({"engine.shards": 1})
    known = [Peer(node) for _ in range(300)]
    for peer in known:
        assert peer.post([event()]).status == 202
    node.process.send_signal(signal.SIGSTOP)
    new = [Peer(node) for _ in range(300)]
    for peer in known + new:
        peer.send(ingest(node, [event()]))
    terminate(node)
    node.process.send_signal(signal.SIGCONT)
    assert {peer.answer().status for peer in known + new} == {202}
    for peer in known + new:
        peer.socket.close()
    assert end_of(node) == 0
    assert node.event_count() == 900


def test_who_does_not_finish_is_cut_off_after_the_timeout(make_node):
    node = make_node({"http.drain_timeout_ms": 200})
    stuck = Peer(node)
    stuck.send(ingest(node, [event()])[:-1])
    wait_until(lambda: node.metric("kavach_http_connections") == 2, "the connection to be known")
    terminate(node)
    assert stuck.ended()
    assert end_of(node) == 0
    assert "1 connections had not finished after http.drain_timeout_ms" in node.log()
    assert node.event_count() == 0


@pytest.mark.parametrize("moment", ["draining", "waiting for the disk"])
def test_a_second_signal_ends_at_once_and_loses_nothing_acknowledged(make_node, moment):
    node = make_node({"http.drain_timeout_ms": 3_600_000 if moment == "draining" else 0}, start=False)
    faults = DiskFaults(node)
    node.start()
    acknowledged, unanswered = [event()], [event()]
    assert node.post(acknowledged).status == 202
    faults.set("fdatasync /journal/ hold")
    with Peer(node) as peer:
        peer.send(ingest(node, unanswered))
        faults.wait_for_hit()
        terminate(node)
        wait_until_draining(node)
        if moment == "waiting for the disk":
            assert peer.ended()  # cut off: from here on the process waits for its own
        terminate(node)
        assert end_of(node) == 1
    faults.clear()
    node.start()
    for batch in (acknowledged, unanswered):
        assert node.post(batch).status == 202
    node.wait_for_events(2)


def test_a_stop_while_the_journal_is_broken_exits_0_and_keeps_what_was_acknowledged(make_node):
    node = make_node({"store.batch_delay_ms": 60_000}, start=False)
    faults = DiskFaults(node)
    node.start()
    assert node.post([event()]).status == 202
    faults.set("fdatasync /journal/ errno=5", "fsync /journal errno=5")
    assert node.post([event()]).status == 429
    assert node.stop() == 0
    assert node.event_count() == 1


def test_a_stop_of_a_node_that_nobody_used_leaves_nothing_behind(node):
    assert node.stop() == 0
    assert list(node.journal.glob("*.kvj")) == []
    with socket.create_server(("127.0.0.1", node.port)):
        pass  # the port is free
