"""Bodies that are no batch: what is no JSON, and JSON of the wrong shape. Single fields: test_events.py."""

import json

import pytest

from support.kavachd import batch_body, event
from support.raw_http import Peer, ingest
from support.checks import check_accepted, check_refused, check_unprocessable, problem, shown, stores

UNREADABLE = '{"detail":"There was an error parsing the body"}'
VALID = shown({"events": [event(idempotency_key=...)]})


def not_json(offset: int, why: str) -> str:
    return problem("json_invalid", ["body", offset], "JSON decode error", "{}", f'{{"error":{shown(why)}}}')


def no_object(loc: list, echo: str) -> str:
    message = "Input should be a valid dictionary or object to extract fields from"
    return problem("model_attributes_type", loc, message, echo)


# --- no JSON -------------------------------------------------------------------------------------------------


def test_an_empty_body_is_a_missing_field(shared):
    check_unprocessable(shared, "", problem("missing", ["body"], "Field required", "null"))


@pytest.mark.parametrize(
    "body, offset, why",
    [
        (" ", 1, "Expecting value"),
        ("events", 0, "Expecting value"),
        ("<xml/>", 0, "Expecting value"),
        ("'events'", 0, "Expecting value"),
        ("NaN", 0, "Expecting value"),
        ("-Infinity", 0, "Expecting value"),
        ("True", 0, "Expecting value"),
        ("{events:[]}", 1, "Expecting property name enclosed in double quotes"),
        ("{'events':[]}", 1, "Expecting property name enclosed in double quotes"),
        ('{"events"=[]}', 9, "Expecting ':' delimiter"),
        ('{"events" []}', 10, "Expecting ':' delimiter"),
        ('{"events":[1 2]}', 13, "Expecting ',' delimiter"),
        ('{"events":[] "a":1}', 13, "Expecting ',' delimiter"),
        ('{"events":}', 10, "Expecting value"),
        ('{"events":[,]}', 11, "Expecting value"),
        ('{"events":[01]}', 12, "Expecting ',' delimiter"),
        ('{"events":[+1]}', 11, "Expecting value"),
        ('{"events":[.5]}', 11, "Expecting value"),
        ('{"events":[0x1]}', 12, "Expecting ',' delimiter"),
        ('{"a":"no end}', 5, "Unterminated string starting at"),
        ('{"a":"tab\there"}', 9, "Invalid control character at"),
        ('{"a":"line\nfeed"}', 10, "Invalid control character at"),
        ('{"a":"NUL\0"}', 9, "Invalid control character at"),
        ('{"a":"\\x"}', 6, "Invalid \\escape"),
        ('{"a":"\\u12"}', 7, "Invalid \\uXXXX escape"),
        ("[" * 100 + "x", 100, "Expecting value"),
        # Offsets count characters, not bytes.
        ('{"événements":}', 14, "Expecting value"),
        ('{"🦉":}', 5, "Expecting value"),
    ],
)
def test_what_is_no_json_is_refused_with_place_and_reason(shared, body, offset, why):
    check_unprocessable(shared, body, not_json(offset, why))


def test_a_batch_cut_off_anywhere_is_refused(shared):
    text = shown({"events": [event(idempotency_key=..., run_id=...)]})
    with stores(shared, 1), Peer(shared) as peer:
        for length in range(1, len(text)):
            try:
                json.loads(text[:length])
            except json.JSONDecodeError as error:
                expected = f'{{"detail":[{not_json(error.pos, error.msg)}]}}'
            answer = peer.ask(ingest(shared, text[:length].encode()))
            assert (answer.status, answer.body.decode()) == (422, expected), text[:length]
        peer.check_goes_on()


