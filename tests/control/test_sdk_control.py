"""The unchanged SDK and the control API: what it says of itself at its start, and the switch that stops it."""

import pytest

from clients.openai_stub import OpenaiStub
from clients.sdk import Sdk
from support.kavachd import wait_until
from support.receivers import Receiver

# email at 0.7; email and slack at 0.9; email, slack, pagerduty and kill at 1.0
DEFAULT_ALERTS = [("email", 0.7), ("email", 0.9), ("email", 1.0), ("kill", 1.0), ("pagerduty", 1.0), ("slack", 0.9), ("slack", 1.0)]
SLACK = "https://hooks.slack.com/services/T/B/"
SETTINGS = {"alerts.allow_private_targets": True}


@pytest.fixture
def make_sdk(node, person, tmp_path):
    key = person.post("/v1/keys", {}).json()["raw_key"]
    made = []
    with OpenaiStub() as stub:

        def make() -> Sdk:
            made.append(Sdk(node, stub, tmp_path / f"home{len(made)}", key))
            return made[-1]

        yield make
        for sdk in made:
            sdk.kill()


def configs(person, agent: str) -> list[dict]:
    """Once there are any."""
    wait_until(lambda: person.get(f"/v1/agents/{agent}").status == 200, "the sync")
    return sorted(person.get(f"/v1/agents/{agent}/configs").json()["configs"], key=lambda row: (row["channel"], row["threshold_pct"]))


def test_defaults_are_synced(person, make_sdk):
    sdk = make_sdk()
    sdk.make("a")
    rows = configs(person, "a")
    assert [(row["channel"], row["threshold_pct"]) for row in rows] == DEFAULT_ALERTS
    assert all(row["target"] is None and row["source"] == "sdk" for row in rows)
    [budget] = person.get("/v1/agents/a/budgets").json()["budgets"]
    assert (budget["budget_type"], budget["period"], budget["limit_value"], budget["source"]) == ("cost", "daily", 100, "sdk")
    assert sdk.call("a") == "one two three"
    sdk.flush()
    wait_until(lambda: person.get("/v1/agents/a").json()["total_events"] == 1, "the event")
    assert sdk.end() == []


def test_channels_and_limits_of_the_customer_are_synced(person, make_sdk):
    make_sdk().make("a", budget=5, max_calls_per_run=10, max_runtime_seconds=2, channels=[
        {"channel_type": "slack", "threshold": 0.8, "webhook_url": SLACK + "one"},
        {"channel_type": "slack", "threshold": 0.8, "webhook_url": SLACK + "two"},
        {"channel_type": "webhook", "threshold": 0.9, "url": "https://example.com/hook", "secret": "s3cret"},
        {"channel_type": "kill", "threshold": 1.0}])
    rows = configs(person, "a")
    # The SDK gives both Slack channels the first one's target: that is one row.
    assert [(row["channel"], row["threshold_pct"], row["target"], row["has_secret"]) for row in rows] == [
        ("kill", 1.0, None, False), ("slack", 0.8, "https://hooks.slack.com/***", False), ("webhook", 0.9, "https://example.com/***", True)]
    budgets = person.get("/v1/agents/a/budgets").json()["budgets"]
    assert {(row["budget_type"], row["period"], row["limit_value"], row["unit"]) for row in budgets} == {
        ("cost", "daily", 5, "usd"), ("calls", "per_run", 10, "calls"), ("duration", "per_run", 2000, "ms")}


def test_an_org_budget_is_synced(person, make_sdk):
    make_sdk().make("a", org_budget=50, channels=[{"channel_type": "email", "threshold": 0.5, "to": "ops@example.com"}])
    wait_until(lambda: person.get("/v1/org/budgets").json()["total"] == 1, "the organization's budget")
    [budget] = person.get("/v1/org/budgets").json()["budgets"]
    assert (budget["agent_name"], budget["budget_type"], budget["period"], budget["limit_value"], budget["source"]) == (None, "cost", "daily", 50, "sdk")
    org_rows = [row for row in person.get("/v1/alerts/configs").json()["configs"] if row["agent_name"] is None]
    assert [(row["channel"], row["threshold_pct"], row["target"]) for row in org_rows] == [("email", 0.5, "ops@example.com")]


def test_the_kill_switch_stops_a_running_sdk_and_reactivate_lets_a_new_one_work(person, make_sdk):
    sdk = make_sdk()
    assert sdk.call("a") == sdk.call("b") == "one two three"
    sdk.flush()
    wait_until(lambda: person.get("/v1/agents").json()["total"] == 2, "the agents")
    assert person.post("/v1/agents/a/kill").status == 200
    # Its next event meets the refusal, and from then on the SDK stops that agent by itself.
    assert sdk.call("a") == "one two three"
    sdk.flush()
    assert sdk.call("a") == "IngestRejectedError"
    assert sdk.call("b") == "one two three"
    restarted = make_sdk()
    assert restarted.call("a") == "one two three"
    restarted.flush()
    assert restarted.call("a") == "IngestRejectedError"
    assert person.get("/v1/agents/a").json()["status"] == "killed"

    assert person.post("/v1/agents/a/reactivate").status == 200
    revived = make_sdk()
    for _ in range(2):
        assert revived.call("a") == "one two three"
        revived.flush()
    wait_until(lambda: person.get("/v1/agents/a").json()["total_events"] == 3, "the events of the agent that works again")
    assert revived.end() == []


def test_what_the_sdk_synced_is_told_by_the_server(person, make_sdk):
    with Receiver() as receiver:
        sdk = make_sdk()
        sdk.make("a", budget=0.00001, channels=[
            {"channel_type": "webhook", "threshold": 0.5, "url": receiver.url + "/hook", "secret": "s3cret"},
            {"channel_type": "slack", "threshold": 0.9, "webhook_url": receiver.url + "/slack"}])
        configs(person, "a")
        assert sdk.call("a") == "one two three"
        sdk.flush()
        wait_until(lambda: receiver.at("/hook") and receiver.at("/slack"), "both messages")
        assert len(receiver.received) == 2
        assert receiver.at("/hook")[0].json()["pct"] == "50" and "x-agentkavach-signature" in receiver.at("/hook")[0].headers
        wait_until(lambda: all(alert["delivered"] for alert in person.get("/v1/agents/a/alerts").json()["alerts"]), "both are delivered")
        assert sdk.end() == []
