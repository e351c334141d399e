"""Alerts and their configurations (contract/agentkavach.md sections 6 and 7)."""

import re
import time
import uuid

import pytest

from support.control import Dashboard, in_path
from support.kavachd import event, wait_until

SLACK = "https://user:word@hooks.slack.com/services/T0/B0/verysecret"
CONFIG = {"agent_name": "research bot/ü.1", "channel": "slack", "threshold_pct": 0.8, "target": SLACK}


def put(person, **changes) -> dict:
    answer = person.post("/v1/alerts/configs", CONFIG | changes)
    assert answer.status == 201, answer.body
    return answer.json()


def org_of(person) -> str:
    return person.get("/v1/settings").json()["org_id"]


def fire(node, person, agent: str | None = "a", ago_s: float = 0, channel: str = "slack") -> str:
    id = str(uuid.uuid4())
    name = "NULL" if agent is None else f"'{agent}'"
    node.execute(
        "INSERT INTO alert_events (id, org_id, agent_name, channel, threshold, budget_type, level, current_value, limit_value, "
        f"period, period_key, message, delivered, created_at_us) VALUES ('{id}', '{org_of(person)}', {name}, '{channel}', 0.8, "
        f"'cost', 'WARN', 40.5, 50, 'daily', '2026-05-25', '80% of Cost', 1, {int((time.time() - ago_s) * 1e6)})")
    return f"alert_{id}"


def make_agent(node, person, name: str) -> None:
    key = person.post("/v1/keys", {}).json()["raw_key"]
    assert node.post([event(agent_name=name)], key=key).status == 202
    wait_until(lambda: person.get(f"/v1/agents/{in_path(name)}/configs").status == 200, "the agent is stored")


def as_role(node, person, role: str) -> Dashboard:
    node.execute(f"UPDATE org_members SET role = '{role}' WHERE org_id = '{org_of(person)}'")
    person.token = person.login().json()["access_token"]
    return person


def test_a_configuration_is_made_and_shown_without_what_is_secret(node, person):
    made = put(person, secret="sssh-this-is-secret")
    assert re.fullmatch(r"alert_[0-9a-f-]{36}", made.pop("id"))
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT.*Z", made.pop("created_at"))
    assert made == {"agent_name": "research bot/ü.1", "channel": "slack", "threshold_pct": 0.8, "budget_type": "cost",
                    "target": "https://hooks.slack.com/***", "has_secret": True, "is_active": True, "source": "dashboard"}
    stored = str(node.query("SELECT target_enc, secret_enc, target_hash FROM alert_configs"))
    for secret in ("verysecret", "sssh"):
        assert secret not in stored and secret not in node.log()
    listed = person.get("/v1/alerts/configs").json()
    assert listed["total"] == 1 and listed["configs"][0].items() >= made.items()


@pytest.mark.parametrize("channel, target, shown", [
    ("email", "ops@example.com", "ops@example.com"), ("email", None, None), ("email", "", None), ("kill", None, None),
    ("pagerduty", "R0123456789abcdefWXYZ", "***WXYZ"), ("pagerduty", "short", "***"),
    ("webhook", "https://example.com:8443?token=secret", "https://example.com:8443/***")])
def test_a_target_is_masked_by_its_kind(person, channel, target, shown):
    assert put(person, channel=channel, target=target)["target"] == shown
    assert [config["target"] for config in person.get("/v1/alerts/configs").json()["configs"]] == [shown]


def test_the_same_configuration_keeps_its_id(person):
    first = put(person, secret="a")
    again = put(person)
    assert again == first
    assert put(person, secret="")["has_secret"] is False
    assert put(person, threshold_pct=80)["id"] == first["id"]  # as percent
    others = [put(person, threshold_pct=1.0), put(person, threshold_pct=100.0), put(person, budget_type="calls"),
              put(person, target=SLACK + "2"), put(person, agent_name="other")]
    assert others[0]["id"] == others[1]["id"] and others[0]["threshold_pct"] == 1.0
    assert len({config["id"] for config in others} | {first["id"]}) == 5
    assert person.get("/v1/alerts/configs").json()["total"] == 5


def without(name: str) -> dict:
    return {key: value for key, value in CONFIG.items() if key != name}


@pytest.mark.parametrize("body, error", [
    (without("agent_name"), {"type": "missing", "loc": ["body", "agent_name"], "msg": "Field required",
                             "input": without("agent_name")}),
    (CONFIG | {"agent_name": ""}, {"type": "string_too_short", "loc": ["body", "agent_name"],
                                   "msg": "String should have at least 1 character", "input": "", "ctx": {"min_length": 1}}),
    (CONFIG | {"channel": "sms"},
     {"type": "literal_error", "loc": ["body", "channel"],
      "msg": "Input should be 'email', 'slack', 'pagerduty', 'webhook' or 'kill'", "input": "sms",
      "ctx": {"expected": "'email', 'slack', 'pagerduty', 'webhook' or 'kill'"}}),
    (CONFIG | {"threshold_pct": 0}, {"type": "greater_than", "loc": ["body", "threshold_pct"],
                                     "msg": "Input should be greater than 0", "input": 0, "ctx": {"gt": 0.0}}),
    (CONFIG | {"threshold_pct": 100.5}, {"type": "less_than_equal", "loc": ["body", "threshold_pct"],
                                         "msg": "Input should be less than or equal to 100", "input": 100.5,
                                         "ctx": {"le": 100.0}}),
    (without("target"), {"type": "value_error", "loc": ["body", "target"],
                         "msg": "Value error, This channel needs a target.", "input": "", "ctx": {"error": {}}}),
])
def test_what_is_no_configuration_is_refused(person, body, error):
    answer = person.post("/v1/alerts/configs", body)
    assert (answer.status, answer.json()) == (422, {"detail": [error]})
    assert person.get("/v1/alerts/configs").json() == {"configs": [], "total": 0}


