"""Billing without Stripe: the plan, its life cycle in force on ingest at once, and the development path (contract/agentkavach.md section 8)."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from support.kavachd import event, wait_until

MOVES = ("pause", "resume", "cancel", "reactivate")


@pytest.fixture
def key(person) -> str:
    return person.post("/v1/keys").json()["raw_key"]


def move(person, name: str):
    return person.post(f"/v1/billing/{name}")


def status(person) -> str:
    return person.get("/v1/billing/plan").json()["subscription_status"]


def buy(person, tier: str = "pro") -> str:
    checkout = person.post("/v1/billing/checkout", {"tier": tier})
    assert checkout.status == 200, checkout.body
    return checkout.json()["session_id"]


def test_the_plan_of_a_new_organization(node, person, key):
    assert person.get("/v1/billing/plan").json() == {
        "tier": "free", "subscription_status": "active", "events_per_day": 1000, "max_agents": 3,
        "burst_per_minute": 1000, "retention_days": 7, "events_used_today": 0, "active_agents": 0,
        "price_usd_monthly": 0.0, "current_period_start": None, "current_period_end": None, "auto_renew": True,
        "cancel_at_period_end": False, "trial": {"active": False, "started_at": None, "ends_at": None, "days_left": 0},
        "paused_at": None, "cancelled_at": None}
    assert node.post([event(agent_name="a"), event(agent_name="b")], key=key).status == 202
    wait_until(lambda: person.get("/v1/billing/plan").json()["events_used_today"] == 2, "the events are counted")
    assert person.get("/v1/billing/plan").json()["active_agents"] == 2


def test_the_life_cycle_is_in_force_on_ingest_at_once(node, person, key):
    for name, then, ingest in (("pause", "paused", 403), ("resume", "active", 202), ("cancel", "cancelled", 403),
                               ("reactivate", "active", 202), ("pause", "paused", 403), ("reactivate", "active", 202),
                               ("pause", "paused", 403), ("cancel", "cancelled", 403)):
        moved = move(person, name)
        assert moved.status == 200, moved.body
        plan = moved.json()
        assert plan["subscription_status"] == then
        assert (plan["paused_at"] is not None) == (then == "paused")
        assert (plan["cancelled_at"] is not None) == (then == "cancelled")
        answer = node.post([event()], key=key)
        assert answer.status == ingest
        if ingest == 403:
            assert answer.json()["subscription_status"] == then
        assert person.get("/v1/keys").status == 200


@pytest.mark.parametrize("before, refused", [((), ("resume", "reactivate")), (("pause",), ("pause",)),
                                             (("cancel",), ("pause", "resume", "cancel"))])
def test_an_impossible_transition_changes_nothing(person, before, refused):
    for name in before:
        assert move(person, name).status == 200
    was = person.get("/v1/billing/plan").json()
    for name in refused:
        answer = move(person, name)
        assert answer.status == 409 and "cannot be" in answer.json()["detail"]
    assert person.get("/v1/billing/plan").json() == was


@pytest.mark.parametrize("name", ["pause", "cancel"])
def test_of_equal_moves_at_the_same_time_one_happens(person, name):
    with ThreadPoolExecutor(4) as several:
        statuses = sorted(answer.status for answer in several.map(lambda _: move(person, name), range(4)))
    assert statuses == [200, 409, 409, 409]


def test_pause_and_cancel_at_the_same_time_end_cancelled(person):
    with ThreadPoolExecutor(2) as several:
        pause, cancel = several.map(lambda name: move(person, name), ("pause", "cancel"))
    assert cancel.status == 200 and pause.status in (200, 409)
    assert status(person) == "cancelled"


def test_a_development_checkout_is_paid_once(node, person):
    session = buy(person)
    assert person.get("/v1/billing/plan").json()["tier"] == "free"
    with ThreadPoolExecutor(4) as several:
        answers = list(several.map(lambda _: person.post("/v1/billing/confirm-payment", {"session_id": session}), range(4)))
    assert {answer.status for answer in answers} == {200}
    plan = answers[0].json()
    assert (plan["tier"], plan["price_usd_monthly"], plan["max_agents"]) == ("pro", 49.0, 100)
    assert plan["current_period_start"] < plan["current_period_end"]
    payments = person.get("/v1/billing/payments").json()
    [payment] = payments["payments"]
    assert payments["total"] == 1 and payment.pop("id").startswith("pay_") and payment.pop("created_at").endswith("Z")
    assert payment == {"amount_usd": 49.0, "currency": "usd", "status": "succeeded", "tier": "pro",
                       "description": "Development checkout", "invoice_url": None}


def test_payments_are_listed_newest_first_up_to_a_limit(person):
    for tier in ("pro", "max"):
        assert person.post("/v1/billing/confirm-payment", {"session_id": buy(person, tier)}).status == 200
    assert [p["tier"] for p in person.get("/v1/billing/payments").json()["payments"]] == ["max", "pro"]
    limited = person.get("/v1/billing/payments?limit=1").json()
    assert len(limited["payments"]) == 1 and limited["total"] == 2
    assert person.get("/v1/billing/payments?limit=0").status == 422


def test_a_session_of_others_is_unknown(person, stranger):
    session = buy(stranger)
    for id in (session, "cs_dev_nothing"):
        answer = person.post("/v1/billing/confirm-payment", {"session_id": id})
        assert (answer.status, answer.json()) == (404, {"detail": "Checkout session not found"})
    assert stranger.get("/v1/billing/payments").json()["total"] == 0


def test_a_changed_tier_is_in_force_on_ingest(node, person, key):
    agents = [event(agent_name=f"agent-{i}") for i in range(4)]
    assert node.post(agents, key=key).json()["rejected"] == 1
    changed = person.post("/v1/billing/change-tier", {"tier": "max"})
    assert changed.status == 200 and changed.json()["tier"] == "max" and changed.json()["max_agents"] is None
    assert node.post([event(agent_name="agent-9")], key=key).status == 202


def test_auto_renew_is_of_paid_tiers(person):
    assert person.post("/v1/billing/toggle-auto-renew").status == 400
    person.post("/v1/billing/change-tier", {"tier": "pro"})
    assert person.post("/v1/billing/toggle-auto-renew").json() == {"auto_renew": False}
    plan = person.get("/v1/billing/plan").json()
    assert (plan["auto_renew"], plan["cancel_at_period_end"]) == (False, True)
    assert person.post("/v1/billing/toggle-auto-renew").json() == {"auto_renew": True}
    move(person, "cancel")
    assert person.post("/v1/billing/toggle-auto-renew").status == 409


def test_there_is_no_portal_before_a_checkout(person):
    assert person.post("/v1/billing/portal").status == 400


@pytest.mark.parametrize("path, body, loc", [
    ("checkout", {}, "tier"), ("checkout", {"tier": "free"}, "tier"),
    ("checkout", {"tier": "pro", "success_url": "javascript:alert(1)"}, "success_url"),
    ("portal", {"return_url": "ftp://x"}, "return_url"), ("confirm-payment", {}, "session_id"),
    ("change-tier", {"tier": "gold"}, "tier")])
def test_bad_input_is_named(person, path, body, loc):
    answer = person.post(f"/v1/billing/{path}", body)
    assert answer.status == 422 and answer.json()["detail"][0]["loc"] == ["body", loc]


def test_a_deleted_organization_is_gone_for_everybody(node, person, stranger, key):
    assert node.post([event()], key=key).status == 202
    gone = person.ask("DELETE", "/v1/billing/delete-organization")
    assert (gone.status, gone.body) == (204, b"")
    assert node.post([event()], key=key).status == 401
    assert person.get("/v1/keys").status == person.get("/v1/billing/plan").status == 401
    assert person.login().status == 401
    assert person.register().status == 409
    assert stranger.get("/v1/billing/plan").status == 200


ROWS = [("GET", "plan", None), ("POST", "checkout", {"tier": "pro"}), ("POST", "portal", {}),
        ("POST", "confirm-payment", {"session_id": "x"}), ("POST", "change-tier", {"tier": "pro"}),
        *(("POST", name, None) for name in MOVES), ("POST", "toggle-auto-renew", None), ("GET", "payments", None),
        ("DELETE", "delete-organization", None)]


@pytest.mark.parametrize("method, name, body", ROWS, ids=[name for _, name, _ in ROWS])
def test_billing_is_the_owners(node, person, method, name, body):
    for token in ("", node.key, "nonsense"):
        assert person.ask(method, f"/v1/billing/{name}", body, token=token).status == 401
    for role in ("member", "admin"):
        node.execute("UPDATE org_members SET role = '%s' WHERE user_id = (SELECT id FROM users WHERE email = '%s')"
                     % (role, person.address))
        answer = person.ask(method, f"/v1/billing/{name}", body)
        assert (answer.status, answer.json()) == (403, {"detail": "Insufficient permissions"})
