"""What the control API's reads cost, and what they cost ingest: `scripts/bench reads`.

A: every GET of /openapi.json that takes a person's token is asked of two stores in turn, one with a hundred times the
events of the other. B: the p99 of ingest at a fixed rate, with and without people at their dashboards and logging in.
"""

import contextlib
import http.client
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import quote

from harness import Figures, Harness, Measured, Row, judged, say
from support import control
from support.kavachd import PATIENCE_S, Kavachd, wait_until
from support.postgres import PostgresKavachd, PostgresServer

EVENTS = 10_000_000  # of the large store
RATIO_MAX = 1.5
P99_RATIO_MAX = 1.3
# Of the peak, what is sent while people look and log in.
RATE_PART = 0.3
PEOPLE = 8  # at dashboards, and as many who log in
WORKERS = 2  # of the control API
BESIDE = ("alone", "counting", "people")  # what ingest runs beside
# A store ends when it was filled: much later nothing in it is of today.
FRESH_S = 12 * 3600
# Of a query: each value is asked by itself, beside the question without any.
VALUES = {"granularity": ["hourly", "daily"], "range": ["today", "7d", "30d"], "status": ["error"], "limit": ["100"],
          "run_id": ["{run_id}"]}


# --- stores ----------------------------------------------------------------------------------------------------


class Filled:
    """A node on a store with so many events, kept below the cache folder; and a person who owns the busiest organization."""

    def __init__(self, harness: Harness, cache: Path, events: int, server: PostgresServer | None = None):
        self.kind = "sqlite" if server is None else "postgres"
        self.folder = cache / f"{self.kind}-{events}"
        self.harness, self.events, self.server = harness, events, server
        self.about: dict = {}

    @property
    def _about_file(self) -> Path:
        return self.folder / "filled.json"

    def node(self) -> Kavachd:
        settings = control.settings(self.folder) | {"engine.shards": 1, "log.level": "warning"}
        if self.server is None:
            return Kavachd(self.folder, settings)
        database = f"reads_{self.events}"
        if self.server.value(f"SELECT count(*) FROM pg_database WHERE datname = '{database}'") == "0":
            self.server.query(f"CREATE DATABASE {database}")
        return PostgresKavachd(self.folder, settings, server=PostgresServer(
            self.server.folder, user=self.server.user, password=self.server.password, port=self.server.port, database=database))

    def fill(self) -> None:
        """Unless it is there and young enough."""
        with contextlib.suppress(OSError, ValueError):
            self.about = json.loads(self._about_file.read_text())
            if 0 <= time.time() - self.about["at"] < FRESH_S:
                return
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.server is not None:
            self.server.query(f"DROP DATABASE IF EXISTS reads_{self.events}")
        self.folder.mkdir(parents=True)
        with self.node() as node:
            person = control.Dashboard(node).sign_up()
            org = person.get("/v1/auth/me").json()["org_id"]
            [(project,)] = node.query(f"SELECT id FROM projects WHERE org_id = '{org}'")
            for at, body in (("org", {}), ("org", {"period": "monthly"})):
                budget = {"budget_type": "cost", "period": "daily", "limit_value": 100_000} | body
                assert person.post(f"/v1/{at}/budgets", budget).status == 201
            where = ["--sqlite", node.store] if self.server is None else ["--postgres", node.server.url]
            key, org_of_node = node.key, node.org_id
        say(f"filling {self.kind} with {self.events} events")
        done = subprocess.run([self.harness.tools / "kavach-fill", *where, "--org", org, "--project", project, "--events",
                               str(self.events)], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"scripts/bench: kavach-fill: {done.stderr}")
        filled = json.loads(done.stdout)
        say(f"  {filled['seconds']} s")
        if self.server is not None:  # as autovacuum does in its own time
            node.server.query("VACUUM ANALYZE")
            node.server.query("CHECKPOINT")
        self.about = {"at": time.time(), "address": person.address, "key": key, "node_org": org_of_node, **filled}
        with self.node_with_key() as node:
            person = self.log_in(node)
            for period in ("daily", "monthly", "per_run"):
                budget = {"budget_type": "cost", "period": period, "limit_value": 100_000}
                assert person.post("/v1/agents/agent-0/budgets", budget).status == 201
        self._about_file.write_text(json.dumps(self.about))

    def node_with_key(self) -> Kavachd:
        node = self.node()
        node.key, node.org_id = self.about["key"], self.about["node_org"]
        return node

    def log_in(self, node: Kavachd) -> control.Dashboard:
        person = control.Dashboard(node, self.about["address"])
        person.token = person.login().json()["access_token"]
        return person


@contextlib.contextmanager
def servers(cache: Path):
    """None for SQLite, and a Postgres of the cache's own."""
    server = PostgresServer(cache / "postgres")
    with server:
        yield None, server
        server.stop()


# --- A: every question, of both stores --------------------------------------------------------------------------


class Asker:
    """One connection that stays open."""

    def __init__(self, node: Kavachd, token: str):
        self.connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=PATIENCE_S)
        self.headers = {"Authorization": f"Bearer {token}"}

    def ask(self, path: str) -> tuple[float, bytes]:
        """Milliseconds, and the answer."""
        started = time.perf_counter()
        self.connection.request("GET", path, headers=self.headers)
        answer = self.connection.getresponse()
        body = answer.read()
        ms = (time.perf_counter() - started) * 1e3
        if answer.status != 200:
            sys.exit(f"scripts/bench: GET {path}: {answer.status} {body.decode()}")
        return ms, body


