"""Kavach answers every body as FastAPI with Pydantic v2 does: same status, same bytes, same understanding.

Three kinds of bodies are put to both (bodies.py): every field with every kind of value; a valid body broken at
every byte; random mutations of valid bodies (the failing body and its seed are printed). DEVIATIONS lists
all that is meant to be answered differently, with the reason; nothing else may differ.
"""

import json
import os
import random
from decimal import Decimal

import pytest

from app import moment
from bodies import (
    AROUND_AN_ESCAPE, ESCAPES, FAULTS, FIELDS, HEADS, HUGE_INTEGERS, KINDS, TAILS, VICTIM, WHOLE,
    body_of, mutated, oddly_membered, plain,
)  # fmt: skip
from probe import JSON, Kavach, Reference, probe_path


@pytest.fixture(scope="module")
def reference():
    application = Reference()
    yield application
    application.close()


@pytest.fixture(scope="module")
def kavach():
    process = Kavach(probe_path())
    yield process
    assert process.close() == 0


# --- comparing two answers -----------------------------------------------------------------------------------


def understood(batch: dict) -> list:
    """The reference's view of an accepted batch, as parse_probe prints Kavach's; the cost apart."""
    return [
        [e["agent_name"], e["provider"], e["model"], e["idempotency_key"] or "", e["run_id"] or "",
         e["prompt"] or "", moment(e["timestamp"]), e["input_tokens"], e["output_tokens"], e["duration_ms"],
         e["status"] == "error", e["partial"]]
        for e in batch["events"]
    ]  # fmt: skip


def same_cost(nano: int, dollars: float) -> bool:
    """Kavach rounds the decimal text once; the reference's float is off by half a bit before."""
    exact = Decimal(dollars) * 10**9
    return abs(exact - nano) <= Decimal("0.5") + exact * Decimal(2) ** -52


UNREADABLE = b'{"detail":"There was an error parsing the body"}'


def expected(reference, body: bytes) -> tuple[int, bytes]:
    """The reference's answer, but for the two DEVIATIONS that broken bodies run into by themselves."""
    if b"\0" in body[:2] and len(body) > 1:  # what json.loads takes for UTF-16 or UTF-32
        return 400, UNREADABLE
    status, answer = reference.ask(body)
    return (422, reference.unrendered(body)) if status == 500 else (status, answer)


def difference(kavach, reference, body: bytes) -> str | None:
    status, answer = kavach.ask(body)
    wanted_status, wanted = expected(reference, body)
    if status != wanted_status or (status != 202 and answer != wanted):
        told = f"Kavach    {status} {answer[:2000]!r}\n  reference {wanted_status} {wanted[:2000]!r}"
        return f"{body[:2000]!r}\n  {told}"
    if status == 202:
        events, batch = json.loads(answer), json.loads(wanted)
        costs = [e.pop(10) for e in events]
        if events != understood(batch):
            return f"{body[:2000]!r}\n  Kavach    took {events}\n  reference took {understood(batch)}"
        for nano, taken in zip(costs, batch["events"], strict=True):
            if not same_cost(nano, taken["cost"]):
                return f"{body[:2000]!r}\n  Kavach    took {nano} nano-dollars\n  reference took {taken['cost']}"
    return None


def agree(kavach, reference, bodies) -> None:
    """Asks all, so that one run shows every difference."""
    differences = [found for body in bodies if (found := difference(kavach, reference, body))]
    assert not differences, f"{len(differences)} bodies are answered differently:\n" + "\n".join(differences[:10])


# --- every field with every kind of value --------------------------------------------------------------------


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_takes_and_refuses_every_kind_of_value_alike(kavach, reference, field):
    # A huge integer as a cost is one of the DEVIATIONS.
    kinds = KINDS if field == "cost" else KINDS + HUGE_INTEGERS
    agree(kavach, reference, (body_of(plain(**{field: kind})) for kind in kinds))


