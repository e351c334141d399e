"""Kavachd: starts, hurts and asks one real kavachd, for the tests that treat it as a black box.

Each instance has its own folder (config, journal, store, log) and its own port, so that tests run side by
side. KAVACH_TEST_BUILD names the build to test (default: build/release), for example a sanitized one.
"""

import gzip
import http.client
import json
import os
import signal
import socket
import sqlite3
import ssl
import subprocess
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("KAVACH_TEST_BUILD", "build/release")
BINARY = BUILD / "kavachd"
SANITIZED = any(word in BUILD.name for word in ("asan", "tsan"))
# How long anything may take before a test fails; sanitized builds, and busy machines with slow disks, are many times slower.
PATIENCE_S = 120


def hold_port() -> socket.socket:
    """A free port, bound while the socket lives, so that no other test is given it.

    Bound and not listening, with these options it is in the way of nobody but who asks for any free port.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    holder.bind(("127.0.0.1", 0))
    return holder


def wait_until(condition, what: str, patience_s: float = PATIENCE_S):
    """Polls until `condition()` is true and returns its value; fails with `what` when it never is."""
    deadline = time.monotonic() + patience_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {patience_s} s in vain: {what}"
        time.sleep(0.01)


def event(**changes) -> dict:
    """A valid event with a fresh idempotency key; a change to `...` leaves the member out."""
    made = {
        "agent_name": "research-bot",
        "provider": "openai",
        "model": "gpt-4o",
        "input_tokens": 1500,
        "output_tokens": 800,
        "cost": 0.0155,
        "timestamp": "2026-05-25T14:30:00Z",
        "duration_ms": 1250,
        "idempotency_key": str(uuid.uuid4()),
        "run_id": "run_abc123",
    }
    made.update(changes)
    return {name: value for name, value in made.items() if value is not ...}


def batch_body(events: list) -> bytes:
    return json.dumps({"events": events}).encode()


@dataclass
class Answer:
    status: int
    headers: dict  # names in lower case
    body: bytes

    def json(self):
        return json.loads(self.body)


@dataclass
class Kavachd:
    folder: Path
    # Dotted settings, for example {"http.body_bytes_max": 4096}.
    settings: dict = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen | None = None
    key: str = ""  # of the organization that start() makes
    org_id: str = ""
    # How to start it: a command that executes what follows (nsenter, for example), and more environment.
    wrapper: list = field(default_factory=list)
    environment: dict = field(default_factory=dict)
    tls: ssl.SSLContext | None = None  # ask it over TLS
    held: socket.socket | None = None  # the port

    @property
    def config(self) -> Path:
        return self.folder / "kavach.toml"

    @property
    def store(self) -> Path:
        return self.folder / "kavach.db"

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    @property
    def log_file(self) -> Path:
        return self.folder / "log"

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def write_config(self) -> None:
        settings = {
            "engine.shards": 2,
            "engine.pin": False,
            "http.port": self.port,
            "journal.directory": str(self.journal),
            "store.path": str(self.store),
            "store.batch_delay_ms": 10,
            "quota.tiers_file": str(ROOT / "tests/support/tiers.toml"),
        } | self.settings
        tables: dict[str, list[str]] = {}
        for key, value in settings.items():
            table, name = key.split(".")
            tables.setdefault(table, []).append(f"{name} = {json.dumps(value)}")
        self.config.write_text("".join(f"[{t}]\n" + "\n".join(rows) + "\n\n" for t, rows in tables.items()))

    def command(self, *words, check: bool = True, patience_s: float = PATIENCE_S) -> subprocess.CompletedProcess:
        """`kavachd WORDS --config ...`; what it printed is in .stdout and .stderr."""
        done = subprocess.run(
            [*self.wrapper, BINARY, *words, "--config", self.config],
            capture_output=True, text=True, timeout=patience_s, env=os.environ | self.environment,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def create_org(self, name: str = "acme", tier: str = "max") -> dict:
        return json.loads(self.command("org", "create", "--name", name, "--tier", tier).stdout)

    def create_key(self, name: str) -> dict:
        return json.loads(self.command("key", "create", "--org", self.org_id, "--name", name).stdout)

    def start(self, wait: bool = True) -> "Kavachd":
        """Starts the process; the first start makes an organization, whose key then is `key`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.port:
            self.held = hold_port()
            self.port = self.held.getsockname()[1]
        self.write_config()
        if not self.key:
            org = self.create_org()
            self.key, self.org_id = org["api_key"], org["org_id"]
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                [*self.wrapper, BINARY, "serve", "--config", self.config],
                stderr=log, env=os.environ | self.environment,
            )
        if wait and not self._came_up():
            if self.process.poll() is None:
                self.kill()
            raise AssertionError("kavachd did not start:\n" + self.log())
        return self

    def _came_up(self) -> bool:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.request("GET", "/readyz").status == 200:
                    return True
            except OSError:
                time.sleep(0.01)
        return False

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=PATIENCE_S)
        self.process = None
        return code

    def reload(self, **settings) -> str:
        """SIGHUP with changed settings (`http__port` is `http.port`); returns what was logged about it."""
        self.settings |= {key.replace("__", "."): value for key, value in settings.items()}
        self.write_config()
        return self.reload_file()

    def reload_file(self) -> str:
        """SIGHUP with the files as they are."""
        before = len(self.log())
        self.process.send_signal(signal.SIGHUP)
        ends = ("reload: done", "reload: refused")
        wait_until(lambda: any(end in self.log()[before:] for end in ends), "the reload")
        return self.log()[before:]

    def __enter__(self) -> "Kavachd":
        return self.start()

    def __exit__(self, kind, *_):
        if self.held is not None:
            self.held.close()
        if self.process is None:
            return
        if self.process.poll() is not None:
            assert kind is not None, f"kavachd ended with {self.process.returncode}:\n{self.log()}"
            return
        code = self.stop()
        # A sanitizer's finding is an exit code and a report in the log.
        assert code == 0, f"kavachd stopped with {code}:\n{self.log()}"

    # --- asking it -------------------------------------------------------------------------------------

    def request(self, method: str, path: str, body: bytes | None = None, headers: dict | None = None) -> Answer:
        if self.tls is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        else:
            connection = http.client.HTTPSConnection("localhost", self.port, timeout=PATIENCE_S, context=self.tls)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, names, answer.read())
        finally:
            connection.close()

    def post(self, body, key: str | None = None, compress: bool = False, **headers) -> Answer:
        """POST /v1/ingest. `body`: bytes as they are, or a list of events. Header names with underscores."""
        if not isinstance(body, bytes):
            body = batch_body(body)
        sent = {"Authorization": f"Bearer {key or self.key}", "Content-Type": "application/json"}
        if compress:
            body = gzip.compress(body)
            sent["Content-Encoding"] = "gzip"
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.request("POST", "/v1/ingest", body, {n: v for n, v in sent.items() if v is not None})

    def connect(self) -> socket.socket:
        """A raw connection, for what no HTTP library would send."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def metric(self, name: str, **labels) -> float:
        """The sum of a metric's series that have these labels."""
        total = 0.0
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        for line in self.request("GET", "/metrics").body.decode().splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and all(label in series for label in wanted):
                total += float(value)
        return total

    def memory_bytes(self, what: str = "VmRSS") -> int:
        """Resident memory of the process now, or (VmHWM) at most since forget_peak()."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        kib = next(line.split()[1] for line in status.splitlines() if line.startswith(what + ":"))
        return int(kib) * 1024

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    # --- looking into its store ------------------------------------------------------------------------

    def query(self, sql: str, *values) -> list[tuple]:
        connection = sqlite3.connect(f"file:{self.store}?mode=ro", uri=True, timeout=PATIENCE_S)
        try:
            return connection.execute(sql, values).fetchall()
        finally:
            connection.close()

    def execute(self, sql: str, *values) -> None:
        """Changes the store as another process would."""
        with sqlite3.connect(self.store, timeout=PATIENCE_S) as connection:
            connection.execute(sql, values)
        connection.close()

    def event_count(self) -> int:
        return self.query("SELECT count(*) FROM events")[0][0]

    def wait_for_events(self, count: int) -> None:
        """Until the store holds `count` events; more are a failure at once."""
        wait_until(lambda: self.event_count() >= count, f"{count} events in the store")
        assert self.event_count() == count

    def check_roll_ups(self) -> None:
        """Every aggregate equals what its events add up to."""
        sums = "count(*), sum(is_error), sum(cost_nano), sum(input_tokens), sum(output_tokens), sum(duration_ms)"
        for table, columns, sql in (
            ("usage_hourly", "sum(events), sum(errors), sum(cost_nano), sum(input_tokens), sum(output_tokens), sum(duration_ms)",
             f"SELECT project_id, agent_name, model, (ts_us / 3600000000) * 3600 AS hour_s, {sums} FROM events GROUP BY 1, 2, 3, 4"),
            ("agents", "sum(total_events), sum(total_errors), sum(total_cost_nano), sum(total_input_tokens), sum(total_output_tokens), sum(total_duration_ms)",
             f"SELECT org_id, agent_name, {sums} FROM events GROUP BY 1, 2"),
            ("runs", "sum(total_events), sum(error_count), sum(cost_nano), sum(input_tokens), sum(output_tokens), sum(llm_duration_ms)",
             f"SELECT org_id, run_id, {sums} FROM events WHERE run_id IS NOT NULL GROUP BY 1, 2"),
        ):
            keys = {"usage_hourly": "project_id, agent_name, model, hour_s", "agents": "org_id, name", "runs": "org_id, run_id"}[table]
            known = "total_events > 0" if table == "agents" else "1 = 1"  # agents may be known without any
            stored = sorted(self.query(f"SELECT {keys}, {columns} FROM {table} WHERE {known} GROUP BY {keys}"))
            assert stored == sorted(self.query(sql)), f"{table} differs from the sum of events"
