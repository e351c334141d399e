"""Haproxy: a real haproxy with configs/haproxy.cfg in front of nodes of a test's own."""

import os
import socket
import subprocess
from pathlib import Path

from support.kavachd import PATIENCE_S, ROOT, Kavachd, hold_port, wait_until

CONFIG = ROOT / "configs/haproxy.cfg"


class Haproxy:
    def __init__(self, folder: Path, nodes: list[Kavachd]):
        self.held = hold_port()
        self.port = self.held.getsockname()[1]
        self.log_file = folder / "haproxy.log"
        self.environment = os.environ | {"KAVACH_BIND": f"127.0.0.1:{self.port}"}
        for number, node in enumerate(nodes, 1):
            self.environment[f"KAVACH_NODE_{number}"] = f"127.0.0.1:{node.port}"
        self.process: subprocess.Popen | None = None

    def __enter__(self) -> "Haproxy":
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                ["haproxy", "-db", "-f", CONFIG], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment,
            )
        wait_until(self._listens, "haproxy listens")
        return self

    def _listens(self) -> bool:
        assert self.process.poll() is None, "haproxy did not start:\n" + self.log_file.read_text()
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        except OSError:
            return False

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=PATIENCE_S)
        self.held.close()