@pytest.mark.parametrize(
    "form",
    ["%s", " \n%s\t", '{"events":%s}', '{"events":[%s]}', '{"events":[1,%s,2]}', '{"x":%s}', '{"x":%s,"events":[]}'],
)
def test_every_kind_of_value_in_the_place_of_the_body_the_list_and_an_event(kavach, reference, form):
    agree(kavach, reference, ((form % kind).encode() for kind in KINDS + HUGE_INTEGERS))


def test_missing_repeated_and_oddly_named_members(kavach, reference):
    agree(kavach, reference, oddly_membered())


def test_lists_of_every_size_up_to_the_limit(kavach, reference):
    agree(kavach, reference, (body_of(*[plain()] * count) for count in (0, 1, 2, 999, 1000)))


# --- one body, broken at every byte --------------------------------------------------------------------------


def test_a_body_cut_off_anywhere(kavach, reference):
    agree(kavach, reference, (VICTIM[:size] for size in range(len(VICTIM) + 1)))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_body_with_a_fault_inserted_or_put_instead_of_a_byte_anywhere(kavach, reference, fault):
    agree(kavach, reference, (VICTIM[:i] + fault + VICTIM[i:] for i in range(len(VICTIM) + 1) if fault))
    agree(kavach, reference, (VICTIM[:i] + fault + VICTIM[i + 1 :] for i in range(len(VICTIM))))


def test_escapes_at_the_end_and_inside_of_a_string(kavach, reference):
    agree(kavach, reference, ((form % escape).encode() for form in AROUND_AN_ESCAPE for escape in ESCAPES))


def test_what_stands_before_and_behind_the_body(kavach, reference):
    agree(kavach, reference, ((head + body).encode() for body in WHOLE for head in HEADS))
    agree(kavach, reference, ((body + tail).encode() for body in WHOLE for tail in TAILS))
    agree(kavach, reference, ((head + tail).encode() for head in HEADS for tail in TAILS))


# --- random mutations ----------------------------------------------------------------------------------------

SEED = int(os.environ.get("KAVACH_TEST_SEED", 20260525))
ROUNDS = int(os.environ.get("KAVACH_TEST_MUTATIONS", 4000))


def test_random_mutations_of_valid_bodies(kavach, reference):
    for seed in range(SEED, SEED + ROUNDS):
        body = mutated(random.Random(seed))
        found = difference(kavach, reference, body)
        assert found is None, f"mutation of seed {seed}: {found}"


# --- the Content-Type ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", [JSON, None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_is_parsed_only_when_its_type_is_json_or_missing(kavach, reference, content_type):
    for body in (b"", b"5", b"{", b"\"\\/\x01\n", "é😀".encode(), body_of({})):
        assert kavach.ask(body, content_type) == reference.ask(body, content_type)


# --- what is answered differently, and why -------------------------------------------------------------------


def error(kind: str, loc: list, msg: str, shown: str, ctx: str = "") -> bytes:
    """A 422 with one error; `shown` and `ctx` are JSON texts."""
    place = json.dumps(["body", *loc], separators=(",", ":"))
    ctx = ctx and f',"ctx":{ctx}'
    return f'{{"detail":[{{"type":"{kind}","loc":{place},"msg":"{msg}","input":{shown}{ctx}}}]}}'.encode()


def no_json(body: bytes, token: bytes) -> bytes:
    context = '{"error":"Expecting value"}'
    return error("json_invalid", [body.index(token)], "JSON decode error", "{}", context)


def not_finite(shown: str) -> bytes:
    return error("finite_number", ["events", 0, "cost"], "Input should be a finite number", shown)


def no_unicode(field: str, shown: str) -> bytes:
    msg = "Input should be a valid string, unable to parse raw data as a unicode string"
    return error("string_unicode", ["events", 0, field], msg, shown)


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


