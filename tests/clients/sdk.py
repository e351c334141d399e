"""A process of a customer who uses the `agentkavach` SDK from PyPI, and what a test tells it to do."""

import json
import os
import subprocess
import sys
from pathlib import Path

from clients.openai_stub import OpenaiStub
from support.kavachd import Kavachd

HERE = Path(__file__).parent


class Sdk:
    """One process that uses the SDK."""

    def __init__(self, node: Kavachd, stub: OpenaiStub, home: Path, key: str = ""):
        home.mkdir()
        self.buffer = home / ".agentkavach/buffer.jsonl"
        environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
        environment |= {
            "AGENTKAVACH_BACKEND_URL": f"http://127.0.0.1:{node.port}",
            "OPENAI_BASE_URL": stub.url,
            "HOME": str(home),
            "NO_PROXY": "*",
        }
        self._process = subprocess.Popen(
            [sys.executable, HERE / "sdk_agent.py", key or node.key],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )

    def call(self, agent: str = "a", model: str = "gpt-4o", prompt: str = "one two three", stream: bool = False):
        return self._ask({"call": {"agent": agent, "model": model, "prompt": prompt, "stream": stream}})

    def make(self, agent: str, **options) -> None:
        """Its guard, with other budgets and channels than the SDK's own (sdk_agent.py)."""
        assert self._ask({"make": {"agent": agent} | options}) is None

    def flush(self) -> None:
        self.start_flush()
        self.finish_flush()

    def start_flush(self) -> None:
        self._tell({"flush": True})

    def finish_flush(self) -> None:
        assert json.loads(self._process.stdout.readline()) is None

    def end(self) -> list[str]:
        """What it has logged, from warnings upwards."""
        self._process.stdin.close()
        logged = json.loads(self._process.stdout.readline())
        assert self._process.wait() == 0
        return logged

    def buffered(self) -> int:
        return len(self.buffer.read_text().splitlines())

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def _ask(self, order: dict):
        self._tell(order)
        return json.loads(self._process.stdout.readline())

    def _tell(self, order: dict) -> None:
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
