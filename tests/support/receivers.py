"""Where alerts arrive, for tests: an HTTP server and an SMTP server that keep what they are sent."""

import http.server
import json
import threading
from dataclasses import dataclass
from email import message_from_bytes, policy

from aiosmtpd.controller import Controller

from support.kavachd import hold_port


@dataclass
class Received:
    path: str
    headers: dict  # names in lower case
    body: bytes

    def json(self):
        return json.loads(self.body)


class Receiver:
    """Answers each path with `answers[path]`, or with what its channel wants (200 and, for PagerDuty, 202)."""

    def __init__(self, port: int = 0):
        self.held = None
        if not port:
            self.held = hold_port()
            port = self.held.getsockname()[1]
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.received: list[Received] = []
        self.answers: dict[str, int] = {}
        self.answer_headers: dict[str, str] = {}

    def __enter__(self) -> "Receiver":
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                names = {name.lower(): value for name, value in self.headers.items()}
                outer.received.append(Received(self.path, names, body))
                self.send_response(outer.answers.get(self.path, 202 if self.path.startswith("/v2/") else 200))
                for name, value in outer.answer_headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        if self.held is not None:
            self.held.close()

    def at(self, path: str) -> list[Received]:
        return [one for one in self.received if one.path == path]


class MailServer:
    """SMTP without TLS; refuses everybody at `refused.example`."""

    def __init__(self):
        self.mails = []
        held = hold_port()
        self.port = held.getsockname()[1]
        held.close()
        self.url = f"smtp://127.0.0.1:{self.port}"
        self.controller = Controller(self, hostname="127.0.0.1", port=self.port)

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.endswith("@refused.example"):
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"

    def __enter__(self) -> "MailServer":
        self.controller.start()
        return self

    def __exit__(self, *_):
        self.controller.stop()

    def to(self, address: str) -> list:
        return [mail for mail in list(self.mails) if mail["To"] == address]
