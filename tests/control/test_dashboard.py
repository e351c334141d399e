"""The dashboard's totals, series and top lists (contract/agentkavach.md section 7).

What they must say is counted here from the events that were sent. An event counts for the minute that it is
in, or for its hour once that began more than 48 hours ago.
"""

import datetime as dt
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import pytest

from support.control import Dashboard
from support.kavachd import event, wait_until

UTC = dt.timezone.utc
HOUR = dt.timedelta(hours=1)
DAY = dt.timedelta(days=1)
PATHS = ["overview", "spend", "stats"]
ZONES = ["UTC", "America/New_York", "Asia/Kolkata"]


def utc_now() -> dt.datetime:
    return dt.datetime.now(UTC)


def text(moment: dt.datetime) -> str:
    moment = moment.astimezone(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S" + (".%f" if moment.microsecond else "") + "Z")


def hour_of(moment: dt.datetime) -> dt.datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def midnight(zone: str, date: dt.date) -> dt.datetime:
    return dt.datetime.combine(date, dt.time(), ZoneInfo(zone)).astimezone(UTC)


def ask(person: Dashboard, path: str, **query):
    return person.get(f"/v1/dashboard/{path}" + ("?" + urlencode(query) if query else ""))


def shown(person: Dashboard, path: str, **query) -> dict:
    answer = ask(person, path, **query)
    assert answer.status == 200, answer.body
    return answer.json()


class Sent:
    """Events of one organization, and what they add up to."""

    def __init__(self, node, person: Dashboard, zone: str = "UTC"):
        self.node, self.person, self.zone = node, person, zone
        assert person.ask("PUT", "/v1/settings", {"timezone": zone}).status == 200
        assert person.post("/v1/billing/change-tier", {"tier": "max"}).status == 200
        self.key = person.post("/v1/keys", {}).json()["raw_key"]
        self.events = []

    def send(self, at: dt.datetime, **changes) -> None:
        made = event(timestamp=text(at), run_id=..., **changes)
        answer = self.node.post([made], key=self.key)
        assert answer.status == 202 and answer.json()["accepted"] == 1, answer.body
        self.events.append(made | {"at": at})

    def settle(self) -> "Sent":
        wait_until(lambda: shown(self.person, "overview", range="custom", from_date="2020-01-01T00:00Z",
                                 to_date="2100-01-01T00:00Z")["range_events"] == len(self.events), "the events are counted")
        return self

    def today(self) -> dt.date:
        return utc_now().astimezone(ZoneInfo(self.zone)).date()

    def date(self, one: dict) -> dt.date:
        """The day for which an event counts."""
        at = one["at"]
        counted = at if hour_of(at) > utc_now() - 2 * DAY else hour_of(at)
        return counted.astimezone(ZoneInfo(self.zone)).date()

    def last(self, days: int) -> list[dict]:
        first = self.today() - dt.timedelta(days=days - 1)
        return [one for one in self.events if self.date(one) >= first]

    def of_one_moment(self, compare) -> None:
        """Once more when a day or an hour of the zone ended meanwhile."""
        while True:
            began = utc_now()
            try:
                return compare()
            except AssertionError:
                if hour_of(began) == hour_of(utc_now()) and began.minute // 15 == utc_now().minute // 15:
                    raise


def total(events: list[dict], name: str):
    return sum(one[name] for one in events)


def cost(events: list[dict]):
    return pytest.approx(total(events, "cost"), rel=0, abs=1e-9)


def agents(events: list[dict]) -> int:
    return len({one["agent_name"] for one in events})


def send_some(sent: Sent) -> None:
    """Around the midnights of today and of the days before it, as far as they are over."""
    number = 0
    for days in (0, 1, 2, 4, 6, 7, 20, 29, 30, 40):
        start = midnight(sent.zone, sent.today() - dt.timedelta(days=days))
        for offset in (dt.timedelta(minutes=-10), dt.timedelta(0), dt.timedelta(minutes=10), dt.timedelta(minutes=70), 12 * HOUR):
            if start + offset > utc_now() - dt.timedelta(seconds=1):
                continue
            number += 1
            sent.send(start + offset, agent_name=f"agent-{days}", model=f"model-{number % 3}", cost=round(0.001 * 2 ** (number % 9) + number * 1e-9, 9),
                      input_tokens=10 * number, output_tokens=number, duration_ms=100 * (number % 4))
    sent.send(utc_now(), agent_name="agent-now", cost=0.25)
    sent.settle()


# --- overview ----------------------------------------------------------------------------------------------

def test_the_overview_of_nothing(person):
    assert shown(person, "overview") == {
        "total_spend_today": 0, "total_spend_week": 0, "total_spend_month": 0, "events_today": 0, "events_week": 0, "events_month": 0,
        "tier": "free", "active_agents_today": 0, "active_agents_week": 0, "active_agents_month": 0,
        "events_per_day": person.get("/v1/billing/plan").json()["events_per_day"],
        "max_agents": person.get("/v1/billing/plan").json()["max_agents"],
        "input_tokens_today": 0, "output_tokens_today": 0, "duration_ms_today": 0,
        "org_budget_limit": None, "org_budget_used": None, "org_budget_pct": None, "org_budget_period": None}


@pytest.mark.parametrize("zone", ZONES)
def test_the_overview_counts_the_days_of_the_zone(node, person, zone):
    sent = Sent(node, person, zone)
    send_some(sent)

    def compare() -> None:
        today, week, month = sent.last(1), sent.last(7), sent.last(30)
        assert len(today) < len(week) < len(month) < len(sent.events)
        plan = person.get("/v1/billing/plan").json()
        overview = shown(person, "overview")
        assert overview == {
            "total_spend_today": cost(today), "total_spend_week": cost(week), "total_spend_month": cost(month),
            "events_today": len(today), "events_week": len(week), "events_month": len(month),
            "tier": "max", "active_agents_today": agents(today), "active_agents_week": agents(week), "active_agents_month": agents(month),
            "events_per_day": plan["events_per_day"], "max_agents": plan["max_agents"],
            "input_tokens_today": total(today, "input_tokens"), "output_tokens_today": total(today, "output_tokens"),
            "duration_ms_today": total(today, "duration_ms"),
            "org_budget_limit": None, "org_budget_used": None, "org_budget_pct": None, "org_budget_period": None}
        for name, days, events in (("7d", 7, week), ("30d", 30, month)):
            assert shown(person, "overview", range=name) == overview | {
                "range_spend": cost(events), "range_events": len(events), "range_input_tokens": total(events, "input_tokens"),
                "range_output_tokens": total(events, "output_tokens"), "range_duration_ms": total(events, "duration_ms"),
                "range_start": text(midnight(zone, sent.today() - dt.timedelta(days=days - 1))),
                "range_end": text(midnight(zone, sent.today() + DAY))}

    sent.of_one_moment(compare)


def test_a_custom_range_is_exact_to_the_minute_for_two_days_and_to_the_hour_before(node, person):
    sent = Sent(node, person)
    recent = hour_of(utc_now()) - 5 * HOUR
    old = recent - 10 * DAY
    for start in (recent, old):
        for minutes in (0, 14, 15, 29, 30, 59, 60):
            sent.send(start + dt.timedelta(minutes=minutes), cost=0.001 * (minutes + 1))
    sent.settle()

    def counted(start: dt.datetime, begin: float, end: float) -> list:
        range_ = {"from_date": text(start + dt.timedelta(minutes=begin)), "to_date": text(start + dt.timedelta(minutes=end))}
        answer = shown(person, "overview", range="custom", **range_)
        assert (answer["range_start"], answer["range_end"]) == (range_["from_date"], range_["to_date"])
        stats = shown(person, "stats", range="custom", **range_)
        assert (stats["from"], stats["to"], stats["total_cost"]) == (range_["from_date"], range_["to_date"], answer["range_spend"])
        return [answer["range_events"], round(answer["range_spend"], 9)]

    assert counted(recent, 15, 30) == [2, 0.046]
    assert counted(recent, 15, 30.5) == [3, 0.077]
    assert counted(recent, 29.5, 61) == [4, 0.182]
    assert counted(recent, 0, 60) == [6, 0.153]
    assert counted(recent, 20, 20) == [0, 0]
    assert counted(old, 15, 30) == [6, 0.153]
    assert counted(old, 0, 60) == [6, 0.153]
    assert counted(old, 30, 61) == [7, 0.214]
    assert counted(old, 120, 180) == [0, 0]
    assert counted(old, 59, 10 * 24 * 60 + 15) == [9, 0.230]


def test_the_most_used_cost_budget_is_shown(node, person):
    sent = Sent(node, person)
    for budget_type, period, limit in (("cost", "daily", 8), ("cost", "total", 10.5), ("cost", "monthly", 4), ("calls", "daily", 2)):
        assert person.post("/v1/org/budgets", {"budget_type": budget_type, "period": period, "limit_value": limit}).status == 201
    sent.send(utc_now(), cost=1.5)
    sent.settle()
    names = ["org_budget_limit", "org_budget_used", "org_budget_pct", "org_budget_period"]
    wait_until(lambda: [shown(person, "overview")[name] for name in names] == [4, 1.5, 37.5, "monthly"], "the budget's use is shown")


# --- spend -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("query, days", [({}, 7), ({"days": "1"}, 1), ({"granularity": "hourly", "days": "90"}, 90)])
def test_the_hours_up_to_now(node, person, query, days):
    sent = Sent(node, person, "Asia/Kolkata")
    now = utc_now()
    for hours in (0, 1, 23, 24, 24 * 7 - 1, 24 * 7, 24 * 30, 24 * 90 - 1, 24 * 90):
        sent.send(hour_of(now) - hours * HOUR, cost=0.5 + hours / 1000, input_tokens=hours, output_tokens=1)
    sent.send(now, cost=0.125)
    sent.settle()

    def compare() -> None:
        spend = shown(person, "spend", **query)
        last = hour_of(utc_now())
        first = last - (24 * days - 1) * HOUR
        assert {name: spend[name] for name in ("granularity", "days", "timezone")} == {
            "granularity": "hourly", "days": days, "timezone": "Asia/Kolkata"}
        assert [row["timestamp"] for row in spend["series"]] == [text(first + hour * HOUR) for hour in range(24 * days)]
        for row in spend["series"]:
            events = [one for one in sent.events if text(hour_of(one["at"])) == row["timestamp"]]
            assert row == {"timestamp": row["timestamp"], "cost": cost(events), "events": len(events),
                           "input_tokens": total(events, "input_tokens"), "output_tokens": total(events, "output_tokens")}
        assert spend["total_cost"] == cost([one for one in sent.events if hour_of(one["at"]) >= first])

    sent.of_one_moment(compare)


@pytest.mark.parametrize("zone", ZONES)
def test_the_days_of_the_zone(node, person, zone):
    sent = Sent(node, person, zone)
    send_some(sent)

    def compare() -> None:
        for days in (1, 7, 30, 90):
            spend = shown(person, "spend", granularity="daily", days=days)
            assert (spend["granularity"], spend["days"], spend["timezone"]) == ("daily", days, zone)
            dates = [sent.today() - dt.timedelta(days=back) for back in reversed(range(days))]
            expected = []
            for date in dates:
                events = [one for one in sent.events if sent.date(one) == date]
                expected.append({"timestamp": text(midnight(zone, date)), "cost": cost(events), "events": len(events),
                                 "input_tokens": total(events, "input_tokens"), "output_tokens": total(events, "output_tokens")})
            assert spend["series"] == expected
            assert spend["total_cost"] == cost(sent.last(days))

    sent.of_one_moment(compare)


def test_the_days_and_the_overview_agree(node, person):
    sent = Sent(node, person, "Asia/Kolkata")
    send_some(sent)

    def compare() -> None:
        overview = shown(person, "overview")
        for name, days in (("today", 1), ("week", 7), ("month", 30)):
            spend = shown(person, "spend", granularity="daily", days=days)
            assert (spend["total_cost"], sum(row["events"] for row in spend["series"])) == (
                overview[f"total_spend_{name}"], overview[f"events_{name}"])

    sent.of_one_moment(compare)


# --- stats -------------------------------------------------------------------------------------------------

def test_stats_of_nothing(person):
    stats = shown(person, "stats")
    assert {name: stats[name] for name in stats if name not in ("from", "to")} == {
        "top_models": [], "top_agents": [], "range": "today", "total_cost": 0, "error_count": 0, "success_rate": 100, "avg_duration_ms": 0}


def test_the_top_models_and_agents_of_a_range(node, person):
    sent = Sent(node, person)
    noon = hour_of(utc_now()) - 3 * DAY
    for number in range(12):
        sent.send(noon + number * HOUR, agent_name=f"agent-{number:02}", model=f"model-{number:02}", provider="openai",
                  cost=0.5 if number < 2 else number / 100, input_tokens=number, output_tokens=2 * number,
                  duration_ms=0 if number % 2 else 1000 + number, **({"status": "error"} if number == 3 else {}))
    # The same model elsewhere is another one; an agent's models are added up; before the range nothing counts.
    sent.send(noon, agent_name="agent-11", model="model-11", provider="azure", cost=1, input_tokens=7, output_tokens=5, duration_ms=500)
    sent.send(noon - 20 * DAY, agent_name="agent-old", model="model-old", cost=50)
    sent.settle()

    def compare() -> None:
        stats = shown(person, "stats", range="7d")
        assert list(stats) == ["top_models", "top_agents", "range", "from", "to", "total_cost", "error_count", "success_rate", "avg_duration_ms"]
        whole = 1 + 0.5 * 2 + sum(range(2, 12)) / 100

        def model(number: int) -> dict:
            of = 0.5 if number < 2 else number / 100
            return {"model": f"model-{number:02}", "provider": "openai", "cost": of, "events": 1, "input_tokens": number,
                    "output_tokens": 2 * number, "pct": round(of / whole * 100, 1)}

        def agent(number: int) -> dict:
            of = 1.11 if number == 11 else model(number)["cost"]
            return {"agent_name": f"agent-{number:02}", "cost": of, "events": 2 if number == 11 else 1, "pct": round(of / whole * 100, 1)}

        azure = {"model": "model-11", "provider": "azure", "cost": 1, "events": 1, "input_tokens": 7, "output_tokens": 5,
                 "pct": round(100 / whole, 1)}
        assert stats["top_models"] == [azure] + [model(number) for number in (0, 1, 11, 10, 9, 8, 7, 6, 5)]
        assert stats["top_agents"] == [agent(number) for number in (11, 0, 1, 10, 9, 8, 7, 6, 5, 4)]
        assert (stats["range"], stats["from"], stats["to"]) == (
            "7d", text(midnight("UTC", sent.today() - 6 * DAY)), text(midnight("UTC", sent.today() + DAY)))
        assert stats["total_cost"] == pytest.approx(whole, rel=0, abs=1e-9)
        assert (stats["error_count"], stats["success_rate"]) == (1, 92.31)
        assert stats["avg_duration_ms"] == pytest.approx((6 * 1000 + 30 + 500) / 7)
        month = shown(person, "stats", range="30d")
        assert month["top_agents"][0] == {"agent_name": "agent-old", "cost": 50, "events": 1, "pct": round(5000 / (whole + 50), 1)}

    sent.of_one_moment(compare)


def test_sums_that_do_not_fit_are_the_greatest_that_do(node, person):
    sent = Sent(node, person)
    for hours in (1, 2, 3):
        sent.send(hour_of(utc_now()) - hours * HOUR - DAY, cost=9e9, input_tokens=2**62)
    sent.settle()
    person.post("/v1/org/budgets", {"budget_type": "cost", "period": "total", "limit_value": 1})
    overview = shown(person, "overview", range="30d")
    greatest = 2**63 - 1
    assert overview["range_spend"] == overview["total_spend_month"] == greatest / 1e9 and overview["range_input_tokens"] == greatest
    assert shown(person, "spend", granularity="daily")["total_cost"] == greatest / 1e9
    stats = shown(person, "stats", range="30d")
    assert (stats["total_cost"], stats["top_agents"][0]["pct"]) == (greatest / 1e9, 100)


# --- what they refuse --------------------------------------------------------------------------------------

@pytest.mark.parametrize("path", PATHS)
def test_only_a_person_may_see_it(node, person, path):
    key = person.post("/v1/keys", {}).json()["raw_key"]
    for token, detail in ((key, "Invalid or expired token"), ("", "Missing or malformed Authorization header")):
        answer = person.get(f"/v1/dashboard/{path}", token=token)
        assert (answer.status, answer.json()) == (401, {"detail": detail})
    wrong = person.post(f"/v1/dashboard/{path}")
    assert (wrong.status, wrong.headers["allow"]) == (405, "GET")


@pytest.mark.parametrize("path", ["overview", "stats"])
@pytest.mark.parametrize("query", [{}, {"from_date": "2026-05-25T00:00:00Z"}, {"to_date": "2026-05-25T00:00:00Z"}])
def test_a_custom_range_needs_both_ends(person, path, query):
    answer = ask(person, path, range="custom", **query)
    assert (answer.status, answer.json()) == (422, {"detail": "from_date and to_date are required when range=custom"})


@pytest.mark.parametrize("path", ["overview", "stats"])
def test_a_custom_range_does_not_end_before_it_begins(person, path):
    answer = ask(person, path, range="custom", from_date="2026-05-25T00:00:00.000001Z", to_date="2026-05-25T00:00:00Z")
    assert (answer.status, answer.json()) == (422, {"detail": "from_date must not be after to_date"})
    assert ask(person, path, range="custom", from_date="0001-01-01T00:00Z", to_date="9999-12-31T23:59:59.999999Z").status == 200


def parsing(name: str, sent: str) -> dict:
    return {"type": "value_error", "loc": ["query", name], "msg": "Value error, Invalid timestamp format. Use ISO 8601.",
            "input": sent, "ctx": {"error": {}}}


def literal(name: str, sent: str, expected: str) -> dict:
    return {"type": "literal_error", "loc": ["query", name], "msg": f"Input should be {expected}", "input": sent, "ctx": {"expected": expected}}


RANGES = "'today', '7d', '30d' or 'custom'"


@pytest.mark.parametrize("path, query, errors", [
    *((path, {"range": "90d"}, [literal("range", "90d", RANGES)]) for path in ("overview", "stats")),
    *((path, {"range": "", "from_date": "yesterday", "to_date": "2026-02-30T00:00:00Z"},
       [literal("range", "", RANGES), parsing("from_date", "yesterday"), parsing("to_date", "2026-02-30T00:00:00Z")])
      for path in ("overview", "stats")),
    # A date alone names no moment.
    *((path, {"range": "custom", "from_date": "2026-05-25", "to_date": "2026-05-26T00:00:00Z"}, [parsing("from_date", "2026-05-25")])
      for path in ("overview", "stats")),
    ("spend", {"granularity": "weekly"}, [literal("granularity", "weekly", "'hourly' or 'daily'")]),
    ("spend", {"days": "365"}, [{"type": "less_than_equal", "loc": ["query", "days"], "msg": "Input should be less than or equal to 90",
                                 "input": "365", "ctx": {"le": 90}}]),
    ("spend", {"days": "0"}, [{"type": "greater_than_equal", "loc": ["query", "days"], "msg": "Input should be greater than or equal to 1",
                               "input": "0", "ctx": {"ge": 1}}]),
    ("spend", {"days": "week"}, [{"type": "int_parsing", "loc": ["query", "days"],
                                  "msg": "Input should be a valid integer, unable to parse string as an integer", "input": "week"}]),
])
def test_what_is_no_query_is_refused(person, path, query, errors):
    answer = ask(person, path, **query)
    assert (answer.status, answer.json()) == (422, {"detail": errors})


def test_another_organization_sees_nothing_of_it(node, person, stranger):
    sent = Sent(node, person)
    sent.send(utc_now(), cost=3)
    sent.send(utc_now() - 3 * DAY, cost=4)
    sent.settle()
    overview = shown(stranger, "overview", range="30d")
    assert [overview[name] for name in ("events_month", "total_spend_month", "active_agents_month", "range_events", "range_spend")] == [0] * 5
    for granularity in ("hourly", "daily"):
        spend = shown(stranger, "spend", granularity=granularity, days=30)
        assert spend["total_cost"] == 0 and all(row["events"] == 0 for row in spend["series"])
    stats = shown(stranger, "stats", range="30d")
    assert (stats["top_models"], stats["top_agents"], stats["total_cost"]) == ([], [], 0)
