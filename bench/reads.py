"""What the control API's reads cost: `scripts/bench reads`.

Every GET of /openapi.json that takes a person's token is asked of two stores in turn, one with a hundred times the
events of the other.
"""

import contextlib
import http.client
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

from harness import Figures, Harness, Measured, Row, judged, say
from support import control
from support.kavachd import PATIENCE_S, Kavachd
from support.postgres import PostgresKavachd, PostgresServer

EVENTS = 10_000_000  # of the large store
RATIO_MAX = 1.5
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


def few_events(harness: Harness) -> int:
    """Of the small store."""
    return 10_000 if harness.options.quick else 100_000


def cache_folder(harness: Harness) -> Path:
    """Where filled stores are kept."""
    folder = harness.options.build.resolve().parent / ("bench-reads-quick" if harness.options.quick else "bench-reads")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def servers(cache: Path):
    """None for SQLite, and a Postgres of the cache's own."""
    server = PostgresServer(cache / "postgres")
    with server:
        yield None, server
        server.stop()


# --- every question, of both stores -----------------------------------------------------------------------------


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


# --- all of it -----------------------------------------------------------------------------------------------------


def measure(harness: Harness) -> Measured:
    options = harness.options
    few, many = few_events(harness), 30_000 if options.quick else harness.events(EVENTS)
    rounds = 5 if options.quick else 30
    cache = cache_folder(harness)
    figures: dict[str, list[float]] = {}
    with servers(cache) as kinds:
        for server in kinds:
            stores = [Filled(harness, cache, events, server) for events in (few, many)]
            for filled in stores:
                filled.fill()
            figures |= case_reads(*stores, rounds)
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
    return table
