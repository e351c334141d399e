"""POST /v1/sync-config: what an SDK is set to takes the place of what it was (contract/agentkavach.md section 3)."""

import gzip
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.kavachd import Answer, event, wait_until

SLACK = "https://hooks.slack.com/services/T0/B0/verysecret"
BUDGETS = [
    {"budget_type": "cost", "period": "daily", "limit_value": 50.0, "unit": "usd"},
    {"budget_type": "tokens_total", "period": "per_run", "limit_value": 50000.0, "unit": "tokens"},
    {"budget_type": "calls", "period": "per_run", "limit_value": 100.0, "unit": "calls"},
    {"budget_type": "duration", "period": "per_run", "limit_value": 300000.0, "unit": "ms"},
    {"budget_type": "loops", "period": "per_run", "limit_value": 3.0, "unit": "loops"}]
ALERTS = [
    {"channel": "slack", "threshold_pct": 0.8, "budget_type": "cost", "target": SLACK},
    {"channel": "webhook", "threshold_pct": 0.9, "budget_type": "cost", "target": "https://example.com/x", "secret": "sssh"},
    {"channel": "kill", "threshold_pct": 1.0, "budget_type": "cost"}]
# What the SDK sends with no channels configured.
DEFAULTS = [{"channel": channel, "threshold_pct": threshold, "budget_type": "cost"} for channel, threshold in (
    ("email", 0.7), ("email", 0.9), ("slack", 0.9), ("email", 1.0), ("slack", 1.0), ("pagerduty", 1.0), ("kill", 1.0))]
BODY = {"agent_name": "research-bot", "budgets": BUDGETS, "alert_configs": ALERTS, "org_budget": None, "org_alert_configs": []}


class Agent:
    def __init__(self, node, person):
        self.node, self.person = node, person
        self.key = person.post("/v1/keys", {}).json()["raw_key"]
        self.org = person.get("/v1/settings").json()["org_id"]

    def ask(self, body, **more):
        return self.person.ask("POST", "/v1/sync-config", body, **({"token": self.key} | more))

    def sync(self, **changes) -> dict:
        answer = self.ask(BODY | changes)
        assert answer.status == 200, answer.body
        return answer.json()

    def rows(self, columns: str, table: str, where: str = "agent_name <> ''") -> list[tuple]:
        return [tuple(map(str, row)) for row in self.node.query(
            f"SELECT {columns} FROM {table} WHERE org_id = '{self.org}' AND {where} ORDER BY {columns}")]

    def ids(self) -> list:
        return [self.rows("id", table, "kind = 'ak'") for table in ("budgets", "alert_configs")]

    def directory_version(self) -> str:
        return str(self.node.query("SELECT version FROM directory_version")[0][0])

    def alerts(self) -> list[dict]:
        return self.person.get("/v1/alerts/configs").json()["configs"]


@pytest.fixture
def agent(node, person) -> Agent:
    return Agent(node, person)


def test_a_sync_is_stored(agent):
    assert agent.sync() == {"status": "ok", "agent_name": "research-bot", "budgets_synced": 5, "alert_configs_synced": 3,
                            "org_budget_synced": False, "org_alert_configs_synced": 0}
    assert [(type, period, float(limit), unit, source) for type, period, limit, unit, source in
            agent.rows("budget_type, period, limit_value, unit, source", "budgets")] == sorted(
        (b["budget_type"], b["period"], b["limit_value"], b["unit"], "sdk") for b in BUDGETS)
    shown = [(a["agent_name"], a["channel"], a["threshold_pct"], a["budget_type"], a["target"], a["has_secret"], a["source"])
             for a in agent.alerts()]
    assert shown == [("research-bot", "kill", 1, "cost", None, False, "sdk"),
                     ("research-bot", "slack", 0.8, "cost", "https://hooks.slack.com/***", False, "sdk"),
                     ("research-bot", "webhook", 0.9, "cost", "https://example.com/***", True, "sdk")]
    stored = str(agent.node.query("SELECT target_enc, secret_enc FROM alert_configs"))
    assert "verysecret" not in stored and "sssh" not in stored and "verysecret" not in agent.node.log()
    assert agent.rows("name, total_events", "agents", "killed_at_us IS NULL") == [("research-bot", "0")]


def test_the_same_again_writes_nothing(agent):
    everything = {"org_budget": BUDGETS[0], "org_alert_configs": ALERTS}
    agent.sync(**everything)
    before = agent.ids(), agent.directory_version(), agent.rows("updated_at_us", "budgets", "kind = 'ak'"), agent.rows(
        "target_enc", "alert_configs", "target_enc IS NOT NULL")
    agent.sync(**everything)
    assert before == (agent.ids(), agent.directory_version(), agent.rows("updated_at_us", "budgets", "kind = 'ak'"), agent.rows(
        "target_enc", "alert_configs", "target_enc IS NOT NULL"))


