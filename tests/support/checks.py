"""Checks: a batch is accepted or refused exactly as documented, and nothing else comes of it.

Batches reach the store in the order in which they were accepted. So each check sends a valid batch behind the
one in question, on the same connection where that goes on: when it has arrived in the store, nothing else is to
come, and the count says what became of the one in question.
"""

import json
from contextlib import contextmanager

from support.kavachd import Answer, Kavachd, event
from support.raw_http import Peer, ingest


@contextmanager
def stores(node: Kavachd, count: int):
    """Of all that is sent inside, `count` events reach the store. What comes last must be a valid batch."""
    before = node.event_count()
    yield
    node.wait_for_events(before + count)


def check_accepted(
    node: Kavachd, body: bytes | list, count: int | None = None, new: int | None = None, headers: dict | None = None
) -> None:
    """All `count` events are accepted, and `new` of them stored (all, unless told otherwise)."""
    count = len(body) if count is None else count
    with stores(node, (count if new is None else new) + 1), Peer(node) as peer:
        answer = peer.ask(ingest(node, body, headers))
        assert answer.status == 202, answer
        assert answer.headers["kavach-receipt"] == "journal"
        assert answer.json() == {"accepted": count, "rejected": 0, "mode": "direct", "rejected_agents": []}
        peer.check_goes_on()


def check_refused(node: Kavachd, sent: bytes, status: int, body: str | None = None, ends: bool = False) -> Answer:
    """`sent` is answered with `status`, and with exactly `body` where one is given; nothing of it is stored.

    The connection goes on, unless the refusal `ends` it.
    """
    with stores(node, 1), Peer(node) as peer:
        answer = peer.ask(sent)
        assert answer.status == status, answer
        assert answer.headers["content-type"] == "application/json"
        if body is None:
            assert json.loads(answer.body)["detail"], "says nothing"
        else:
            assert answer.body.decode() == body
        if ends:
            assert peer.ended()
            assert node.post([event()]).status == 202
        else:
            peer.check_goes_on()
    return answer


def check_unprocessable(node: Kavachd, body: bytes | str, *problems: str, headers: dict | None = None) -> None:
    """`body` is answered with a 422 that lists exactly `problems`; nothing of it is stored."""
    body = body if isinstance(body, bytes) else body.encode()
    check_refused(node, ingest(node, body, headers), 422, '{"detail":[' + ",".join(problems) + "]}")


def problem(kind: str, loc: list, msg: str, shown: str, ctx: str | None = None) -> str:
    """One entry of a 422 (contract/agentkavach.md 9). `shown` (the input) and `ctx` are JSON text."""
    members = [
        f'"type":"{kind}"',
        f'"loc":{json.dumps(loc, separators=(",", ":"))}',
        f'"msg":{json.dumps(msg)}',
        f'"input":{shown}',
    ]
    return "{" + ",".join(members + ([f'"ctx":{ctx}'] if ctx else [])) + "}"


def shown(value) -> str:
    """A value as answers echo it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def batch_with(field: str, value: str, **changes) -> str:
    """A batch of one valid event in which `field` is the JSON text `value`."""
    members = event(**changes) | {field: None}
    return '{"events":[{' + ",".join(f'"{n}":{value if n == field else shown(v)}' for n, v in members.items()) + "}]}"
