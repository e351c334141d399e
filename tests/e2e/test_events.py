"""The fields of an event: what each may be, what is taken as something else, and what is said to the rest."""

import uuid

import pytest

from support.kavachd import event
from support.raw_http import Peer, ingest
from support.checks import batch_with, check_accepted, check_unprocessable, problem, shown, stores

# Field: its longest value in characters, and its column in the store.
TEXTS = {
    "agent_name": (255, "agent_name"),
    "provider": (64, "provider"),
    "model": (255, "model"),
    "idempotency_key": (255, "dedup_key"),
    "run_id": (255, "run_id"),
}
REQUIRED_TEXTS = ["agent_name", "provider", "model"]
INTEGERS = ["input_tokens", "output_tokens", "duration_ms"]
REQUIRED = REQUIRED_TEXTS + ["input_tokens", "output_tokens", "cost", "timestamp"]
OPTIONAL = ["duration_ms", "idempotency_key", "run_id", "prompt", "status", "partial"]
NULLABLE = ["idempotency_key", "run_id", "prompt", "status"]


def at(field: str) -> list:
    return ["body", "events", 0, field]


def check_field(node, field: str, value: str, kind: str, message: str, ctx: str | None = None, echo: str = "") -> None:
    """An event whose `field` is the JSON text `value` is refused with just this; the echo is what was sent."""
    check_unprocessable(node, batch_with(field, value), problem(kind, at(field), message, echo or value, ctx))


def stored(node, field: str, value: str, column: str):
    """Sends an event whose `field` is the JSON text `value`; returns what the store holds of it."""
    mark = str(uuid.uuid4())
    with stores(node, 1), Peer(node) as peer:
        # The mark must not be the field under test.
        of_event = {"run_id": mark} if field != "run_id" else {"idempotency_key": mark}
        answer = peer.ask(ingest(node, batch_with(field, value, **of_event).encode()))
        assert answer.status == 202, answer
    where = "run_id" if field != "run_id" else "dedup_key"
    return node.query(f"SELECT {column} FROM events WHERE {where} = ?", mark)[0][0]


# --- missing and null ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", REQUIRED)
def test_a_required_field_that_is_missing_is_named(shared, field):
    sent = event(**{field: ...})
    expected = problem("missing", at(field), "Field required", shown(sent))
    check_unprocessable(shared, shown({"events": [sent]}), expected)


def test_an_empty_event_misses_every_required_field(shared):
    expected = [problem("missing", at(field), "Field required", "{}") for field in REQUIRED]
    check_unprocessable(shared, '{"events":[{}]}', *expected)


@pytest.mark.parametrize("field", OPTIONAL)
def test_an_optional_field_may_be_missing(shared, field):
    check_accepted(shared, [event(**{field: ...})])


@pytest.mark.parametrize(
    "field, column", [("idempotency_key", "dedup_key"), ("run_id", "run_id"), ("prompt", "prompt")]
)
def test_null_means_none(shared, field, column):
    assert stored(shared, field, "null", column) is None


def test_a_status_of_null_means_success(shared):
    assert stored(shared, "status", "null", "is_error") == 0


@pytest.mark.parametrize("field", sorted(set(REQUIRED + OPTIONAL) - set(NULLABLE)))
def test_null_is_no_value_of_any_other_field(shared, field):
    kind, name = {"cost": ("float", "number"), "partial": ("bool", "boolean")}.get(field, ("string", "string"))
    if field in INTEGERS:
        kind, name = "int", "integer"
    check_field(shared, field, "null", f"{kind}_type", f"Input should be a valid {name}")


# --- texts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", [*TEXTS, "prompt", "timestamp"])
@pytest.mark.parametrize("value", ["5", "0.5", "true", "[]", "{}", '["text"]'])
def test_a_text_is_made_of_nothing_else(shared, field, value):
    check_field(shared, field, value, "string_type", "Input should be a valid string")


@pytest.mark.parametrize("field", REQUIRED_TEXTS)
def test_a_name_must_not_be_empty(shared, field):
    check_field(shared, field, '""', "string_too_short", "String should have at least 1 character", '{"min_length":1}')


@pytest.mark.parametrize("field", TEXTS)
@pytest.mark.parametrize("letter", ["x", "é", "語", "🦉"])
def test_a_text_is_as_long_as_its_characters(shared, field, letter):
    longest, column = TEXTS[field]
    assert stored(shared, field, shown(letter * longest), column) == letter * longest
    too_long = shown(letter * (longest + 1))
    message = f"String should have at most {longest} characters"
    check_field(shared, field, too_long, "string_too_long", message, f'{{"max_length":{longest}}}')


