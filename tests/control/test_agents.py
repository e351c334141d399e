"""Agents: what they used, their events, budgets and kill switch (contract/agentkavach.md section 6)."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from support.control import in_path
from support.kavachd import event, wait_until

SETTINGS = {"engine.shards": 2}
FIELDS = {"agent_name", "provider", "model", "total_events", "total_cost", "cost_today", "cost_week", "cost_month",
          "input_tokens_today", "output_tokens_today", "total_input_tokens", "total_output_tokens", "total_duration_ms",
          "range_events", "range_cost", "budget_limit_usd", "budget_used_pct", "status", "has_kill_switch", "last_active"}


def iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def midnight(zone: str = "UTC", days: int = 0) -> datetime:
    now = datetime.now(ZoneInfo(zone)) + timedelta(days=days)
    return now.replace(hour=0, minute=0, second=0, microsecond=0)


def of(name: str, at: datetime, **more) -> dict:
    return event(agent_name=name, timestamp=iso(at), run_id=more.pop("run_id", ...), **more)


def agents(person, **query) -> dict:
    path = "/v1/agents" + ("?" + "&".join(f"{key}={in_path(value)}" for key, value in query.items()) if query else "")
    answer = person.get(path)
    assert answer.status == 200, answer.body
    return answer.json()


def test_an_organization_without_agents_has_none(person):
    assert agents(person) == {"agents": [], "total": 0, "api_key_prefix": None, "tier": "free", "timezone": "UTC",
                              "rejected_agents": []}


def test_what_an_agent_used_is_summed_by_day_week_month_and_for_ever(person):
    now = datetime.now(UTC)
    person.send(of("a", now, cost=1, input_tokens=10, output_tokens=5, duration_ms=100),
                of("a", midnight(days=-3), cost=2, input_tokens=20, output_tokens=6, duration_ms=200),
                of("a", midnight(days=-6), cost=4), of("a", midnight(days=-7), cost=8), of("a", midnight(days=-29), cost=16),
                of("a", midnight(days=-30), cost=32, model="old"), of("b", now - timedelta(seconds=1), cost=40.5, provider="anthropic"))
    listed = agents(person)
    assert listed["total"] == 2 and listed["api_key_prefix"] == person.key[:16]
    b, a = listed["agents"]  # dearest of the month first
    assert set(a) == set(b) == FIELDS
    assert (a["agent_name"], a["total_events"], a["total_cost"]) == ("a", 6, 63)
    assert (a["cost_today"], a["cost_week"], a["cost_month"]) == (1, 7, 31)
    assert (a["range_events"], a["range_cost"]) == (5, 31)
    assert (a["input_tokens_today"], a["output_tokens_today"]) == (10, 5)
    assert (a["total_input_tokens"], a["total_output_tokens"]) == (30 + 4 * 1500, 11 + 4 * 800)
    assert a["total_duration_ms"] == 300 + 4 * 1250
    assert (a["status"], a["has_kill_switch"], a["budget_limit_usd"], a["budget_used_pct"]) == ("active", False, None, 0)
    assert a["provider"] == "openai" and a["model"] == "gpt-4o" and a["last_active"] == iso(now)
    assert (b["agent_name"], b["cost_month"], b["provider"]) == ("b", 40.5, "anthropic")


def test_a_range_holds_its_start_and_not_its_end(person):
    first = midnight(days=-3)
    person.send(of("a", first, cost=1), of("a", first + timedelta(hours=2), cost=2), of("a", first + timedelta(hours=4), cost=4))
    [agent] = agents(person, start=iso(first), end=iso(first + timedelta(hours=4)))["agents"]
    assert (agent["range_events"], agent["range_cost"]) == (2, 3)
    [agent] = agents(person, start=iso(first + timedelta(hours=2)))["agents"]
    assert (agent["range_events"], agent["range_cost"]) == (2, 6)
    [agent] = agents(person, end=iso(first - timedelta(days=1)))["agents"]
    assert (agent["range_events"], agent["range_cost"], agent["total_events"]) == (0, 0, 3)


def test_a_young_range_is_cut_at_the_minute(person):
    at = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)
    person.send(of("a", at + timedelta(minutes=9, seconds=59), cost=1), of("a", at + timedelta(minutes=10), cost=2),
                of("a", at + timedelta(minutes=100), cost=4), of("a", at + timedelta(minutes=130), cost=8))
    [agent] = agents(person, start=iso(at + timedelta(minutes=10)), end=iso(at + timedelta(minutes=130)))["agents"]
    assert (agent["range_events"], agent["range_cost"]) == (2, 6)


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata", "Pacific/Chatham", "Pacific/Kiritimati"])
def test_days_are_those_of_the_organizations_time_zone(person, zone):
    assert person.ask("PATCH", "/v1/settings", {"timezone": zone}).status == 200
    today = midnight(zone)
    person.send(of("a", today - timedelta(seconds=1), cost=1), of("a", min(today + timedelta(seconds=1), datetime.now(UTC)), cost=2))
    listed = agents(person)
    assert listed["timezone"] == zone
    assert (listed["agents"][0]["cost_today"], listed["agents"][0]["cost_week"]) == (2, 3)
    history = person.get("/v1/agents/a").json()["spend_history"]
    assert [day["cost"] for day in history] == [0, 0, 0, 0, 0, 1, 2]
    assert history[-1]["date"] == today.date().isoformat()


def test_a_zone_that_is_known_no_more_counts_as_utc(node, person):
    person.send(event(agent_name="a"))
    node.execute(f"UPDATE organizations SET timezone = 'Mars/Olympus' WHERE id = '{person.org_id}'")
    assert agents(person)["timezone"] == "UTC"
    for path in ("agents/a", "alerts?range=today", "dashboard/overview"):
        assert person.get(f"/v1/{path}").status == 200, path


def test_detail_has_models_history_budgets_and_rates(person):
    now = datetime.now(UTC)
    person.send(of("a", now, cost=1, model="m1", status="error", duration_ms=0),
                of("a", midnight(days=-1), cost=3, model="m2", provider="anthropic", duration_ms=100),
                of("a", midnight(days=-1), cost=0, model="m2", provider="anthropic", duration_ms=201), of("a", midnight(days=-40), cost=50))
    answer = person.get("/v1/agents/a")
    assert answer.status == 200, answer.body
    detail = answer.json()
    assert set(detail) == FIELDS | {"spend", "primary_model", "model_usage", "spend_history", "budgets", "killed_at",
                                    "error_count", "success_rate", "avg_duration_ms"}
    assert detail["spend"] == {"today": 1, "week": 4, "month": 4, "total": 54}
    assert detail["primary_model"] == "m2"
    assert detail["model_usage"] == [
        {"model": "m2", "provider": "anthropic", "events": 2, "cost": 3, "input_tokens": 3000, "output_tokens": 1600, "pct": 75},
        {"model": "m1", "provider": "openai", "events": 1, "cost": 1, "input_tokens": 1500, "output_tokens": 800, "pct": 25}]
    assert [(day["cost"], day["events"]) for day in detail["spend_history"]] == [(0, 0)] * 5 + [(3, 2), (1, 1)]
    assert [day["date"] for day in detail["spend_history"]] == [midnight(days=day).date().isoformat() for day in range(-6, 1)]
    assert (detail["error_count"], detail["success_rate"], detail["avg_duration_ms"]) == (1, 75, 150.5)
    assert detail["budgets"] == [] and detail["killed_at"] is None


@pytest.mark.parametrize("name", ["a b.c", "агент", "a/b", "100%", "kill-all", "?x=1&y#z", "'; DROP TABLE agents; --"])
def test_a_name_is_matched_as_it_is(person, name):
    person.send(of(name, datetime.now(UTC)))
    assert person.get(f"/v1/agents/{in_path(name)}").json()["agent_name"] == name
    assert person.get(f"/v1/agents/{in_path(name)}/events").json()["total"] == 1
    assert person.post(f"/v1/agents/{in_path(name)}/kill").json()["agent_name"] == name


EVENT = {"id", "agent_name", "provider", "model", "input_tokens", "output_tokens", "cost", "duration_ms", "status", "run_id",
         "prompt", "timestamp"}


def test_events_are_listed_newest_first_in_pages_and_filtered(person):
    first = midnight(days=-2) + timedelta(minutes=30)
    person.send(*[of("a", first + timedelta(minutes=20 * i), cost=i, status="error" if i % 3 == 0 else "success",
                     run_id="r" if i < 4 else ..., prompt="hi" if i == 9 else ...) for i in range(10)])
    person.send(of("other", first))

    def asked(query="") -> tuple[list, int]:
        answer = person.get("/v1/agents/a/events" + query)
        assert answer.status == 200, answer.body
        return [item["cost"] for item in answer.json()["events"]], answer.json()["total"]

    whole = person.get("/v1/agents/a/events").json()
    assert (whole["total"], whole["limit"], whole["offset"]) == (10, 50, 0)
    assert [item["cost"] for item in whole["events"]] == list(range(9, -1, -1))
    newest = whole["events"][0]
    assert set(newest) == EVENT and newest["id"].startswith("evt_") and newest["prompt"] == "hi" and newest["run_id"] is None
    assert newest["status"] == "error" and datetime.fromisoformat(newest["timestamp"]) == first + timedelta(minutes=180)
    assert asked("?limit=3&offset=2") == ([7, 6, 5], 10)
    assert asked("?status=error") == ([9, 6, 3, 0], 4)
    assert asked("?status=success&limit=1") == ([8], 6)
    assert asked("?run_id=r") == ([3, 2, 1, 0], 4)
    assert asked("?run_id=r&status=error") == ([3, 0], 2)
    edge = in_path(iso(first + timedelta(minutes=40)))
    assert asked(f"?start={edge}") == ([9, 8, 7, 6, 5, 4, 3, 2], 8)
    assert asked(f"?end={edge}") == ([1, 0], 2)
    assert asked(f"?start={edge}&status=error") == ([9, 6, 3], 3)
    assert asked(f"?start={edge}&end={edge}") == ([], 0)
    assert asked("?offset=100") == ([], 10)


def test_budgets_are_set_replaced_and_measured(person):
    now = datetime.now(UTC)
    person.send(of("a", now, cost=12.5, run_id="r1"), of("a", now, cost=0, duration_ms=500, run_id="r1"))
    path = "/v1/agents/a/budgets"
    assert person.get(path).json() == {"budgets": [], "total": 0}
    made = person.post(path, {"budget_type": "cost", "period": "daily", "limit_value": 50})
    assert made.status == 201
    budget = made.json()
    assert set(budget) == {"id", "agent_name", "budget_type", "period", "limit_value", "current_value", "usage_pct", "unit",
                           "source", "created_at", "updated_at"}
    assert budget["id"].startswith("budget_") and (budget["agent_name"], budget["unit"], budget["source"]) == ("a", "usd", "dashboard")
    assert (budget["current_value"], budget["usage_pct"], budget["limit_value"]) == (12.5, 25, 50)
    [agent] = agents(person)["agents"]
    assert (agent["budget_limit_usd"], agent["budget_used_pct"]) == (50, 25)
    again = person.post(path, {"budget_type": "cost", "period": "daily", "limit_value": 25}).json()
    assert (again["id"], again["usage_pct"]) == (budget["id"], 50)
    for kind, period, used, unit in (("calls", "per_run", 2, "calls"), ("duration", "total", 1750, "ms"), ("tokens_input", "monthly", 3000, "tokens"),
                                     ("tokens_output", "daily", 1600, "tokens"), ("tokens_total", "total", 4600, "tokens"), ("loops", "per_run", 0, "loops")):
        shown = person.post(path, {"budget_type": kind, "period": period, "limit_value": 10}).json()
        assert (shown["current_value"], shown["unit"]) == (used, unit), kind
    assert person.get(path).json()["total"] == 7
    assert len(person.get("/v1/agents/a").json()["budgets"]) == 7
    assert person.get("/v1/org/budgets").json()["total"] == 0


@pytest.mark.parametrize("body, error", [
    ({"period": "weekly", "budget_type": "cost", "limit_value": 1},
     {"type": "literal_error", "loc": ["body", "period"], "msg": "Input should be 'daily', 'monthly', 'total' or 'per_run'",
      "input": "weekly", "ctx": {"expected": "'daily', 'monthly', 'total' or 'per_run'"}}),
    ({"period": "daily", "budget_type": "cost", "limit_value": 0},
     {"type": "greater_than", "loc": ["body", "limit_value"], "msg": "Input should be greater than 0", "input": 0, "ctx": {"gt": 0.0}}),
    ({"period": "daily", "budget_type": "cost"},
     {"type": "missing", "loc": ["body", "limit_value"], "msg": "Field required", "input": {"period": "daily", "budget_type": "cost"}}),
])
def test_a_bad_budget_is_refused(person, body, error):
    person.send(of("a", datetime.now(UTC)))
    answer = person.post("/v1/agents/a/budgets", body)
    assert (answer.status, answer.json()) == (422, {"detail": [error]})
    assert person.get("/v1/agents/a/budgets").json()["total"] == 0


def test_a_killed_agent_is_refused_at_once_and_its_kill_is_an_alert(node, person):
    person.send(of("a", datetime.now(UTC)), of("b", datetime.now(UTC)))
    killed = person.post("/v1/agents/a/kill")
    assert killed.status == 200 and set(killed.json()) == {"agent_name", "status", "killed_at", "alert_id"}
    assert killed.json()["status"] == "killed" and killed.json()["alert_id"].startswith("alert_")
    with ThreadPoolExecutor(16) as pool:  # connections on both shards
        answers = list(pool.map(lambda _: node.post([of("a", datetime.now(UTC))], key=person.key), range(32)))
    for answer in answers:
        assert answer.status == 429
        assert answer.json()["reason"] == "tier_agent_limit" and answer.json()["rejected_agents"] == ["a"] and answer.json()["killed"] is True
    assert person.post("/v1/agents/a/kill").json() == killed.json()  # idempotent
    noted = node.query(f"SELECT channel, threshold, agent_name FROM alert_events WHERE org_id = '{person.org_id}'")
    assert noted == [("kill", 1.0, "a")]
    assert person.get("/v1/agents/a").json()["killed_at"] == killed.json()["killed_at"]
    assert {agent["agent_name"]: agent["status"] for agent in agents(person)["agents"]} == {"a": "killed", "b": "active"}

    revived = person.post("/v1/agents/a/reactivate")
    assert (revived.status, revived.json()) == (200, {"agent_name": "a", "status": "active"})
    person.send(of("a", datetime.now(UTC)))
    assert person.get("/v1/agents/a").json()["status"] == "active"


def test_kill_all_stops_the_agents_that_are_active(node, person):
    person.send(of("old", datetime.now(UTC)), of("b", datetime.now(UTC)), of("a", datetime.now(UTC)))
    node.execute(f"UPDATE agents SET last_received_us = last_received_us - 90000000000 WHERE org_id = '{person.org_id}' AND name = 'old'")
    answer = person.post("/v1/agents/kill-all")
    assert (answer.status, answer.json()) == (200, {"killed": ["a", "b"], "count": 2})
    assert {agent["agent_name"]: agent["status"] for agent in agents(person)["agents"]} == {"a": "killed", "b": "killed", "old": "inactive"}
    assert node.post([of("b", datetime.now(UTC))], key=person.key).status == 429
    assert person.post("/v1/agents/kill-all").json() == {"killed": [], "count": 0}


def test_agents_over_the_cap_are_listed_as_rejected(node, person):
    person.send(*[of(f"a{i}", datetime.now(UTC)) for i in range(3)])  # as many as the free tier has
    assert node.post([of("zz", datetime.now(UTC))], key=person.key).status == 429
    assert node.post([of("yy", datetime.now(UTC)), of("a1", datetime.now(UTC))], key=person.key).json()["rejected_agents"] == ["yy"]
    wait_until(lambda: agents(person)["rejected_agents"] == ["yy", "zz"], "the rejected agents are listed")
    listed = {agent["agent_name"]: agent for agent in agents(person)["agents"]}
    assert (listed["yy"]["status"], listed["yy"]["total_events"], listed["yy"]["last_active"]) == ("rejected", 0, None)
    assert listed["a1"]["status"] == "active"
    assert person.get("/v1/billing/plan").json()["active_agents"] == 3


READS = ["/v1/agents/x", "/v1/agents/x/events", "/v1/agents/x/budgets", "/v1/agents/x/runs"]


@pytest.mark.parametrize("path", READS)
def test_an_agent_of_another_organization_is_unknown(person, stranger, path):
    stranger.send(of("x", datetime.now(UTC)))
    assert stranger.get(path).status == 200
    answer = person.get(path)
    assert (answer.status, answer.json()) == (404, {"detail": "Agent not found"})


@pytest.mark.parametrize("path, body", [("/v1/agents/x/kill", {}), ("/v1/agents/x/reactivate", {}),
                                        ("/v1/agents/x/budgets", {"budget_type": "cost", "period": "daily", "limit_value": 1})])
def test_an_agent_of_another_organization_is_not_changed(node, person, stranger, path, body):
    stranger.send(of("x", datetime.now(UTC)))
    answer = person.post(path, body)
    assert (answer.status, answer.json()) == (404, {"detail": "Agent not found"})
    assert stranger.get("/v1/agents/x").json()["killed_at"] is None
    assert stranger.get("/v1/agents/x/budgets").json()["total"] == 0


@pytest.mark.parametrize("query, kind, name", [
    ("limit=0", "greater_than_equal", "limit"), ("limit=501", "less_than_equal", "limit"), ("limit=x", "int_parsing", "limit"),
    ("offset=-1", "greater_than_equal", "offset"), ("status=late", "literal_error", "status"), ("run_id=", "string_too_short", "run_id"),
    ("start=yesterday", "value_error", "start"), ("end=2026-13-01", "value_error", "end")])
def test_a_bad_query_is_refused(person, query, kind, name):
    person.send(of("a", datetime.now(UTC)))
    answer = person.get(f"/v1/agents/a/events?{query}")
    assert answer.status == 422
    assert [(error["type"], error["loc"]) for error in answer.json()["detail"]] == [(kind, ["query", name])]


@pytest.mark.parametrize("method, path", [("GET", "/v1/agents"), *(("GET", path) for path in READS), ("POST", "/v1/agents/x/kill"),
                                          ("POST", "/v1/agents/kill-all"), ("POST", "/v1/agents/x/reactivate"), ("POST", "/v1/agents/x/budgets")])
def test_another_credential_than_a_token_is_refused(person, method, path):
    key = person.post("/v1/keys", {}).json()["raw_key"]
    assert person.ask(method, path, token=key).status == 401
    assert person.ask(method, path, token="").json() == {"detail": "Missing or malformed Authorization header"}


def test_a_member_reads_and_changes_nothing(person):
    person.send(of("a", datetime.now(UTC)))
    person.become("member")
    assert person.get("/v1/agents/a").status == 200
    for path in ("/v1/agents/a/kill", "/v1/agents/kill-all", "/v1/agents/a/reactivate", "/v1/agents/a/budgets"):
        answer = person.post(path, {"budget_type": "cost", "period": "daily", "limit_value": 1})
        assert (answer.status, answer.json()) == (403, {"detail": "Insufficient permissions"})
    person.become("admin")
    assert person.post("/v1/agents/a/kill").status == 200
