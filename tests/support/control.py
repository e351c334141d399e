"""Dashboard: a person in front of the control API, with a token, and their mail in an outbox."""

import email
import email.policy
import json
import re
import uuid
from pathlib import Path
from urllib.parse import quote

from support.kavachd import Answer, Kavachd, wait_until

PASSWORD = "correct horse battery"


def settings(folder: Path) -> dict:
    # Beside other tests there may be no core that nobody wants.
    return {"mail.kind": "outbox", "mail.outbox_directory": str(folder / "outbox"), "control.workers": 2, "control.tries_max": 1000,
            "control.nice": 0}


class Dashboard:
    def __init__(self, node: Kavachd, address: str = ""):
        self.node = node
        self.address = address or f"{uuid.uuid4().hex[:12]}@example.com"
        self.token = ""
        self.key = ""  # of their organization, once they have sent
        self.org_id = ""
        self.sent = 0

    def ask(self, method: str, path: str, body=None, token: str | None = None, **headers) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        token = self.token if token is None else token
        if token:
            sent.setdefault("Authorization", f"Bearer {token}")
        raw = None
        if body is not None:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        return self.node.request(method, path, raw, sent)

    def get(self, path: str, **more) -> Answer:
        return self.ask("GET", path, **more)

    def post(self, path: str, body=None, **more) -> Answer:
        return self.ask("POST", path, {} if body is None else body, **more)

    # --- an account ------------------------------------------------------------------------------------

    def register(self, **more) -> Answer:
        return self.post("/v1/auth/register",
                         {"email": self.address, "password": PASSWORD, "org_name": "Acme"} | more)

    def mails(self) -> list[email.message.EmailMessage]:
        """To this person, oldest first."""
        outbox = Path(self.node.settings["mail.outbox_directory"])
        files = sorted(outbox.glob("[!.]*.eml"), key=lambda file: file.stat().st_mtime_ns) if outbox.exists() else []
        read = [email.message_from_bytes(file.read_bytes(), policy=email.policy.default) for file in files]
        return [mail for mail in read if self.address in mail["To"]]

    def code(self, mails_before: int = 0) -> str:
        """Of the newest mail, once there are more than `mails_before`."""
        wait_until(lambda: len(self.mails()) > mails_before, "the mail with the code")
        return re.search(r"\b\d{6}\b", self.mails()[-1].get_content())[0]

    def sign_up(self) -> "Dashboard":
        assert self.register().status == 201
        verified = self.post("/v1/auth/verify-email", {"email": self.address, "code": self.code()})
        assert verified.status == 200, verified.body
        self.token = verified.json()["access_token"]
        return self

    def send(self, *events: dict) -> None:
        """Events of their organization, until they are stored."""
        if not self.key:
            self.key = self.post("/v1/keys", {}).json()["raw_key"]
            self.org_id = self.get("/v1/auth/me").json()["org_id"]
        for event in events:
            event.setdefault("idempotency_key", str(uuid.uuid4()))
        answer = self.node.post(list(events), key=self.key)
        assert answer.status == 202 and answer.json()["rejected"] == 0, answer.body
        self.sent += len(events)
        counted = f"SELECT count(*) FROM events WHERE org_id = '{self.org_id}'"
        wait_until(lambda: self.node.query(counted)[0][0] == self.sent, "the events are stored")

    def become(self, role: str) -> None:
        self.node.execute(f"UPDATE org_members SET role = '{role}' WHERE user_id = "
                          f"(SELECT id FROM users WHERE email = '{self.address}')")

    def login(self, password: str = PASSWORD) -> Answer:
        return self.post("/v1/auth/login", {"email": self.address, "password": password}, token="")


def in_path(name: str) -> str:
    return quote(name, safe="")