@pytest.mark.parametrize(
    "field, column", [("run_id", "run_id"), ("idempotency_key", "dedup_key"), ("prompt", "prompt")]
)
def test_an_empty_text_is_as_good_as_none(shared, field, column):
    assert stored(shared, field, '""', column) is None


@pytest.mark.parametrize("escaped", ["\\ud800", "\\uDFFF", "a\\ud83eb", "\\udd89\\ud83e", "\\ud83e\\ud83e\\udd89"])
@pytest.mark.parametrize("field", ["agent_name", "run_id", "prompt", "status"])
def test_a_lone_surrogate_is_no_text(shared, field, escaped):
    message = "Input should be a valid string, unable to parse raw data as a unicode string"
    echo = {"\\uDFFF": "\\udfff", "\\ud83e\\ud83e\\udd89": "\\ud83e🦉"}.get(escaped, escaped)
    check_field(shared, field, f'"{escaped}"', "string_unicode", message, echo=f'"{echo}"')


def test_a_pair_of_surrogates_is_a_character(shared):
    assert stored(shared, "agent_name", '"\\ud83e\\udd89\\u0041\\n\\u00e9"', "agent_name") == "🦉A\né"


@pytest.mark.parametrize("value", ['"Success"', '"failed"', '""', '" error"', "5", "true", "[]", "{}"])
def test_a_status_is_success_or_error(shared, value):
    expected = """{"expected":"'success' or 'error'"}"""
    check_field(shared, "status", value, "literal_error", "Input should be 'success' or 'error'", expected)


# --- integers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", INTEGERS)
@pytest.mark.parametrize(
    "value, kind, message, ctx",
    [
        ("-1", "greater_than_equal", "Input should be greater than or equal to 0", '{"ge":0}'),
        ("-1.0", "greater_than_equal", "Input should be greater than or equal to 0", '{"ge":0}'),
        ('"-5"', "greater_than_equal", "Input should be greater than or equal to 0", '{"ge":0}'),
        ("-9223372036854775809", "greater_than_equal", "Input should be greater than or equal to 0", '{"ge":0}'),
        (
            "9223372036854775808",
            "less_than_equal",
            "Input should be less than or equal to 9223372036854775807",
            '{"le":9223372036854775807}',
        ),
        (
            "1" + "0" * 100,
            "less_than_equal",
            "Input should be less than or equal to 9223372036854775807",
            '{"le":9223372036854775807}',
        ),
        (
            '"9223372036854775808"',
            "less_than_equal",
            "Input should be less than or equal to 9223372036854775807",
            '{"le":9223372036854775807}',
        ),
        ("1.5", "int_from_float", "Input should be a valid integer, got a number with a fractional part", None),
        ('"abc"', "int_parsing", "Input should be a valid integer, unable to parse string as an integer", None),
        ('""', "int_parsing", "Input should be a valid integer, unable to parse string as an integer", None),
        ('"1.5"', "int_parsing", "Input should be a valid integer, unable to parse string as an integer", None),
        ('"1e3"', "int_parsing", "Input should be a valid integer, unable to parse string as an integer", None),
        ('"0x10"', "int_parsing", "Input should be a valid integer, unable to parse string as an integer", None),
        ("[]", "int_type", "Input should be a valid integer", None),
        ("{}", "int_type", "Input should be a valid integer", None),
        ("[5]", "int_type", "Input should be a valid integer", None),
        ("1e400", "finite_number", "Input should be a finite number", None),
        ("-1e400", "finite_number", "Input should be a finite number", None),
    ],
)
def test_what_is_no_count_is_refused(shared, field, value, kind, message, ctx):
    check_field(shared, field, value, kind, message, ctx)


