"""Asks Kavach's parser and the reference application the same question."""

import os
import struct
import subprocess
from pathlib import Path

from starlette.testclient import TestClient

from app import app

JSON = "application/json"


class Kavach:
    """One parse_probe process; see parse_probe.cc for the framing."""

    def __init__(self, path: Path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, body: bytes, content_type: str | None = JSON) -> tuple[int, bytes]:
        kind = b"j" if content_type in (None, JSON) else b"t"
        self.process.stdin.write(kind + struct.pack("<I", len(body)) + body)
        self.process.stdin.flush()
        status, size = struct.unpack("<HI", self._read(6))
        return status, self._read(size)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=10)
        self.process.stdout.close()

    def _read(self, size: int) -> bytes:
        answer = self.process.stdout.read(size)
        assert len(answer) == size, "parse_probe ended: look at its standard error"
        return answer


class Reference:
    def __init__(self):
        # An answer that the application cannot render is a 500 here, not an exception.
        self.client = TestClient(app, raise_server_exceptions=False)

    def ask(self, body: bytes, content_type: str | None = JSON) -> tuple[int, bytes]:
        headers = {} if content_type is None else {"content-type": content_type}
        answer = self.client.post("/v1/ingest", content=body, headers=headers)
        return answer.status_code, answer.content


def probe_path() -> Path:
    """KAVACH_PARSE_PROBE, or where the release preset builds it."""
    default = Path(__file__).parents[3] / "build/release/tests/parse_probe"
    return Path(os.environ.get("KAVACH_PARSE_PROBE", default))
