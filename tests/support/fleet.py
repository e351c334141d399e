"""Fleet: agents that report over connections of their own, lose answers, retry, repeat and overlap their batches.

What it remembers is what the promises are about: which events were answered 202, which were sent and never
answered, and nothing else. check() holds a store against that, event by event.
"""

import gzip
import http.client
import random
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field

from support.kavachd import PATIENCE_S, Kavachd, batch_body, event


@dataclass
class Sending:
    """A batch, and what became of it."""

    org: dict
    events: list
    retried: bool  # until it is answered; keyless batches are not, since nobody could tell them apart
    acknowledged: bool = False


@dataclass
class Loss:
    """An answer that did not come."""

    sending: Sending
    sent_at: float | None  # when the request had left completely; None: it had not
    error: str


class Fleet:
    SIZES = (1, 1, 1, 3, 10, 40, 150)

    def __init__(self, node: Kavachd, orgs: list, connections: int, seed: str, others: tuple = ()):
        """`others` are more nodes of the same store: a batch goes to any of them, a repeated one to any other."""
        self.node = node
        self.nodes = [node, *others]
        self.orgs = orgs
        self.losses: list[Loss] = []
        self.refusals: list = []  # answers that are neither 202 nor 429
        self.busy = 0  # answers 429
        self.receipts: Counter = Counter()  # of answers 202: their class
        self.acknowledged: list[Sending] = []
        self._unanswered: list[Sending] = []  # to be retried
        self._abandoned: list[Sending] = []  # keyless: stored or not, but never twice and never in part
        self._stopping = threading.Event()
        self._agents = [
            threading.Thread(target=self._run, args=(random.Random(f"{seed}/{i}"),)) for i in range(connections)
        ]

    def __enter__(self) -> "Fleet":
        for agent in self._agents:
            agent.start()
        return self

    def __exit__(self, kind, *_):
        self._stopping.set()
        for agent in self._agents:
            agent.join()
        if kind is None:
            self._retry_all()

    def check(self) -> None:
        """Against the store of a node that was stopped: each event that must be there once is, no other is."""
        assert self.refusals == []
        assert self._unanswered == []
        rows = self.node.query("SELECT prompt, org_id, agent_name, run_id, input_tokens, cost_nano FROM events")
        stored = Counter(rows)
        twice = [row for row, count in stored.items() if count > 1]
        assert twice == [], f"{len(twice)} events are stored more than once"
        due = {_row(sending.org, e) for sending in self.acknowledged for e in sending.events}
        lost = due - stored.keys()
        assert not lost, f"{len(lost)} of {len(due)} acknowledged events are not stored, for example {min(lost)}"
        may_be = [{_row(sending.org, e) for e in sending.events} for sending in self._abandoned]
        for rows_of_batch in may_be:
            assert rows_of_batch <= stored.keys() or not rows_of_batch & stored.keys(), "part of a batch is stored"
        unknown = stored.keys() - due.union(*may_be)
        assert not unknown, f"{len(unknown)} events are stored that nobody sent, for example {min(unknown)}"
        self.node.check_roll_ups()

    # --- one agent -------------------------------------------------------------------------------------

    def _run(self, rng: random.Random) -> None:
        connection = None
        while not self._stopping.is_set():
            if connection is None or rng.random() < 0.05:
                connection = self._reconnect(connection, rng.choice(self.nodes))
            if not self._send(connection, self._choose(rng), compress=rng.random() < 0.5):
                connection = self._reconnect(connection, rng.choice(self.nodes))
                time.sleep(rng.uniform(0, 0.02))
        connection.close()

    def _reconnect(self, old: http.client.HTTPConnection | None, node: Kavachd) -> http.client.HTTPConnection:
        if old is not None:
            old.close()
        return http.client.HTTPConnection("127.0.0.1", node.port, timeout=PATIENCE_S)

    def _choose(self, rng: random.Random) -> Sending:
        dice = rng.random()
        if dice < 0.4:
            try:
                return self._unanswered.pop(rng.randrange(len(self._unanswered)))
            except (ValueError, IndexError):
                pass  # none, or another agent took it
        earlier = rng.choice(self.acknowledged) if self.acknowledged else None
        if earlier is not None and not earlier.retried:
            earlier = None
        if earlier is not None and dice < 0.5:
            return earlier
        sending = self._make(rng)
        if earlier is not None and dice < 0.6 and sending.retried:
            # Some of its events were reported before, as when a client puts its rests together.
            return Sending(earlier.org, earlier.events[:3] + sending.events, retried=True)
        if dice < 0.7 and sending.retried:
            self._unanswered.append(sending)  # another agent sends the same at the same time
        return sending

    def _make(self, rng: random.Random) -> Sending:
        keyless = rng.random() < 0.1
        events = [
            event(
                agent_name=rng.choice(["research-bot", "Häuptling", "c"]),
                model=rng.choice(["gpt-4o", "o3"]),
                run_id=rng.choice(["run-1", "run-2", ...]),
                input_tokens=rng.randrange(10_000),
                cost=rng.randrange(10_000) / 1000,
                prompt=str(uuid.uuid4()),  # names the event in the store
                **({"idempotency_key": ...} if keyless else {}),
            )
            for _ in range(rng.choice(self.SIZES))
        ]
        return Sending(rng.choice(self.orgs), events, retried=not keyless)

    def _send(self, connection: http.client.HTTPConnection, sending: Sending, compress: bool) -> bool:
        """False when no answer came."""
        body = batch_body(sending.events)
        headers = {"Authorization": f"Bearer {sending.org['api_key']}", "Content-Type": "application/json"}
        if compress:
            body = gzip.compress(body, 1)
            headers["Content-Encoding"] = "gzip"
        sent_at = None
        try:
            connection.request("POST", "/v1/ingest", body, headers)
            sent_at = time.monotonic()
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.losses.append(Loss(sending, sent_at, repr(error)))
            if not sending.acknowledged:
                (self._unanswered if sending.retried else self._abandoned).append(sending)
            return False
        if answer.status == 202:
            self.receipts[answer.headers["Kavach-Receipt"]] += 1
            if not sending.acknowledged:
                sending.acknowledged = True
                self.acknowledged.append(sending)
        elif answer.status == 429:
            self.busy += 1
            self._unanswered.append(sending)
        else:
            self.refusals.append((answer.status, text))
        return True

    def _retry_all(self) -> None:
        """What a client still holds goes out in the end."""
        connection = self._reconnect(None, self.node)
        deadline = time.monotonic() + PATIENCE_S
        while self._unanswered:
            assert time.monotonic() < deadline, f"{len(self._unanswered)} batches are never accepted"
            assert self._send(connection, self._unanswered.pop(), compress=False), self.losses[-1].error
        connection.close()


def _row(org: dict, sent: dict) -> tuple:
    return (
        sent["prompt"], org["org_id"], sent["agent_name"], sent.get("run_id"), sent["input_tokens"],
        round(sent["cost"] * 1_000_000_000),
    )