@pytest.mark.parametrize("field", INTEGERS)
@pytest.mark.parametrize(
    "value, count",
    [
        ("0", 0),
        ("-0", 0),
        ("-0.0", 0),
        ("5.0", 5),
        ("5e0", 5),
        ("0.5e1", 5),
        ('"5"', 5),
        ('" 5 "', 5),
        ('"5.0"', 5),
        ('"+5"', 5),
        ('"1_000"', 1000),
        ("true", 1),
        ("false", 0),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_what_pydantic_takes_as_a_count_is_taken(shared, field, value, count):
    assert stored(shared, field, value, field) == count


def test_the_largest_counts_are_taken_and_their_sums_end_there(shared):
    largest = 2**63 - 1
    sent = event(**{field: largest for field in INTEGERS}, cost=9e9, agent_name="spender")
    for _ in range(2):
        check_accepted(shared, [sent | {"idempotency_key": str(uuid.uuid4())} for _ in range(2)])
    columns = "total_events, total_input_tokens, total_output_tokens, total_duration_ms, total_cost_nano"
    rows = shared.query(f"SELECT {columns} FROM agents WHERE name = 'spender'")
    assert rows == [(4, largest, largest, largest, largest)]


# --- money ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value, kind, message, ctx",
    [
        ("-1", "greater_than_equal", "Input should be greater than or equal to 0", '{"ge":0.0}'),
        ("-0.1", "greater_than_equal", "Input should be greater than or equal to 0", '{"ge":0.0}'),
        ('"-0.1"', "greater_than_equal", "Input should be greater than or equal to 0", '{"ge":0.0}'),
        ('"x"', "float_parsing", "Input should be a valid number, unable to parse string as a number", None),
        ('""', "float_parsing", "Input should be a valid number, unable to parse string as a number", None),
        ('"$5"', "float_parsing", "Input should be a valid number, unable to parse string as a number", None),
        ('"0,5"', "float_parsing", "Input should be a valid number, unable to parse string as a number", None),
        ("[]", "float_type", "Input should be a valid number", None),
        ("{}", "float_type", "Input should be a valid number", None),
        ("1e400", "finite_number", "Input should be a finite number", None),
        ('"NaN"', "finite_number", "Input should be a finite number", None),
        ('"inf"', "finite_number", "Input should be a finite number", None),
        ('"1e400"', "finite_number", "Input should be a finite number", None),
        (
            "9000000001",
            "less_than_equal",
            "Input should be less than or equal to 9000000000",
            '{"le":9000000000.0}',
        ),
    ],
)
def test_what_is_no_amount_of_money_is_refused(shared, value, kind, message, ctx):
    check_field(shared, "cost", value, kind, message, ctx)


@pytest.mark.parametrize("field", [*INTEGERS, "cost"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "nan", "- 1", "1.", ".5", "1e", "1_000"])
def test_what_is_no_number_of_json_is_bad_json(shared, field, value):
    body = batch_with(field, value)
    # json.loads reads a number as far as it goes.
    offset, why = {
        "1.": (1, "Expecting ',' delimiter"),
        "1e": (1, "Expecting ',' delimiter"),
        "1_000": (1, "Expecting ',' delimiter"),
    }.get(value, (0, "Expecting value"))
    place = body.index(f'"{field}":') + len(field) + 3 + offset
    expected = problem("json_invalid", ["body", place], "JSON decode error", "{}", f'{{"error":"{why}"}}')
    check_unprocessable(shared, body, expected)


@pytest.mark.parametrize(
    "value, nano_dollars",
    [
        ("0", 0),
        ("-0", 0),
        ("-0.0", 0),
        ("1", 1_000_000_000),
        ("0.1", 100_000_000),
        ("0.0155", 15_500_000),
        ("0.000000001", 1),
        ("1e-9", 1),
        ("1.5E-7", 150),
        ("1234567.123456789", 1_234_567_123_456_789),
        ("0.29", 290_000_000),  # as a float times 1e9: 289999999.99999994
        ("4.35", 4_350_000_000),
        ("1.005", 1_005_000_000),
        ("9000000000", 9_000_000_000_000_000_000),
        ("true", 1_000_000_000),
        ('"0.5"', 500_000_000),
        ('" 0.29 "', 290_000_000),
    ],
)
def test_money_is_stored_to_the_nano_dollar(shared, value, nano_dollars):
    assert stored(shared, "cost", value, "cost_nano") == nano_dollars


def test_digits_beyond_a_nano_dollar_are_rounded(shared):
    for value, nano_dollars in (("0.0000000004", 0), ("0.0000000006", 1), ("0.1234567894", 123_456_789), ("1e-300", 0)):
        assert stored(shared, "cost", value, "cost_nano") == nano_dollars, value


# --- partial -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["true", "false", "0", "1", "1.0", '"true"', '"FALSE"', '"yes"', '"off"', '"t"'])
def test_what_pydantic_takes_as_a_boolean_is_taken(shared, value):
    stored(shared, "partial", value, "id")


@pytest.mark.parametrize("value", ["2", "-1", '"maybe"', '""', '" true"'])
def test_what_means_neither_yes_nor_no_is_refused(shared, value):
    message = "Input should be a valid boolean, unable to interpret input"
    check_field(shared, "partial", value, "bool_parsing", message)


@pytest.mark.parametrize("value", ["[]", "{}", "0.5", "1e400"])
def test_what_is_no_boolean_is_refused(shared, value):
    check_field(shared, "partial", value, "bool_type", "Input should be a valid boolean")