def test_the_last_sync_wins_and_what_stays_keeps_its_id(agent):
    agent.sync()
    kept = agent.rows("id", "budgets", "budget_type = 'cost'"), agent.rows("id", "alert_configs", "channels = 'webhook'")
    agent.sync(budgets=[BUDGETS[0] | {"limit_value": 7}], alert_configs=[ALERTS[1] | {"secret": None}])
    assert agent.rows("id, limit_value", "budgets")[0][0] == kept[0][0][0]
    assert float(agent.rows("limit_value", "budgets")[0][0]) == 7
    [alert] = agent.alerts()
    assert (alert["id"], alert["has_secret"]) == ("alert_" + kept[1][0][0], False)
    assert agent.sync(budgets=[], alert_configs=[])["budgets_synced"] == 0
    assert agent.ids() == [[], []]


def test_rows_without_target_and_rows_that_are_the_same(agent):
    assert agent.sync(alert_configs=DEFAULTS)["alert_configs_synced"] == 7
    assert all(alert["target"] is None for alert in agent.alerts())
    assert agent.sync(alert_configs=[ALERTS[0], ALERTS[0]], budgets=[BUDGETS[0]] * 2)["alert_configs_synced"] == 1
    assert len(agent.alerts()) == len(agent.rows("id", "budgets")) == 1


def test_only_the_name_is_needed(agent):
    answer = agent.ask({"agent_name": "x"})
    assert (answer.status, answer.json()["budgets_synced"]) == (200, 0)


def test_what_the_dashboard_made_stays_but_for_the_same_row(agent):
    slack = {"agent_name": "research-bot"} | ALERTS[0]
    made = [agent.person.post("/v1/alerts/configs", body).json() for body in (slack, slack | {"threshold_pct": 0.5})]
    agent.sync(budgets=[])
    sources = {alert["id"]: alert["source"] for alert in agent.alerts()}
    assert (sources[made[0]["id"]], sources[made[1]["id"]]) == ("sdk", "dashboard")
    agent.sync(alert_configs=[])
    assert agent.alerts() == [made[1]]


def test_a_budget_of_the_dashboard_stays_but_for_one_with_the_same_type_and_period(agent):
    agent.sync(budgets=[])
    for body in ({"budget_type": "cost", "period": "daily", "limit_value": 9},
                 {"budget_type": "calls", "period": "monthly", "limit_value": 8}):
        assert agent.person.post("/v1/agents/research-bot/budgets", body).status == 201
    [(kept,)] = agent.rows("id", "budgets", "budget_type = 'cost'")
    agent.sync(budgets=[BUDGETS[0]])
    shown = "budget_type, period, source"
    assert agent.rows(shown, "budgets") == [("calls", "monthly", "dashboard"), ("cost", "daily", "sdk")]
    assert agent.rows("id", "budgets", "limit_value = 50") == [(kept,)]
    agent.sync(budgets=[])
    assert agent.rows(shown, "budgets") == [("calls", "monthly", "dashboard")]


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip"])
def test_a_body_may_be_compressed(agent, coding):
    body = gzip.compress(json.dumps(BODY).encode())
    answer = agent.ask(body, Content_Encoding=coding)
    assert (answer.status, answer.json()["budgets_synced"]) == (200, 5), answer.body
    assert len(agent.rows("id", "budgets")) == 5


def test_a_body_that_is_not_what_its_coding_says_changes_nothing(agent):
    body = gzip.compress(json.dumps(BODY).encode())
    for coding, sent, status in (("gzip", body[:-9], 400), ("gzip", b"{}", 400), ("br", body, 415), ("", body, 422)):
        answer = agent.ask(sent, **({"Content_Encoding": coding} if coding else {}))
        assert answer.status == status, (coding, answer.body)
    assert agent.ids() == [[], []]


def test_an_org_budget_is_in_force_at_once(agent):
    answer = agent.sync(org_budget={"budget_type": "cost", "period": "daily", "limit_value": 0.5, "unit": "usd"},
                        alert_configs=[], org_alert_configs=ALERTS)
    assert (answer["org_budget_synced"], answer["org_alert_configs_synced"]) == (True, 3)
    [budget] = agent.person.get("/v1/org/budgets").json()["budgets"]
    assert (budget["limit_value"], budget["source"], budget["agent_name"]) == (0.5, "sdk", None)
    assert {alert["agent_name"] for alert in agent.alerts()} == {None}
    assert agent.node.post([event(cost=0.6)], key=agent.key).status == 202

    def refused() -> Answer | None:
        answer = agent.node.post([event(cost=0.6)], key=agent.key)
        return answer if answer.status == 429 else None

    # Spent where the organization is decided, which another shard's answer may be a moment ahead of.
    assert wait_until(refused, "the budget to be spent").json()["reason"] == "org_budget_exceeded"
    # Another agent without one leaves it alone.
    agent.ask({"agent_name": "other", "org_budget": None})
    assert agent.person.get("/v1/org/budgets").json()["budgets"][0]["id"] == budget["id"]
    assert len(agent.alerts()) == 3