def questions(node: Kavachd, asker: Asker) -> list[tuple[str, str]]:
    """The endpoint's path as it is described, and one to ask."""
    runs = json.loads(asker.ask("/v1/agents/agent-0/runs?limit=10")[1])["runs"]
    ids = {"name": "agent-0", "run_id": runs[1]["run_id"]}  # the second one is complete
    asked = []
    for path, methods in json.loads(node.request("GET", "/openapi.json").body)["paths"].items():
        described = methods.get("get")
        if described is None or described.get("security") != [{"token": []}]:
            continue
        filled = path
        for name, value in ids.items():
            filled = filled.replace("{" + name + "}", quote(value, safe=""))
        asked.append((path, filled))
        for parameter in described.get("parameters", []):
            if parameter["in"] != "query":
                continue
            for value in VALUES.get(parameter["name"], []):
                value = ids["run_id"] if value == "{run_id}" else value
                asked.append((path, f"{filled}?{parameter['name']}={quote(value, safe='')}"))
    return asked


def case_reads(small: Filled, large: Filled, rounds: int) -> dict[str, list[float]]:
    """By `reads.STORE PATH`: the medians of the small and of the large store in ms, and their ratio."""
    figures = {}
    with small.node_with_key() as few, large.node_with_key() as many:
        askers = [Asker(node, filled.log_in(node).token) for node, filled in ((few, small), (many, large))]
        paths = [questions(node, asker) for node, asker in zip((few, many), askers)]
        took = [([], []) for _ in paths[0]]
        for at in range(rounds):  # of all questions: a disturbance of the machine meets all of them
            for asked, times in zip(zip(*paths), took):
                for which in ((0, 1), (1, 0))[at % 2]:
                    times[which].append(askers[which].ask(asked[which][1])[0])
        for ((described, of_few), (_, of_many)), times in zip(zip(*paths), took):
            sizes = [len(asker.ask(path)[1]) for asker, path in zip(askers, (of_few, of_many))]
            medians = [statistics.median(one) for one in times]
            query = of_few.partition("?")[2].partition("=")
            name = described + (f"?{query[0]}=" + ("…" if query[0] == "run_id" else query[2]) if query[0] else "")
            figures[f"reads.{small.kind} {name}"] = [*medians, medians[1] / medians[0], *sizes]
    return figures


# --- B: ingest beside people -------------------------------------------------------------------------------------


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


def case_people(harness: Harness, small: Filled, rounds: int) -> dict[str, list[float]]:
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
        with contextlib.ExitStack() as running:
            running.enter_context(node)
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
                        legs[name] = harness.load(node.process.pid, node.port, [node.key], "--events", 100, "--rate", rate)["latency"]
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


# --- all of it -----------------------------------------------------------------------------------------------------


def measure(harness: Harness) -> Measured:
    options = harness.options
    few, many = (10_000, 30_000) if options.quick else (100_000, harness.events(EVENTS))
    rounds = 5 if options.quick else 30
    cache = options.build.resolve().parent / ("bench-reads-quick" if options.quick else "bench-reads")
    cache.mkdir(parents=True, exist_ok=True)
    figures: dict[str, list[float]] = {}
    with servers(cache) as kinds:
        for server in kinds:
            stores = [Filled(harness, cache, events, server) for events in (few, many)]
            for filled in stores:
                filled.fill()
            figures |= case_reads(*stores, rounds)
            if server is None:
                figures |= case_people(harness, stores[0], options.repetitions)
    found = Figures(figures)
    return Measured(found, [judged(rows(found))],
                    setting=f"stores of {few:,} and {many:,} events, of which the organization that is read has a fifth")


def rows(f: Figures) -> list[Row]:
    table = []
    for kind in ("sqlite", "postgres"):
        reads = {name.partition(" ")[2]: values for name, values in f.by_name.items() if name.startswith(f"reads.{kind} ")}
        for path, (few, many, ratio, *_) in reads.items():
            table.append((f"{kind}: `GET {path}`", f"{few:.2f} / {many:.2f} ms: {ratio:.2f} x", f"<= {RATIO_MAX} x",
                          ratio <= RATIO_MAX))
    def p99(name: str) -> str:
        return f.show(f"people.{name}_p99_us", "{:.2f}", 1e-3) + " ms"

    rate = f.by_name["people.rate"][0]
    table.append((f"p99 of ingest at {rate:.0f} batches of 100 a second, alone; beside {PEOPLE} people at dashboards and {PEOPLE} who log in",
                  f"{p99('alone')}; {p99('people')}: {f.show('people.people_p99_ratio', '{:.2f}')} x", f"< {P99_RATIO_MAX} x",
                  f.median("people.people_p99_ratio") < P99_RATIO_MAX))
    table.append((f"the same beside {WORKERS} threads that only count, in the same class of the scheduler as the control workers",
                  f"{p99('counting')}: {f.show('people.counting_p99_ratio', '{:.2f}')} x", "", None))
    table.append(("the people's answers meanwhile", f"{f.show('people.reads_per_s', '{:.0f}')} reads/s, "
                  f"{f.show('people.logins_per_s', '{:.1f}')} logins/s", "", None))
    return table
