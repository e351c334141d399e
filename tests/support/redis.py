"""RedisServer: a redis-server of a test's own, over TCP and a Unix socket in its folder, to be hurt as the test likes.

It keeps nothing on disk: who kills and starts it, or restarts it, gets an empty one at the same address.
"""

import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from support.kavachd import PATIENCE_S, hold_port, wait_until
from support.server import Server


class RedisError(Exception):
    """An error that the server answered."""


class RedisClient:
    """The simplest client there is: RESP2, one command at a time, blocking."""

    def __init__(self, socket_path: Path, timeout_s: float = PATIENCE_S):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout_s)
        try:
            self.socket.connect(str(socket_path))
        except OSError:
            self.socket.close()
            raise
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> "RedisClient":
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def __call__(self, *words):
        """client("SET", "name", 1): the reply as str, int, None or list."""
        self.send(*words)
        return self.receive()

    def send(self, *words) -> None:
        parts = [str(word).encode() for word in words]
        self.socket.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))

    def receive(self):
        """The next reply; of a subscriber, the next message as a list."""
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("closed by the redis-server")
        kind, rest = line[:1], line[1:-2].decode(errors="replace")
        if kind == b"+":
            return rest
        if kind == b"-":
            raise RedisError(rest)
        if kind == b":":
            return int(rest)
        if int(rest) < 0:
            return None
        if kind == b"$":
            return self.file.read(int(rest) + 2)[:-2].decode(errors="replace")
        return [self.receive() for _ in range(int(rest))]


@dataclass
class RedisServer(Server):
    folder: Path
    # More of redis-server's command line, for example ["--maxmemory", "1mb"].
    arguments: list = field(default_factory=list)
    password: str = ""
    port: int = 0  # 0: any free one, the same after a restart
    process: subprocess.Popen | None = None
    held: socket.socket | None = None  # the port

    @property
    def socket_path(self) -> Path:
        return self.folder / "redis.sock"

    @property
    def url(self) -> str:
        return f"redis://{self._user}127.0.0.1:{self.port}"

    @property
    def unix_url(self) -> str:
        return f"unix://{self._user}{self.socket_path}"

    @property
    def _user(self) -> str:
        return f":{self.password}@" if self.password else ""

    def log(self) -> str:
        log = self.folder / "log"
        return log.read_text(errors="replace") if log.exists() else ""

    # --- its life --------------------------------------------------------------------------------------

    def start(self) -> "RedisServer":
        """Returns when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.port:
            self.held = hold_port()
            self.port = self.held.getsockname()[1]
        words = {
            "--bind": "127.0.0.1", "--port": self.port, "--unixsocket": self.socket_path, "--dir": self.folder,
            "--logfile": self.folder / "log", "--save": "", "--appendonly": "no", "--daemonize": "no",
        } | ({"--requirepass": self.password} if self.password else {})
        command = ["redis-server", *(str(word) for pair in words.items() for word in pair), *self.arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_until(self._answers, "redis-server answers")
        return self

    def _answers(self) -> bool:
        assert self.process.poll() is None, "redis-server did not start:\n" + self.log()
        try:
            return self.ask("PING") == "PONG"
        except OSError:
            return False

    def kill(self) -> None:
        super().kill()
        self.socket_path.unlink(missing_ok=True)

    def free_ports(self) -> None:
        if self.held is not None:
            self.held.close()

    # --- asking it -------------------------------------------------------------------------------------

    def client(self, timeout_s: float = PATIENCE_S) -> RedisClient:
        """A connection of its own, logged in."""
        client = RedisClient(self.socket_path, timeout_s)
        if self.password:
            client("AUTH", self.password)
        return client

    def ask(self, *words):
        """One command on a connection for it alone."""
        with self.client() as client:
            return client(*words)

    def keys(self, pattern: str = "*") -> list[str]:
        return sorted(self.ask("KEYS", pattern))

    def flush(self) -> None:
        """Loses all data; connections stay."""
        self.ask("FLUSHALL")
