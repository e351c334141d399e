"""What alerts say is what the SDK's own templates say."""

import json
import subprocess
from datetime import datetime, timezone

import pytest
from agentkavach.budget import Period
from agentkavach.channels import templates
from agentkavach.engine import ThresholdEvent

from support.kavachd import BUILD

BASE = "https://kavach.example"
FIRED = datetime(2026, 5, 25, 14, 30, tzinfo=timezone.utc)
PERIODS = {"daily": Period.DAILY, "monthly": Period.MONTHLY, "total": Period.TOTAL}


def micros(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000


def next_reset(period: str) -> int:
    now = datetime.now(timezone.utc)  # the SDK's template asks the clock
    if period == "daily":
        return micros(datetime(2026, 5, 26, tzinfo=timezone.utc))
    if period == "monthly":
        return micros(datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=timezone.utc))
    return 0


def messages(agent: str, budget_type: str, period: str, threshold: float, limit: float, used: float) -> list:
    done = subprocess.run([BUILD / "tests/message_probe", BASE, "Acme", agent, budget_type, period, repr(threshold),
                           repr(limit), repr(used), str(micros(FIRED)), str(next_reset(period))],
                          capture_output=True, check=True, timeout=60)
    return done.stdout.decode().splitlines()


AMOUNTS = [
    ("cost", 50.0, 35.0), ("cost", 0.001, 0.00098), ("cost", 1.0, 0.9999), ("cost", 0.00001, 0.000012),
    ("cost", 1234567.891, 0.0), ("cost", 0.01, 0.0100004), ("tokens_total", 1_000_000, 812_345),
    ("tokens_input", 999, 1_000), ("tokens_output", 123_456_789_012, 1), ("calls", 100, 90), ("calls", 1_000, 999),
    ("duration", 900, 899.6), ("duration", 59_960, 1_000), ("duration", 3_599_900, 125_500),
    ("duration", 90_061_000, 7_200_000), ("loops", 12, 5),
]


@pytest.mark.parametrize("period", PERIODS)
@pytest.mark.parametrize("threshold", [0.005, 0.7, 0.899, 0.9, 0.995, 1.0])
def test_messages_are_the_templates(period, threshold):
    for agent in ("research-bot", "agent_2.v1~x"):
        for budget_type, limit, used in AMOUNTS:
            event = ThresholdEvent(threshold=threshold, spent=used, limit=limit, agent_name=agent, budget_key=period)
            variables = templates.build_variables(event, PERIODS[period], BASE, budget_type)
            slack, pagerduty, webhook, mail = messages(agent, budget_type, period, threshold, limit, used)
            assert json.loads(slack) == templates.render_dict(templates.SLACK_DEFAULT_TEMPLATE, variables)
            assert json.loads(pagerduty) == templates.render_dict(templates.PAGERDUTY_DEFAULT_TEMPLATE, variables)
            expected = templates.render_dict(templates.WEBHOOK_DEFAULT_TEMPLATE, variables)
            expected["timestamp"] = "2026-05-25T14:30:00Z"
            assert webhook == json.dumps(expected, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            email = templates.render_dict(templates.EMAIL_DEFAULT_TEMPLATE, variables)
            mail = json.loads(mail)
            assert mail["subject"] == email["subject"]
            assert mail["text"] == email["body"]
            # The template's quotes end the attribute that they stand in.
            assert mail["html"] == email["html"].replace('\\"Segoe UI\\"', "'Segoe UI'")


@pytest.mark.parametrize("agent", ['<b>&"\\\n\x01', "*_`~ <!channel> <https://x|y>", "日本語/é", "🤖" * 3_000])
def test_a_name_leaves_the_form_as_it_is(agent):
    slack, pagerduty, webhook, mail = messages(agent, "cost", "daily", 0.9, 50.0, 45.0)
    slack, pagerduty, mail = json.loads(slack), json.loads(pagerduty), json.loads(mail)
    header, _, actions = slack["blocks"]
    assert "<" not in slack["text"] and len(slack["text"]) <= 4_100
    assert slack["text"].endswith(" at 90% of $50.00 daily Cost limit")
    assert len(header["text"]["text"]) <= 150 and header["text"]["text"].endswith(" — 90% of Cost limit")
    assert len(actions["elements"][0]["url"]) <= 3_000
    assert len(pagerduty["payload"]["summary"]) <= 1_024
    assert pagerduty["payload"]["summary"].endswith(" at 90% — $45.00/$50.00 (Cost)")
    name = agent if len(agent) <= 1_024 else agent[:1_023] + "…"
    assert json.loads(webhook)["agent"] == pagerduty["payload"]["custom_details"]["agent"] == name
    assert len(mail["subject"]) <= 255
    escaped = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    assert f"Your agent <strong>{escaped}</strong> has crossed" in mail["html"]
