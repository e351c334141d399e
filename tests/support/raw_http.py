"""Raw HTTP: sends any bytes over one connection and reads the answers strictly, as RFC 9112 defines them.

HTTP libraries neither send what is wrong nor notice it in an answer. Here every answer must be well formed to
the last byte, and a connection must end exactly when its answer has said so.
"""

import re
import resource
import socket
from contextlib import ExitStack, contextmanager

import pytest

from support.kavachd import Answer, Kavachd, batch_body, event, wait_until

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) ([ -~]+)")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([!-~]([ -~]*[!-~])?)")
_DATE = re.compile(
    r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} \d\d:\d\d:\d\d GMT"
)


def request(
    method: str, target: str, headers: dict | None = None, body: bytes = b"", version: str = "HTTP/1.1"
) -> bytes:
    """A request as bytes. Host and Content-Length are added; a header that is None is left out."""
    fields = {"Host": "kavach.test"}
    if body or method == "POST":
        fields["Content-Length"] = str(len(body))
    fields |= headers or {}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
    return f"{method} {target} {version}\r\n{head}\r\n".encode() + body


def ingest(node: Kavachd, body: bytes | list, headers: dict | None = None, target: str = "/v1/ingest", **how) -> bytes:
    """POST /v1/ingest with the node's key. `body`: bytes as they are, or a list of events."""
    fields = {"Authorization": f"Bearer {node.key}", "Content-Type": "application/json"} | (headers or {})
    return request("POST", target, fields, body if isinstance(body, bytes) else batch_body(body), **how)


# Header fields of a request whose body is framed in chunks.
CHUNKED = {"Transfer-Encoding": "chunked", "Content-Length": None}


def in_chunks(body: bytes, size: int) -> bytes:
    """`body` in chunks of `size` bytes, and the last chunk."""
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


class Peer:
    """One connection to a kavachd; over TLS if the node speaks it."""

    def __init__(self, node: Kavachd):
        self.node = node
        self.socket = node.connect()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is sent apart arrives apart
        if node.tls is not None:
            self.socket = node.tls.wrap_socket(self.socket, server_hostname="localhost")
        self._received = b""
        self._ends = False  # the last answer said so

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data: bytes) -> None:
        """A peer that has answered and closed is no error here: what it answered tells why."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def finish_sending(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Ends the connection with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def ask(self, data: bytes) -> Answer:
        self.send(data)
        return self.answer(to_head=data.startswith(b"HEAD "))

    def post(self, events: list) -> Answer:
        return self.ask(ingest(self.node, events))

    def answer(self, to_head: bool = False) -> Answer:
        """The next answer. Fails unless it is well formed to the last byte."""
        assert not self._ends, "the answer before this one said that it was the last"
        head = self._read_until(b"\r\n\r\n")
        status_line, *lines = head[:-4].split(b"\r\n")
        status = _STATUS_LINE.fullmatch(status_line)
        assert status, f"bad status line: {status_line!r}"
        headers: dict[str, str] = {}
        for line in lines:
            field = _FIELD.fullmatch(line)
            assert field, f"bad header field: {line!r}"
            name = field[1].decode().lower()
            assert name not in headers, f"sent twice: {name}"
            headers[name] = field[2].decode()
        code = int(status[1])
        if code < 200:
            assert not headers
            return Answer(code, headers, b"")
        assert _DATE.fullmatch(headers["date"]), headers["date"]
        assert "transfer-encoding" not in headers
        assert headers.get("connection") in (None, "close", "keep-alive")
        self._ends = headers.get("connection") == "close"
        length = int(headers["content-length"])
        body = b"" if to_head else self._read(length)
        assert not body or headers["content-type"]
        return Answer(code, headers, body)

    def ended(self) -> bool:
        """True when the connection ends here; False when more bytes come."""
        return not self._received and not self._fill()

    def check_goes_on(self) -> None:
        """The connection still serves: a valid batch on it is accepted."""
        answer = self.post([event()])
        assert answer.status == 202, answer

    def _read(self, size: int) -> bytes:
        while len(self._received) < size:
            assert self._fill(), f"ended after {len(self._received)} of {size} bytes"
        taken, self._received = self._received[:size], self._received[size:]
        return taken

    def _read_until(self, mark: bytes) -> bytes:
        while mark not in self._received:
            assert self._fill(), f"ended in the middle of an answer: {self._received!r}"
        return self._read(self._received.index(mark) + len(mark))

    def _fill(self) -> bool:
        try:
            data = self.socket.recv(1 << 20)
        except ConnectionResetError:
            data = b""
        self._received += data
        return data != b""


@contextmanager
def idle_connections(node: Kavachd, count: int, first: bytes = b""):
    """`count` connections that stay open and silent, each after the answer to `first` if there is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < count + 500:
        pytest.skip(f"needs {count + 500} file descriptors, and may have {most} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as open_ones:
        peers = [open_ones.enter_context(Peer(node)) for _ in range(count)]
        if first:
            for peer in peers:
                assert peer.ask(first).status < 300
        # The kernel completes a connection before kavachd has taken it up.
        wait_until(lambda: node.metric("kavach_http_connections") > count, f"{count} connections")
        yield peers
