"""PostgresServer: a PostgreSQL of a test's own, over TCP, to be hurt as the test likes.

Debian: apt-get install postgresql. It refuses to run as root: then it runs as the user `postgres`, to whom its folder
is given. What it stored is there again after a kill or a restart, at the same address.
"""

import dataclasses
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from support.kavachd import PATIENCE_S, Kavachd, hold_port, wait_until
from support.server import Server


def tool(name: str) -> str:
    """Debian keeps the server's programs out of PATH; the newest version there is."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    path = str(found[-1]) if found else shutil.which(name)
    assert path, f"there is no {name} (Debian: apt-get install postgresql)"
    return path


@dataclass
class PostgresServer(Server):
    STOP = signal.SIGINT

    folder: Path
    # More of the server's command line, for example ["-c", "fsync=off"].
    arguments: list = field(default_factory=list)
    user: str = "kavach"
    password: str = "s3cret-of-postgres"
    port: int = 0  # 0: any free one, the same after a restart
    database: str = "postgres"  # which one is asked
    process: subprocess.Popen | None = None
    held: socket.socket | None = None  # the port

    @property
    def url(self) -> str:
        return f"postgres://{self.user}:{self.password}@127.0.0.1:{self.port}/{self.database}"

    def with_new_database(self) -> "PostgresServer":
        """The same server with a database that nobody else uses, for a test that does not hurt it."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.query(f"CREATE DATABASE {name}")
        return dataclasses.replace(self, database=name)

    def log(self) -> str:
        log = self.folder / "log"
        return log.read_text(errors="replace") if log.exists() else ""

    # --- its life --------------------------------------------------------------------------------------

    @property
    def _run_as(self) -> dict:
        """For subprocess: whose process it is."""
        if os.geteuid() != 0:
            return {}
        return {"user": "postgres", "group": pwd.getpwnam("postgres").pw_gid, "extra_groups": []}

    def _open_way(self) -> None:
        """Its user must be able to reach its folder, through parents that are the tests' own: another run of pytest closes
        them again."""
        if os.geteuid() != 0:
            return
        for parent in self.folder.resolve().parents:
            mode = parent.stat().st_mode
            if not mode & 0o001:
                parent.chmod(mode | 0o001)

    def _make(self) -> None:
        password_file = self.folder / "password"
        password_file.write_text(self.password + "\n")
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
            shutil.chown(password_file, "postgres")
        made = subprocess.run(
            [tool("initdb"), "--pgdata", self.folder / "data", "--username", self.user, "--auth", "scram-sha-256",
             "--pwfile", password_file, "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync", "--no-instructions"],
            cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **self._run_as)
        assert made.returncode == 0, made.stdout

    def start(self) -> "PostgresServer":
        """Returns when it answers."""
        if not self.port:
            self.held = hold_port()
            self.port = self.held.getsockname()[1]
        self.folder.mkdir(parents=True, exist_ok=True)
        self._open_way()
        if not (self.folder / "data").exists():
            self._make()
        with open(self.folder / "log", "a") as log:
            self.process = subprocess.Popen(
                [tool("postgres"), "-D", self.folder / "data", "-p", str(self.port), "-c", "listen_addresses=127.0.0.1",
                 "-c", f"unix_socket_directories={self.folder}", *self.arguments],
                cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._run_as)
        wait_until(self._answers, "PostgreSQL answers")
        return self

    def _answers(self) -> bool:
        assert self.process.poll() is None, "PostgreSQL did not start:\n" + self.log()
        return self._psql("SELECT 1").returncode == 0

    def _family(self) -> list[int]:
        """The server and its children, each of which has a process group of its own."""
        pid = self.process.pid
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]

    def send_signal(self, number: int) -> None:
        for pid in self._family():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def kill(self) -> None:
        """kill -9, paused or not. Returns when none of its processes is left: they share memory."""
        self.process.send_signal(signal.SIGSTOP)  # so that it has no more children
        family = self._family()
        self.send_signal(signal.SIGKILL)
        self.process.wait()
        wait_until(lambda: not any(Path(f"/proc/{pid}/root").exists() for pid in family), "PostgreSQL is gone")
        self.process = None
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)

    def free_ports(self) -> None:
        if self.held is not None:
            self.held.close()

    # --- asking it -------------------------------------------------------------------------------------

    def _psql(self, sql: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["psql", "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p",
             str(self.port), "-U", self.user, "-d", self.database, "-c", sql],
            env=os.environ | {"PGPASSWORD": self.password}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=PATIENCE_S)

    def query(self, sql: str) -> list[tuple[str, ...]]:
        """The rows as texts; a NULL is ""."""
        done = self._psql(sql)
        assert done.returncode == 0, done.stderr
        return [tuple(line.split("\t")) for line in done.stdout.splitlines()]

    def value(self, sql: str) -> str:
        """The first column of the only row."""
        [(value,)] = self.query(sql)
        return value

    def cut_connections(self) -> None:
        """Ends all others' connections, as a network that breaks does."""
        self.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                   "AND backend_type = 'client backend'")


@dataclass
class PostgresKavachd(Kavachd):
    """A kavachd that stores in a server's database."""

    server: PostgresServer | None = None

    def write_config(self) -> None:
        self.settings = {"store.kind": "postgres", "store.url": self.server.url} | self.settings
        super().write_config()

    def query(self, sql: str) -> list[tuple]:
        rows = self.server.query(f"SELECT row_to_json(found) FROM ({sql}) found")
        # Two columns may have the same name.
        return [json.loads(row, object_pairs_hook=lambda pairs: tuple(value for _, value in pairs)) for (row,) in rows]

    def execute(self, sql: str) -> None:
        self.server.query(sql)
