"""Asks Kavach's parser and the reference application the same question."""

import json
import math
import re
import struct
import subprocess
from pathlib import Path

import fastapi.testclient
import pydantic

import app
from support.kavachd import BUILD

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

    def close(self) -> int:
        """The exit code: a sanitizer's finding is one."""
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait()

    def _read(self, size: int) -> bytes:
        answer = self.process.stdout.read(size)
        assert len(answer) == size, "parse_probe ended: look at its standard error"
        return answer


class Reference:
    """The application, asked as a client asks it."""

    def __init__(self):
        # An answer that the application cannot render is a 500 here, not an exception.
        self.client = fastapi.testclient.TestClient(app.app, raise_server_exceptions=False)
        self.client.__enter__()  # one event loop for all questions
        self.model = pydantic.TypeAdapter(app.Batch)

    def ask(self, body: bytes, content_type: str | None = JSON) -> tuple[int, bytes]:
        headers = {} if content_type is None else {"content-type": content_type}
        answer = self.client.post("/v1/ingest", content=body, headers=headers)
        return answer.status_code, answer.content

    def close(self) -> None:
        self.client.__exit__(None, None, None)

    def unrendered(self, body: bytes) -> bytes:
        """The error body that the application broke on (500) when it rendered it: an echo of a lone surrogate
        or of a number that overflowed. Here the one is rendered as an escape, the other as it was written."""
        infinite: list[tuple[float, str]] = []  # each one an object of its own, found again by its identity

        def parse_float(text: str) -> float:
            value = float(text)
            if math.isinf(value):
                infinite.append((value, text))
            return value

        def mark(value):
            match value:
                case dict():
                    return {key: mark(member) for key, member in value.items()}
                case list() | tuple():
                    return [mark(item) for item in value]
            written = [text for number, text in infinite if number is value]
            return f"{_MARK}{written[0]}{_MARK}" if written else value

        try:
            self.model.validate_python(json.loads(body, parse_float=parse_float), from_attributes=True)
        except pydantic.ValidationError as error:
            detail = [e | {"loc": ("body", *e["loc"])} for e in error.errors(include_url=False)]
            text = json.dumps(
                {"detail": mark(detail)}, default=lambda _: {}, ensure_ascii=False, separators=(",", ":")
            )
            return _MARKED.sub(r"\1", text).encode("utf-8", "backslashreplace")
        raise AssertionError(f"the application failed on a body that is valid: {body[:2000]!r}")


# Around the text of a number, from a private-use area that no test body has.
_MARK = "\ue123"
_MARKED = re.compile(f'"{_MARK}(.*?){_MARK}"')


def probe_path() -> Path:
    path = BUILD / "tests/parse_probe"
    assert path.exists(), f"build the target parse_probe first: {path} is missing"
    return path
