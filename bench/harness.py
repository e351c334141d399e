"""Harness: what the suites of scripts/bench share: a kavachd and a server that does nothing on one core, the load generator on
another, and figures with their repetitions.

CPU is the user and system time of the whole server process (shard, journal and all other threads), read by the load
generator at both ends of its measured window.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from report import Section, Table
from support.kavachd import Kavachd, hold_port, wait_until

ROOT = Path(__file__).resolve().parents[1]
CONNECTIONS = 64
EXPECTED_KEYS = 20_000_000  # more than are sent: the table neither grows nor forgets while it is measured
EXPECTED_KEYS_QUICK = 1_000_000
SAMPLE_EVENT = {"agent_name": "a", "provider": "p", "model": "m", "input_tokens": 1, "output_tokens": 1, "cost": 0,
                "timestamp": "2026-01-01T00:00:00Z"}
NULL_KEY = "ak_dev_" + "0" * 64
RENEWAL_S = 1.1  # redis.renew_ms and the tick that looks after it

# Work, what was measured, what was wanted, and whether that is met.
Row = tuple[str, str, str, bool | None]


@dataclass
class Figures:
    by_name: dict[str, list[float]] = field(default_factory=dict)

    def add(self, figures: dict) -> None:
        for name, value in figures.items():
            self.by_name.setdefault(name, []).append(value)

    def median(self, name: str) -> float:
        return statistics.median(self.by_name[name])

    def show(self, name: str, form: str = "{:.0f}", scale: float = 1) -> str:
        """The median, and between which values it lies."""
        values = [value * scale for value in self.by_name[name]]
        shown = form.format(statistics.median(values))
        return shown if len(values) == 1 else f"{shown} ({form.format(min(values))}..{form.format(max(values))})"


@dataclass
class Measured:
    """What a suite found; `setting`: under which conditions."""

    figures: Figures
    tables: list[Table]
    sections: list[Section] = field(default_factory=list)
    setting: str = "one shard on one core, load from another"


def judged(rows: list[Row]) -> Table:
    def verdict(wanted: str, met: bool | None) -> str:
        return wanted if met is None else f"{wanted}: {'met' if met else '**not met**'}"

    return ["work", "measured", "wanted"], [[work, measured, verdict(wanted, met)] for work, measured, wanted, met in rows]


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started within runs on this core, with all its threads."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Node(Kavachd):
    """One kavachd of one shard, on the server's core, in a folder that goes with it."""

    def __init__(self, bench: "Harness", store: str = "none", settings: dict | None = None, expected_keys: int | None = None):
        self.bench = bench
        if expected_keys is None:
            expected_keys = EXPECTED_KEYS_QUICK if bench.options.quick else EXPECTED_KEYS
        folder = Path(tempfile.mkdtemp(dir=bench.options.directory))
        super().__init__(folder, {
            "engine.shards": 1,
            "store.kind": store,
            "store.batch_delay_ms": 100,
            "quota.dedup_keys_max": EXPECTED_KEYS,
            "quota.dedup_keys_expected": expected_keys,
            "log.level": "warning",
        } | (settings or {}))

    def __enter__(self) -> "Node":
        with on_core(self.bench.options.server_core):
            super().__enter__()
        self.keys = [self.key]
        return self

    def __exit__(self, *exception):
        try:
            if self.process is not None:
                self.kill()  # a store that follows far behind need not catch up
            super().__exit__(*exception)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        return self.process.pid

    def make_keys(self, count: int) -> None:
        """Keys of as many organizations, known to the running process."""
        self.keys += [self.create_org(f"org-{i}")["api_key"] for i in range(count - len(self.keys))]
        wait_until(lambda: self.post([SAMPLE_EVENT], key=self.keys[-1]).status == 202, "the last key to be known")

    def resident_bytes(self) -> int:
        rows = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()
        return next(int(row.split()[1]) * 1024 for row in rows if row.startswith("Rss:"))

    def cpu_s(self, thread: str) -> float:
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            if (task / "comm").read_text().strip() == thread:
                return int((task / "schedstat").read_text().split()[0]) / 1e9
        return 0


class Harness:
    """The arguments of scripts/bench, and what is started by them."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.tools = options.build.resolve() / "bench"

    def events(self, otherwise: int) -> int:
        """Of a case, where the command line does not say."""
        return 20_000 if self.options.quick else self.options.events or otherwise

    def repetitions(self) -> Iterator[int]:
        for repetition in range(self.options.repetitions):
            say(f"repetition {repetition + 1} of {self.options.repetitions}")
            yield repetition

    def run_tool(self, name: str, core: int, *words, check: bool = True) -> dict:
        with on_core(core):
            done = subprocess.run([self.tools / name, "--json", *map(str, words)], capture_output=True, text=True)
        if check and done.returncode != 0:
            sys.exit(f"scripts/bench: {name} failed: {done.stderr}{done.stdout}")
        return json.loads(done.stdout)

    def node(self, store: str = "none", settings: dict | None = None, expected_keys: int | None = None) -> Node:
        return Node(self, store, settings, expected_keys)

    @contextlib.contextmanager
    def null_server(self, events: int) -> Iterator[tuple[int, int]]:
        """Its process id and port."""
        with hold_port() as holder, on_core(self.options.server_core):
            port = holder.getsockname()[1]
            process = subprocess.Popen([self.tools / "kavach-null", "--port", str(port), "--events", str(events)])
            try:
                wait_until(lambda: process.poll() is not None or answers(port), "kavach-null to listen")
                yield process.pid, port
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait()

    def load(self, pids: int | list[int], port: int, keys: list[str], *words, path: str = "/v1/ingest",
             connections: int = CONNECTIONS, seconds: float | None = None, check: bool = True) -> dict:
        keys = [word for key in keys for word in ("--key", key)]
        pids = [word for pid in ([pids] if isinstance(pids, int) else pids) for word in ("--server-pid", pid)]
        window = seconds or self.options.seconds
        return self.run_tool("kavach-load", self.options.load_core, "--url", f"http://127.0.0.1:{port}{path}", *keys,
                             *pids, "--connections", connections, "--warmup", window / 4, "--duration", window,
                             *words, check=check)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False


# --- what a run of the load generator says ----------------------------------------------------------------------


def cpu_us(run: dict) -> float:
    return sum(run["server_cpu"].values()) / run["answers"]


def thread_us(run: dict, *threads: str) -> float:
    return sum(run["server_cpu"].get(thread, 0) for thread in threads) / run["answers"]


def rate(run: dict) -> float:
    return run["answers"] / run["window_s"]


def check_counts(node: Node) -> None:
    """What was measured was the work of new events: none was dropped as a duplicate, all became durable."""
    accepted = node.metric("kavach_ingest_events_accepted_total")
    durable = node.metric("kavach_journal_events_total")
    if node.metric("kavach_dedup_hits_total") != 0 or accepted != durable:
        sys.exit(f"scripts/bench: {accepted:.0f} events accepted, {durable:.0f} durable: the figures mean nothing")