ONE = body_of(plain())
NAN = {token: body_of(plain(cost=token)) for token in ("NaN", "Infinity", "-Infinity")}
UNKNOWN_NAN = body_of(plain(unknown="[NaN]"))
NOT_A_STRING = ("string_type", ["events", 0, "model"], "Input should be a valid string")
TOO_MANY = ("too_long", ["events"], "List should have at most 1000 items after validation, not 1001")
TOO_MANY_CONTEXT = '{"field_type":"List","max_length":1000,"actual_length":1001}'
NOT_AN_OBJECT = ("model_attributes_type", [], "Input should be a valid dictionary or object to extract fields from")
# One byte more than fits into the echoes of one answer (http/ingest/error_list.h), with the answer's beginning.
LARGE = '["' + "x" * (1 << 20) + '"]'
GOOGOLS = "1" + "0" * 400

# Why, the body, its Content-Type, the reference's status, Kavach's whole answer.
DEVIATIONS = {
    # Contract 9.3: RFC 8259 knows no NaN, and json.loads takes it. The reference cannot even render its own echo.
    **{
        f"the bare token {token}": (body, JSON, 500, (422, no_json(body, token.encode())))
        for token, body in NAN.items()
    },
    "NaN in a member that nobody reads": (UNKNOWN_NAN, JSON, 202, (422, no_json(UNKNOWN_NAN, b"NaN"))),
    # Contract 9.3: infinity has no JSON, so the number is shown as it was written.
    "a float that overflows": (body_of(plain(cost="1e400")), JSON, 500, (422, not_finite("1e400"))),
    # Contract 9.3 knows one answer for every number that overflows; Python's int() of this one fails before.
    "an integer that overflows a float": (body_of(plain(cost=GOOGOLS)), JSON, 422, (422, not_finite(GOOGOLS))),
    # A lone surrogate has no UTF-8: the reference breaks on its own echo, an escape says the same.
    "a lone surrogate is echoed": (
        body_of(plain(model=r'"a\udcffb"')), JSON, 500, (422, no_unicode("model", r'"a\udcffb"'))),
    # json.loads also takes UTF-16 and UTF-32; RFC 8259 and the contract say UTF-8.
    **{
        f"a body in {encoding}": (ONE.decode().encode(encoding), JSON, 202, (400, UNREADABLE))
        for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
    },
    # Python's bound is its stack's, somewhere near 1000.
    "more than 512 levels": (body_of(plain(unknown=nested(510))), JSON, 202, (400, UNREADABLE)),
    # Contract 9.6: echoing 1001 events helps nobody.
    "too many events": (body_of(*[plain()] * 1001), JSON, 422, (422, error(*TOO_MANY, "[]", TOO_MANY_CONTEXT))),
    # Every error of an event echoes it again; bounded, or a small body would make a huge answer.
    "an echo of more than a megabyte": (
        body_of(plain(model=LARGE)), JSON, 422, (422, error(*NOT_A_STRING, "null"))),
    # A raw echo must be text.
    "bytes that are no text, not sent as JSON": (
        b"\xff{}", "text/plain", 500, (422, error(*NOT_AN_OBJECT, "null"))),
}  # fmt: skip


@pytest.mark.parametrize("name", DEVIATIONS)
def test_a_deviation_is_as_documented(kavach, reference, name):
    body, content_type, reference_status, answer = DEVIATIONS[name]
    assert kavach.ask(body, content_type) == answer
    theirs = reference.ask(body, content_type)
    assert theirs[0] == reference_status, "the reference has changed: is this still a deviation?"
    assert theirs != answer, "no deviation any more: strike it off"


def test_just_inside_a_deviation_both_agree(kavach, reference):
    agree(
        kavach,
        reference,
        [
            body_of(plain(unknown=nested(509))),  # the body, the list and the event are three levels more
            body_of(plain(model=nested(509))),
            body_of(plain(unknown=nested(100_000))),  # beyond both bounds
            ("[" * 100_000).encode(),
            body_of(plain(model='["' + "x" * ((1 << 20) - 1000) + '"]')),
            body_of(plain(cost="1" + "0" * 308)),
            body_of(plain(cost='"1e400"')),
            body_of(plain(unknown=r'"\ud800"')),
            body_of(plain(unknown="1e400")),
            b"\xef\xbb\xbf" + ONE,
            b"\xff{}",
            b'{"events":"\xc3"}',
        ],
    )
