"""WriterProcess: one real `kavachd writer`, with the config of a node and a port of its own."""

import os
import signal
import subprocess

from support.kavachd import BINARY, PATIENCE_S, Kavachd, hold_port, wait_until


class WriterProcess:
    def __init__(self, node: Kavachd, name: str, settings: dict | None = None):
        self.held = hold_port()
        self.port = self.held.getsockname()[1]
        # Asks as a node is asked: /readyz, /metrics.
        self.asker = Kavachd(node.folder / name, port=self.port)
        self.asker.folder.mkdir()
        self.asker.settings = node.settings | {"writer.port": self.port} | (settings or {})
        self.asker.write_config()
        self.process: subprocess.Popen | None = None

    def log(self) -> str:
        return self.asker.log()

    def start(self) -> "WriterProcess":
        with open(self.asker.log_file, "ab") as log:
            command = [BINARY, "writer", "--config", self.asker.config]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log, env=os.environ)
        wait_until(self._is_ready, "the writer is ready")
        return self

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, "the writer did not start:\n" + self.log()
        try:
            return self.asker.request("GET", "/readyz").status == 200
        except OSError:
            return False

    def metric(self, name: str) -> float:
        return self.asker.metric(name)

    def kill(self) -> None:
        """kill -9, paused or not."""
        self.process.kill()
        self.process.wait()
        self.process = None

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=PATIENCE_S)
        self.process = None
        return code

    def close(self) -> None:
        """After the test: a sanitizer's finding is an exit code and a report in the log."""
        self.held.close()
        if self.process is None:
            return
        assert self.process.poll() is None, f"the writer ended with {self.process.returncode}:\n{self.log()}"
        code = self.stop()
        assert code == 0, f"the writer stopped with {code}:\n{self.log()}"
