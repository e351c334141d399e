"""Timestamps: every spelling of ISO 8601 that is taken, what is stored of it, and what is refused."""

import time
from datetime import datetime, timezone

import pytest

from support.kavachd import event
from support.checks import batch_with, check_unprocessable, problem, shown, stores

LOC = ["body", "events", 0, "timestamp"]


def micros(*parts: int) -> int:
    since = datetime(*parts, tzinfo=timezone.utc) - datetime(1970, 1, 1, tzinfo=timezone.utc)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def stored_times(node, *timestamps: str) -> list[tuple[int, int]]:
    """Sends one event each; returns when they were (ts_us) and when they arrived (received_at_us)."""
    with stores(node, len(timestamps)):
        assert node.post([event(timestamp=t) for t in timestamps]).status == 202
    rows = node.query(f"SELECT ts_us, received_at_us FROM events ORDER BY id DESC LIMIT {len(timestamps)}")
    return rows[::-1]


@pytest.mark.parametrize(
    "timestamp, expected",
    [
        ("2026-05-25T14:30:00Z", (2026, 5, 25, 14, 30)),
        ("2026-05-25t14:30:00z", (2026, 5, 25, 14, 30)),
        ("2026-05-25 14:30:00Z", (2026, 5, 25, 14, 30)),
        ("2026-05-25T14:30Z", (2026, 5, 25, 14, 30)),
        # Naive times are UTC.
        ("2026-05-25T14:30:00", (2026, 5, 25, 14, 30)),
        ("2026-05-25T14:30:00.5", (2026, 5, 25, 14, 30, 0, 500_000)),
        # Offsets, also over the borders of days, months and years.
        ("2026-05-25T14:30:00+00:00", (2026, 5, 25, 14, 30)),
        ("2026-05-25T14:30:00-00:00", (2026, 5, 25, 14, 30)),
        ("2026-05-25T14:30:00+02:00", (2026, 5, 25, 12, 30)),
        ("2026-05-25T14:30:00+0530", (2026, 5, 25, 9, 0)),
        ("2026-05-25T14:30:00-07", (2026, 5, 25, 21, 30)),
        ("2026-01-01T00:30:00+01:00", (2025, 12, 31, 23, 30)),
        ("2024-02-28T23:30:00-01:00", (2024, 2, 29, 0, 30)),
        ("2026-05-25T14:30:00+23:59", (2026, 5, 24, 14, 31)),
        # Fractions of 1 to 9 digits; what is finer than a microsecond is cut off.
        ("2026-05-25T14:30:00.1Z", (2026, 5, 25, 14, 30, 0, 100_000)),
        ("2026-05-25T14:30:00,25Z", (2026, 5, 25, 14, 30, 0, 250_000)),
        ("2026-05-25T14:30:00.123456+00:00", (2026, 5, 25, 14, 30, 0, 123_456)),
        ("2026-05-25T14:30:00.123456789Z", (2026, 5, 25, 14, 30, 0, 123_456)),
        ("2026-05-25T14:30:00.999999999Z", (2026, 5, 25, 14, 30, 0, 999_999)),
        ("2026-05-25T14:30:00.000000001Z", (2026, 5, 25, 14, 30)),
        # A leap second is the first moment of the next minute.
        ("2016-12-31T23:59:60Z", (2017, 1, 1)),
        ("2016-12-31T23:59:60.7Z", (2017, 1, 1)),
        ("2024-02-29T12:00:00Z", (2024, 2, 29, 12)),
        ("1970-01-01T00:00:00Z", (1970, 1, 1)),
        ("1969-12-31T23:59:59.999999Z", (1969, 12, 31, 23, 59, 59, 999_999)),
        ("0001-01-01T00:00:00Z", (1, 1, 1)),
    ],
)
def test_a_timestamp_is_stored_to_the_microsecond(shared, timestamp, expected):
    assert stored_times(shared, timestamp)[0][0] == micros(*expected)


@pytest.mark.parametrize(
    "timestamp", ["2999-12-31T23:59:59Z", "9999-12-31T23:59:59.999999999Z", "9999-12-31T00:00:00+14:00"]
)
def test_a_time_in_the_future_becomes_the_time_of_arrival(shared, timestamp):
    earliest = time.time() * 1e6
    for happened, arrived in stored_times(shared, timestamp, timestamp):
        assert happened == arrived
        assert earliest - 1e6 <= arrived <= time.time() * 1e6 + 1e6


def test_a_time_just_past_is_kept(shared):
    just_now = datetime.now(timezone.utc)
    happened, arrived = stored_times(shared, just_now.isoformat())[0]
    assert happened == micros(*just_now.timetuple()[:6], just_now.microsecond) <= arrived


@pytest.mark.parametrize(
    "timestamp",
    [
        "",
        " ",
        "now",
        "2026",
        "2026-05",
        "2026-05-25",
        "2026-05-25T",
        "2026-05-25T14",
        "2026-05-25T14:3",
        "2026-05-25T14:30:",
        "2026-05-25T14:30:0",
        "2026-05-25T14:30:00.Z",
        "2026-05-25T14:30:00.1234567890Z",
        "2026-05-25T14:30:00Z ",
        " 2026-05-25T14:30:00Z",
        "2026-05-25T14:30:00ZZ",
        "2026-05-25T14:30:00 Z",
        "2026-05-25T14:30:00+",
        "2026-05-25T14:30:00+1",
        "2026-05-25T14:30:00+01:",
        "2026-05-25T14:30:00+24:00",
        "2026-05-25T14:30:00+01:60",
        "2026-05-25T14:30:00 +01:00",
        "2026-05-25T14:30:00 UTC",
        "2026-05-25  14:30:00Z",
        "20260525T143000Z",
        "2026-145T14:30:00Z",
        "2026-W22-1T14:30:00Z",
        "2026/05/25T14:30:00Z",
        "25-05-2026T14:30:00Z",
        "26-05-25T14:30:00Z",
        "-2026-05-25T14:30:00Z",
        "+2026-05-25T14:30:00Z",
        "2026-5-25T14:30:00Z",
        "2026-00-25T14:30:00Z",
        "2026-13-25T14:30:00Z",
        "2026-05-00T14:30:00Z",
        "2026-05-32T14:30:00Z",
        "2026-02-30T14:30:00Z",
        "2026-02-29T14:30:00Z",
        "1900-02-29T14:30:00Z",
        "2026-04-31T14:30:00Z",
        "2026-05-25T24:00:00Z",
        "2026-05-25T14:60:00Z",
        "2026-05-25T14:30:61Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:01",
        "10000-01-01T00:00:00Z",
        "9999-12-31T23:59:59-00:01",
        "1748183400",
        "٢٠٢٦-٠٥-٢٥T14:30:00Z",
        "2026-05-25T14:30:00Z\u0000",
        "x" * 10_000,
    ],
)
def test_what_names_no_moment_is_refused(shared, timestamp):
    message = "Value error, Invalid timestamp format. Use ISO 8601."
    value = shown(timestamp)
    check_unprocessable(
        shared, batch_with("timestamp", value), problem("value_error", LOC, message, value, '{"error":{}}')
    )
