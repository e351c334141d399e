"""What people who use the control API cost ingest: `scripts/bench people`.

The p99 of ingest at a fixed rate, with and without people at their dashboards and logging in. What a machine's disk and
host add to a p99 comes in bursts, so the legs are short, take turns, and are many: a burst meets a few of them.
"""

import contextlib
import http.client
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

from harness import Figures, Harness, Measured, Row, judged
from reads import Filled, cache_folder, few_events
from support import control
from support.kavachd import PATIENCE_S, Kavachd, wait_until

P99_RATIO_MAX = 1.3
# Of the peak, what is sent while people look and log in.
RATE_PART = 0.3
PEOPLE = 8  # at dashboards, and as many who log in
WORKERS = 2  # of the control API
BESIDE = ("alone", "counting", "people")  # what ingest runs beside
ROUNDS = 6  # of each leg, in a repetition
WINDOW_PART = 1 / 4  # of the measured window of a case, for each leg


def be_people(core: int, port: int, token: str, address: str, stop, counts) -> None:
    """A process that asks and logs in, behind the load generator on its core, so that only the server's part is measured."""
    os.sched_setaffinity(0, {core})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    paths = ["/v1/dashboard/overview", "/v1/dashboard/spend", "/v1/dashboard/stats?range=30d", "/v1/agents",
             "/v1/agents/agent-0", "/v1/agents/agent-0/events", "/v1/agents/agent-0/runs"]
    login = json.dumps({"email": address, "password": control.PASSWORD})

    def work(kind: int, first: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        at = first
        while not stop.is_set():
            if kind == 0:
                connection.request("GET", paths[at % len(paths)], headers={"Authorization": f"Bearer {token}"})
            else:
                connection.request("POST", "/v1/auth/login", login, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            at += 1
            with counts.get_lock():
                counts[kind if answer.status == 200 else 2] += 1

    threads = [threading.Thread(target=work, args=(kind, i)) for kind in (0, 1) for i in range(PEOPLE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextlib.contextmanager
def people(harness: Harness, node: Kavachd, token: str, address: str, counts):
    stop = multiprocessing.Event()
    process = multiprocessing.Process(target=be_people, args=(
        harness.options.load_core, node.port, token, address, stop, counts))
    process.start()
    try:
        # On a core that is busy they may be long in coming.
        wait_until(lambda: not process.is_alive() or counts[2] or (counts[0] and counts[1]), "people have answers")
        yield
    finally:
        stop.set()
        process.join()


def count_in_idle_class(stop) -> None:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    while not stop.is_set():
        sum(range(10_000))


@contextlib.contextmanager
def counting_threads():
    """As many as there are control workers, which use the time that nobody else wants and nothing else."""
    stop = multiprocessing.Event()
    processes = [multiprocessing.Process(target=count_in_idle_class, args=(stop,)) for _ in range(WORKERS)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        stop.set()
        for process in processes:
            process.join()


def case_people(harness: Harness, small: Filled, rounds: int, window_s: float) -> dict[str, list[float]]:
    """Nothing follows the journal, as everywhere where the front is measured: the store is the dashboards' alone. The node may use
    both cores, as it would; on the second one the load goes first and the people last."""
    figures: dict[str, list[float]] = {}
    folder = Path(tempfile.mkdtemp(dir=harness.options.directory))
    try:
        shutil.copytree(small.folder, folder, dirs_exist_ok=True)
        node = Kavachd(folder, control.settings(folder) | {
            "engine.shards": 1, "store.kind": "none", "log.level": "warning", "control.tries_max": 1_000_000,
            "control.workers": WORKERS, "control.nice": 19})
        node.key, node.org_id = small.about["key"], small.about["node_org"]
        with node:
            token = small.log_in(node).token
            peak = harness.load(node.process.pid, node.port, [node.key], "--events", 100)
            rate = RATE_PART * peak["answers"] / peak["window_s"]
            for at in range(rounds):
                legs = {}
                for name in BESIDE if at % 2 == 0 else reversed(BESIDE):
                    counts = multiprocessing.Array("q", 3)
                    company = {"alone": contextlib.nullcontext, "counting": counting_threads,
                               "people": lambda: people(harness, node, token, small.about["address"], counts)}[name]
                    with company():
                        started = time.monotonic()
                        legs[name] = harness.load(node.process.pid, node.port, [node.key], "--events", 100, "--rate", rate,
                                                   seconds=window_s)["latency"]
                        seconds = time.monotonic() - started
                    if name == "people":
                        if counts[2] or not counts[0] or not counts[1]:
                            sys.exit(f"scripts/bench: people had {counts[:]} answers, the last of which were refusals")
                        figures.setdefault("people.reads_per_s", []).append(counts[0] / seconds)
                        figures.setdefault("people.logins_per_s", []).append(counts[1] / seconds)
                for name, latency in legs.items():
                    for what in ("p50", "p99"):
                        figures.setdefault(f"people.{name}_{what}_us", []).append(latency[what])
                        figures.setdefault(f"people.{name}_{what}_ratio", []).append(latency[what] / legs["alone"][what])
                figures.setdefault("people.rate", []).append(rate)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return figures


def measure(harness: Harness) -> Measured:
    options = harness.options
    small = Filled(harness, cache_folder(harness), few_events(harness))
    small.fill()
    rounds, window_s = (1, options.seconds) if options.quick else (ROUNDS * options.repetitions, WINDOW_PART * options.seconds)
    found = Figures(case_people(harness, small, rounds, window_s))
    return Measured(found, [judged(rows(found))], setting=f"one shard on one core, everything else of the node on any, load first and "
                    f"people last on the other; legs of {window_s:g} s in turn")


def rows(f: Figures) -> list[Row]:
    def p99(name: str) -> str:
        return f.show(f"people.{name}_p99_us", "{:.2f}", 1e-3) + " ms"

    rate = f.by_name["people.rate"][0]
    return [
        (f"p99 of ingest at {rate:.0f} batches of 100 a second, alone; beside {PEOPLE} people at dashboards and {PEOPLE} who log in",
         f"{p99('alone')}; {p99('people')}: {f.show('people.people_p99_ratio', '{:.2f}')} x", f"< {P99_RATIO_MAX} x",
         f.median("people.people_p99_ratio") < P99_RATIO_MAX),
        (f"the same beside {WORKERS} threads that only count, in the same class of the scheduler as the control workers",
         f"{p99('counting')}: {f.show('people.counting_p99_ratio', '{:.2f}')} x", "", None),
        ("the people's answers meanwhile", f"{f.show('people.reads_per_s', '{:.0f}')} reads/s, "
         f"{f.show('people.logins_per_s', '{:.1f}')} logins/s", "", None),
    ]