def test_a_killed_agent_stays_killed(agent):
    agent.sync()
    agent.node.execute(f"UPDATE agents SET killed_at_us = 5 WHERE org_id = '{agent.org}'")
    agent.sync(budgets=[])
    assert agent.rows("killed_at_us", "agents", "1 = 1") == [("5",)]


def test_another_organization_is_untouched(agent, stranger):
    theirs = Agent(agent.node, stranger)
    theirs.sync(org_budget=BUDGETS[0], org_alert_configs=ALERTS)
    before = theirs.ids()
    agent.sync(budgets=[], alert_configs=[])
    assert theirs.ids() == before


def test_sixteen_at_once_all_succeed(agent):
    def one(number: int) -> int:
        order = 1 if number % 2 else -1
        return agent.ask(BODY | {"budgets": [b | {"limit_value": 1 + number} for b in BUDGETS[::order]], "org_budget": BUDGETS[0],
                                 "alert_configs": ALERTS[::order], "org_alert_configs": DEFAULTS[::order]}).status
    with ThreadPoolExecutor(16) as several:
        assert set(several.map(one, range(48))) == {200}
    assert len(agent.rows("id", "budgets")) == 5 and len(agent.alerts()) == 10


def error(place: list, type: str, msg: str, input, **ctx) -> dict:
    return {"type": type, "loc": ["body", *place], "msg": msg, "input": input} | ({"ctx": ctx} if ctx else {})


TYPES = "'cost', 'tokens_total', 'tokens_input', 'tokens_output', 'calls', 'duration' or 'loops'"
PERIODS = "'daily', 'monthly', 'total' or 'per_run'"
CHANNELS = "'email', 'slack', 'pagerduty', 'webhook' or 'kill'"


@pytest.mark.parametrize("changes, wrong", [
    ({"agent_name": 5}, error(["agent_name"], "string_type", "Input should be a valid string", 5)),
    ({"budgets": None}, error(["budgets"], "list_type", "Input should be a valid list", None)),
    ({"budgets": [BUDGETS[0] | {"limit_value": 0}]},
     error(["budgets", 0, "limit_value"], "greater_than", "Input should be greater than 0", 0, gt=0.0)),
    ({"budgets": [BUDGETS[0] | {"budget_type": "x"}]},
     error(["budgets", 0, "budget_type"], "literal_error", f"Input should be {TYPES}", "x", expected=TYPES)),
    ({"budgets": [BUDGETS[0] | {"period": "weekly"}]},
     error(["budgets", 0, "period"], "literal_error", f"Input should be {PERIODS}", "weekly", expected=PERIODS)),
    ({"alert_configs": [ALERTS[2], ALERTS[0] | {"threshold_pct": 80}]},
     error(["alert_configs", 1, "threshold_pct"], "less_than_equal", "Input should be less than or equal to 1", 80, le=1.0)),
    ({"alert_configs": [ALERTS[0] | {"threshold_pct": 0}]},
     error(["alert_configs", 0, "threshold_pct"], "greater_than", "Input should be greater than 0", 0, gt=0.0)),
    ({"org_alert_configs": [ALERTS[0] | {"channel": "sms"}]},
     error(["org_alert_configs", 0, "channel"], "literal_error", f"Input should be {CHANNELS}", "sms", expected=CHANNELS)),
    ({"org_budget": BUDGETS[0] | {"budget_type": "calls"}},
     error(["org_budget", "budget_type"], "literal_error", "Input should be 'cost'", "calls", expected="'cost'")),
])
def test_what_is_no_config_is_refused(agent, changes, wrong):
    answer = agent.ask(BODY | changes)
    assert (answer.status, answer.json()) == (422, {"detail": [wrong]})
    assert agent.ids() == [[], []]


def test_a_key_is_needed_and_a_token_is_none(agent):
    for token, detail in (("", "Missing or malformed Authorization header"), ("nonsense", "Missing or malformed Authorization header"),
                          (agent.person.token, "Missing or malformed Authorization header"),
                          ("ak_local_" + "0" * 64, "Invalid API key")):
        answer = agent.ask(BODY, token=token)
        assert (answer.status, answer.json()) == (401, {"detail": detail})
        assert answer.headers["www-authenticate"] == "Bearer"
    assert agent.ask(BODY, token="", X_API_Key=agent.key).status == 200


def test_a_revoked_key_is_counted(agent):
    [key] = agent.person.get("/v1/keys").json()["keys"]
    assert agent.person.ask("DELETE", f"/v1/keys/{key['id']}").status == 204
    assert agent.ask(BODY).json() == {"detail": "Invalid API key"}
    wait_until(lambda: agent.person.get("/v1/keys").json()["keys"][0]["auth_failures_count"] == 1, "the failure is counted")


@pytest.mark.parametrize("status", ["paused", "cancelled"])
def test_a_subscription_must_be_active(agent, status):
    agent.node.command("org", "set", "--org", agent.org, "--status", status)
    refused = wait_until(lambda: (answer := agent.ask(BODY)).status == 403 and answer, "the subscription is known")
    assert refused.json()["subscription_status"] == status