@pytest.mark.parametrize("channel", ["slack", "pagerduty", "webhook"])
def test_a_channel_needs_a_target(person, channel):
    assert person.post("/v1/alerts/configs", without("target") | {"channel": channel}).status == 422


@pytest.mark.parametrize("channel, target, fault", [
    ("slack", "hooks.slack.com/services/T/B/x", "an http:// or https:// URL"), ("webhook", "ftp://example.com/x", "an http:// or https:// URL"),
    ("webhook", "https://", "an http:// or https:// URL"), ("email", "ops.example.com", "an email address"),
    ("email", "ops@example.com, all@example.com", "an email address")])
def test_a_target_is_of_its_channels_kind(person, channel, target, fault):
    answer = person.post("/v1/alerts/configs", CONFIG | {"channel": channel, "target": target})
    assert answer.status == 422
    [error] = answer.json()["detail"]
    assert (error["type"], error["loc"], error["msg"]) == (
        "value_error", ["body", "target"], f"Value error, The target of this channel is {fault}.")


def test_an_agent_has_its_own(node, person, stranger):
    name = CONFIG["agent_name"]
    made, _ = put(person), put(person, agent_name="another")
    path = f"/v1/agents/{in_path(name)}"
    for what in ("configs", "alerts"):
        missing = person.get(f"{path}/{what}")
        assert (missing.status, missing.json()) == (404, {"detail": "Agent not found"})
    make_agent(node, person, name)
    assert person.get(f"{path}/configs").json() == {"configs": [made], "total": 1}
    fire(node, person, "another")
    first, second = fire(node, person, name, ago_s=100 * 86400), fire(node, person, name)
    shown = person.get(f"{path}/alerts").json()
    assert ([alert["id"] for alert in shown["alerts"]], shown["total"]) == ([second, first], 2)
    assert [alert["id"] for alert in person.get(f"{path}/alerts?limit=1").json()["alerts"]] == [second]
    bad = person.get(f"{path}/alerts?limit=201")
    assert (bad.status, bad.json()["detail"][0]["ctx"]) == (422, {"le": 200})
    assert stranger.get(f"{path}/alerts").status == stranger.get(f"{path}/configs").status == 404


def test_what_fired_is_listed_by_range(node, person, stranger):
    fire(node, stranger)
    ids = [fire(node, person, ago_s=days * 86400 - 60) for days in (8, 31, 91)]
    newest = fire(node, person, agent=None)
    shown = person.get("/v1/alerts").json()
    [alert] = shown.pop("alerts")
    assert shown == {"total": 1, "range": "7d"}
    assert alert.pop("created_at").endswith("Z")
    assert alert == {"id": newest, "agent_name": None, "channel": "slack", "threshold_pct": 0.8, "budget_type": "cost",
                     "level": "WARN", "current_value": 40.5, "limit_value": 50, "period": "daily", "period_key": "2026-05-25",
                     "message": "80% of Cost", "delivered": True, "error": None}
    for span, expected in (("today", [newest]), ("30d", [newest, ids[0]]), ("90d", [newest, *ids[:2]])):
        shown = person.get(f"/v1/alerts?range={span}").json()
        assert ([alert["id"] for alert in shown["alerts"]], shown["total"], shown["range"]) == (expected, len(expected), span)
    bad = person.get("/v1/alerts?range=1h")
    assert (bad.status, bad.json()["detail"]) == (422, [
        {"type": "literal_error", "loc": ["query", "range"], "msg": "Input should be 'today', '7d', '30d' or '90d'",
         "input": "1h", "ctx": {"expected": "'today', '7d', '30d' or '90d'"}}])


def test_another_organization_sees_and_changes_nothing(person, stranger):
    theirs = put(stranger)
    assert person.get("/v1/alerts/configs").json() == {"configs": [], "total": 0}
    assert put(person)["id"] != theirs["id"]
    assert stranger.get("/v1/alerts/configs").json() == {"configs": [theirs], "total": 1}


def test_a_member_reads_and_an_admin_writes(node, person):
    put(as_role(node, person, "admin"))
    as_role(node, person, "member")
    assert person.get("/v1/alerts/configs").json()["total"] == 1
    assert person.get("/v1/alerts").status == 200
    refused = person.post("/v1/alerts/configs", CONFIG)
    assert (refused.status, refused.json()) == (403, {"detail": "Insufficient permissions"})


@pytest.mark.parametrize("method, path", [("GET", "/v1/alerts"), ("GET", "/v1/alerts/configs"), ("POST", "/v1/alerts/configs"),
                                          ("GET", "/v1/agents/a/alerts"), ("GET", "/v1/agents/a/configs")])
def test_a_token_is_needed_and_an_api_key_is_none(node, person, method, path):
    for token in ("", node.key, "nonsense"):
        assert person.ask(method, path, CONFIG, token=token).status == 401
