"""The tools that measure: kavach-load counts, checks and times what it says, and scripts/bench runs to its end."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from support.kavachd import BUILD, PATIENCE_S, ROOT, SANITIZED, event, wait_until

pytestmark = pytest.mark.skipif(SANITIZED, reason="sanitized builds have no benchmarks")


def start_load(node, *words, key: str | None = None) -> subprocess.Popen:
    return subprocess.Popen(
        [BUILD / "bench" / "kavach-load", "--json", "--url", f"http://127.0.0.1:{node.port}/v1/ingest",
         "--key", key or node.key, "--connections", "4", *map(str, words)],
        stdout=subprocess.PIPE, text=True,
    )


def load(node, *words, key: str | None = None) -> tuple[int, dict]:
    """Exit code and report."""
    process = start_load(node, *words, key=key)
    printed, _ = process.communicate(timeout=PATIENCE_S)
    return process.returncode, json.loads(printed)


@pytest.mark.parametrize("pipeline", [1, 8])
def test_every_request_carries_new_events(node, pipeline):
    code, report = load(node, "--requests", 200, "--events", 10, "--pipeline", pipeline)
    assert (code, report["answers"], report["faults"]) == (0, 200, {})
    node.wait_for_events(2000)
    assert node.metric("kavach_dedup_hits_total") == 0


def test_a_gzip_body_is_sent_once_per_key_and_then_the_run_ends(node):
    code, report = load(node, "--gzip", "--gzip-bodies", 8, "--events", 10, "--requests", 100)
    assert (code, report["ran_out"], report["faults"]) == (0, True, {})
    node.wait_for_events(80)
    assert node.metric("kavach_dedup_hits_total") == 0


def test_a_fixed_rate_sends_what_is_due(node):
    code, report = load(node, "--rate", 100, "--warmup", 0.5, "--duration", 1)
    assert (code, report["faults"]) == (0, {})
    assert node.metric("kavach_ingest_batches_accepted_total") == 150


def test_wrong_answers_are_counted_by_kind_and_fail_the_run(node):
    code, report = load(node, "--requests", 20, key="ak_dev_" + "0" * 64)
    assert (code, report["answers"], report["faults"]) == (1, 0, {"status 401": 20})


def test_a_stalled_server_is_charged_for_all_that_was_due_meanwhile(node):
    process = start_load(node, "--rate", 100, "--warmup", 0, "--duration", 2)
    time.sleep(0.5)
    os.kill(node.process.pid, signal.SIGSTOP)
    time.sleep(1)
    os.kill(node.process.pid, signal.SIGCONT)
    printed, _ = process.communicate(timeout=PATIENCE_S)
    report = json.loads(printed)
    assert (process.returncode, report["faults"]) == (0, {})
    # Half of the 200 requests were due within that second, and only 4 of them had a connection.
    assert report["latency"]["p90"] > 300_000


@pytest.mark.parametrize("each", [[], ["--key-per-connection", "--spin"]])
def test_the_keys_of_a_file_take_turns_with_the_key_that_is_named(node, tmp_path, each):
    keys = [node.create_org(f"org-{i}")["api_key"] for i in range(3)]
    for key in keys:
        wait_until(lambda: node.post([event()], key=key).status == 202, "the key is known")
    (tmp_path / "keys").write_text("".join(key + "\n" for key in keys))

    def stored() -> dict[str, int]:
        return dict(node.query("SELECT org_id, COUNT(*) FROM events GROUP BY org_id"))

    wait_until(lambda: len(stored()) >= len(keys), "what was sent is stored")
    before = stored()
    code, report = load(node, "--key-file", tmp_path / "keys", "--requests", 40, "--events", 5, *each)
    assert (code, report["answers"], report["faults"]) == (0, 40, {})
    wait_until(lambda: sum(stored().values()) == sum(before.values()) + 200, "all are stored")
    sent = [count - before.get(org, 0) for org, count in stored().items()]
    sent = [count for count in sent if count > 0]
    # A connection sends as soon as it has its answer, so that only those keys that take turns are used alike.
    assert sent == [50] * 4 if not each else len(sent) == 4


def test_a_server_that_goes_away_is_a_fault_and_ends_the_run(node):
    process = start_load(node, "--duration", 60, "--warmup", 0)
    time.sleep(0.5)
    node.kill()
    printed, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert set(json.loads(printed)["faults"]) == {"connection closed"}


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a core for the server and one for the load")
def test_the_benchmark_runs_to_its_end(tmp_path):
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "bench", "--quick", "--no-setup", "--build", BUILD, "--json", figures],
        capture_output=True, text=True, timeout=10 * PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    assert "| 100 events, gzip |" in done.stdout
    assert all(value[0] > 0 for value in json.loads(figures.read_text())["figures"].values())


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a core for the server and one for the load")
def test_the_benchmark_of_reads_asks_every_endpoint_of_both_stores_and_ingest_runs_beside_people(tmp_path, node):
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "bench", "reads", "people", "--quick", "--no-setup", "--build", BUILD, "--json", figures],
        capture_output=True, text=True, timeout=10 * PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(figures.read_text())["figures"]
    assert all(values[0] > 0 for values in measured.values())
    described = json.loads(node.request("GET", "/openapi.json").body)["paths"]
    for path, methods in described.items():
        if methods.get("get", {}).get("security") == [{"token": []}]:
            assert {f"reads.sqlite {path}", f"reads.postgres {path}"} <= measured.keys()
    assert measured["people.logins_per_s"][0] > 0