@pytest.mark.parametrize("garbage", ["x", "}", "]", ",", "{}", "null", '"', "\0", VALID])
def test_a_batch_followed_by_anything_is_refused(shared, garbage):
    check_unprocessable(shared, VALID + garbage, not_json(len(VALID), "Extra data"))
    check_unprocessable(shared, VALID + "\r\n \t" + garbage, not_json(len(VALID) + 4, "Extra data"))


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"events":[', '[{"a":'])
def test_100_000_levels_of_nesting_are_refused(shared, opening):
    check_refused(shared, ingest(shared, (opening * 100_000).encode()), 400, UNREADABLE)


def test_100_000_nested_arrays_are_refused_also_where_nobody_looks_at_them(shared):
    arrays = "[" * 100_000 + "]" * 100_000
    for body in (
        arrays,
        f'{{"ignored":{arrays},"events":[]}}',
        f'{{"events":{arrays}}}',
        VALID.replace('"agent_name"', f'"ignored":{arrays},"agent_name"'),
        VALID.replace('"research-bot"', arrays),
    ):
        check_refused(shared, ingest(shared, body.encode()), 400, UNREADABLE)


@pytest.mark.parametrize(
    "bad", [b"\xff", b"\x80", b"\xc3", b"\xc3(", b"\xc0\xaf", b"\xe2\x82", b"\xf0\x9f\xa6", b"\xf5\x80\x80\x80"]
)
def test_invalid_utf_8_is_refused_wherever_it_stands(shared, bad):
    text = VALID.encode()
    for body in (
        bad,
        bad + text,
        text + bad,
        text.replace(b"research-bot", b"research-" + bad),
        text.replace(b'"agent_name"', b'"ignored":"' + bad + b'","agent_name"'),
    ):
        check_refused(shared, ingest(shared, body), 400, UNREADABLE)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_other_encodings_of_text_are_refused(shared, encoding):
    check_refused(shared, ingest(shared, VALID.encode(encoding)), 400, UNREADABLE)


def test_a_byte_order_mark_is_ignored(shared):
    check_accepted(shared, b"\xef\xbb\xbf" + VALID.encode(), count=1)


# --- JSON of the wrong shape ---------------------------------------------------------------------------------


@pytest.mark.parametrize("body", ["[]", "[1,2]", '"text"', "5", "-0.5", "true", "false", "null", f"[{VALID}]"])
def test_a_body_that_is_no_object_is_refused(shared, body):
    check_unprocessable(shared, body, no_object(["body"], body))


@pytest.mark.parametrize("body", ["{}", '{"event":[]}', '{"Events":[]}', '{"a":{"events":[]},"b":null}'])
def test_a_body_without_events_is_refused(shared, body):
    check_unprocessable(shared, body, problem("missing", ["body", "events"], "Field required", body))


@pytest.mark.parametrize("events", ["{}", "null", "5", "true", '"text"', '{"0":{}}'])
def test_events_that_are_no_list_are_refused(shared, events):
    expected = problem("list_type", ["body", "events"], "Input should be a valid list", events)
    check_unprocessable(shared, f'{{"events":{events}}}', expected)


@pytest.mark.parametrize("item", ["3", "null", "[]", '"text"', "true", "0.5"])
def test_an_event_that_is_no_object_is_refused(shared, item):
    check_unprocessable(shared, f'{{"events":[{item}]}}', no_object(["body", "events", 0], item))


def test_an_empty_list_is_refused(shared):
    message = "List should have at least 1 item after validation, not 0"
    ctx = '{"field_type":"List","min_length":1,"actual_length":0}'
    check_unprocessable(shared, '{"events":[]}', problem("too_short", ["body", "events"], message, "[]", ctx))


def test_a_thousand_events_are_a_batch(shared):
    check_accepted(shared, [event() for _ in range(1000)])


@pytest.mark.parametrize("item", ["an event", 3])
def test_one_more_is_too_many_and_only_that_is_said(shared, item):
    body = batch_body([event() if item == "an event" else item] * 1001)
    message = "List should have at most 1000 items after validation, not 1001"
    ctx = '{"field_type":"List","max_length":1000,"actual_length":1001}'
    check_unprocessable(shared, body, problem("too_long", ["body", "events"], message, "[]", ctx))


def test_one_bad_event_refuses_the_whole_batch_and_everything_that_is_wrong_is_said_in_order(shared):
    bad = event(provider=5, cost=-1, agent_name=...)
    body = {"events": [event(), bad, event(), 7, event(timestamp="today", model="", input_tokens=None)]}
    check_unprocessable(
        shared,
        shown(body),
        problem("missing", ["body", "events", 1, "agent_name"], "Field required", shown(bad)),
        problem("string_type", ["body", "events", 1, "provider"], "Input should be a valid string", "5"),
        problem(
            "greater_than_equal",
            ["body", "events", 1, "cost"],
            "Input should be greater than or equal to 0",
            "-1",
            '{"ge":0.0}',
        ),
        no_object(["body", "events", 3], "7"),
        problem(
            "string_too_short",
            ["body", "events", 4, "model"],
            "String should have at least 1 character",
            '""',
            '{"min_length":1}',
        ),
        problem("int_type", ["body", "events", 4, "input_tokens"], "Input should be a valid integer", "null"),
        problem(
            "value_error",
            ["body", "events", 4, "timestamp"],
            "Value error, Invalid timestamp format. Use ISO 8601.",
            '"today"',
            '{"error":{}}',
        ),
    )


def test_of_members_sent_twice_the_last_one_counts(shared):
    twice = VALID.replace('"model"', '"agent_name":"the last","model"')
    check_accepted(shared, twice.encode(), count=1)
    assert shared.query("SELECT count(*) FROM events WHERE agent_name = 'the last'") == [(1,)]
    check_accepted(shared, b'{"events":3,' + VALID[1:].encode(), count=1)
    expected = problem("list_type", ["body", "events"], "Input should be a valid list", "3")
    check_unprocessable(shared, VALID[:-1] + ',"events":3}', expected)
    model_twice = VALID.replace('"model"', '"model":5,"model"')
    check_accepted(shared, model_twice.encode(), count=1)


def test_an_echo_of_members_sent_twice_shows_the_last_one(shared):
    check_unprocessable(
        shared, '{"a":1,"b":2,"a":3}', problem("missing", ["body", "events"], "Field required", '{"a":3,"b":2}')
    )


# --- the Content-Type ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/json",
        "APPLICATION/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=latin-1",
        "application/vnd.agentkavach.v1+json",
        "  application/json\t",
    ],
)
def test_a_body_that_is_called_json_or_nothing_is_taken(shared, content_type):
    check_accepted(shared, VALID.encode(), headers={"Content-Type": content_type}, count=1)


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "text/json", "application/x-www-form-urlencoded", "application/jsonp", "json", "application/", ";"],
)
def test_a_body_that_is_called_something_else_is_not_parsed(shared, content_type):
    expected = no_object(["body"], shown(VALID))
    check_unprocessable(shared, VALID, expected, headers={"Content-Type": content_type})


def test_bytes_that_are_no_text_are_not_echoed(shared):
    expected = no_object(["body"], "null")
    check_unprocessable(shared, b"\xff\x00", expected, headers={"Content-Type": "application/octet-stream"})
