"""Peers: the servers that Kavach's ingest is compared with, each in its best documented configuration.

Each takes the load of kavach-load on a port of its own and is a context manager; what is started within runs on the
cores of whoever starts it. scripts/setup --peers installs and builds what they need.
"""

import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import uuid
from pathlib import Path

from support.kavachd import ROOT, hold_port, wait_until
from support.redis import RedisServer
from support.server import Server

HERE = Path(__file__).resolve().parent
BUILT = ROOT / "build" / "peers"
# High enough to refuse nothing, so that what is measured is the counting.
LIMITS = {"events_per_day": 1_000_000_000, "burst_per_minute": 1_000_000_000, "max_agents": 100_000}


def process_tree(pid: int) -> list[int]:
    """The process and its descendants."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended
    tree = [pid]
    for one in tree:
        tree += [child for child, parent in parents.items() if parent == one]
    return tree


class Peer(Server):
    """A process that listens on `port`, with a folder for what it writes."""

    PATH = "/v1/ingest"
    FORMAT = "sdk"
    LEAD_IN_S = 0.3  # under load before it is measured
    STOP = signal.SIGTERM

    def __init__(self, folder: Path):
        self.folder = folder
        self.process: subprocess.Popen | None = None
        self.keys = ["ak_dev_" + "0" * 64]
        self.held = hold_port()
        self.port = self.held.getsockname()[1]

    def command(self) -> list:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def start(self) -> "Peer":
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=os.environ | self.environment())
        wait_until(self._listens, f"{type(self).__name__} listens")
        return self

    def _listens(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text(errors="replace")
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        except OSError:
            return False

    def kill(self) -> None:
        """With all that it has started; nginx's worker would stay when only its master is killed."""
        self.stop()

    def free_ports(self) -> None:
        self.held.close()

    @property
    def pids(self) -> list[int]:
        return process_tree(self.process.pid)


class FastapiIngest(Peer):
    def __init__(self, folder: Path, redis: RedisServer, brokers: str, topic: str, orgs: int, record: str):
        super().__init__(folder)
        self.settings = {"PEER_REDIS_URL": redis.unix_url, "PEER_BROKERS": brokers, "PEER_TOPIC": topic,
                         "PEER_RECORD": record}
        self.keys = ["ak_dev_" + secrets.token_hex(32) for _ in range(orgs)]
        self.org_ids = [str(uuid.uuid4()) for _ in self.keys]
        for key, org_id in zip(self.keys, self.org_ids):
            fields = {"org_id": org_id, "status": "active", "daily_budget": 1_000_000_000} | LIMITS
            redis.ask("HSET", f"key:{hashlib.sha256(key.encode()).hexdigest()}",
                      *(word for pair in fields.items() for word in pair))

    def command(self) -> list:
        return [BUILT / "venv/bin/python", "-m", "uvicorn", "fastapi_ingest:app", "--app-dir", HERE, "--host", "127.0.0.1",
                "--port", str(self.port), "--loop", "uvloop", "--http", "httptools", "--workers", "1",
                "--no-access-log", "--no-server-header", "--no-date-header", "--log-level", "warning"]

    def environment(self) -> dict[str, str]:
        return self.settings


class Collector(Peer):
    PATH = "/v1/logs"
    FORMAT = "otlp"

    def __init__(self, folder: Path, brokers: str, topic: str, settings: dict[str, str]):
        super().__init__(folder)
        self.settings = {"PEER_BROKERS": brokers, "PEER_TOPIC": topic, "PEER_PORT": str(self.port)} | settings

    def command(self) -> list:
        return [BUILT / "collector/collector", "--config", HERE / "collector/config.yaml"]

    def environment(self) -> dict[str, str]:
        return self.settings


class Nginx(Peer):
    STOP = signal.SIGQUIT

    def __init__(self, folder: Path, events: int):
        super().__init__(folder)
        self.events = events

    def command(self) -> list:
        config = (HERE / "nginx.conf.in").read_text()
        for name, value in (("FOLDER", self.folder), ("PORT", self.port), ("EVENTS", self.events)):
            config = config.replace(f"@{name}@", str(value))
        (self.folder / "nginx.conf").write_text(config)
        program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        return [program, "-c", self.folder / "nginx.conf", "-p", self.folder]
