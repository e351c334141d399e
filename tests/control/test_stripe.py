"""Billing with Stripe: calls against Stripe's own mock server, and its signed events, once and in any order (contract/agentkavach.md section 8)."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from support import control, stripe
from support.kavachd import Kavachd, event
from support.postgres import PostgresKavachd


@pytest.fixture(scope="module")
def proxy():
    with stripe.StripeMock() as mock, stripe.StripeProxy(mock) as made:
        yield made


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def node(request, proxy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("node")
    settings = control.settings(folder) | stripe.settings(proxy.url)
    if request.param == "sqlite":
        made = Kavachd(folder, settings)
    else:
        made = PostgresKavachd(folder, settings, server=request.getfixturevalue("postgres_server").with_new_database())
    with made:
        yield made


@pytest.fixture(autouse=True)
def willing(proxy):
    yield
    proxy.refusal = 0


def send(node, body: bytes, **headers):
    sent = {"Stripe-Signature": stripe.signature(body), "Content-Type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    return node.request("POST", "/v1/billing/webhook", body, {n: v for n, v in sent.items() if v is not None})


def tell(node, *args, **more):
    answer = send(node, stripe.event(*args, **more))
    assert (answer.status, answer.body) == (200, b'{"received":true}'), answer.body


def plan(person) -> dict:
    return person.get("/v1/billing/plan").json()


class Bought:
    """A person whose checkout Stripe has told to be completed."""

    def __init__(self, node, person):
        self.node, self.person = node, person
        self.customer, self.id = stripe.new_id("cus"), stripe.new_id("sub")
        self.org = person.get("/v1/settings").json()["org_id"]
        session = person.post("/v1/billing/checkout", {"tier": "pro"})
        assert session.status == 200, session.body
        self.session = session.json()["session_id"]
        self.now = int(time.time())

    def complete(self) -> "Bought":
        tell(self.node, "checkout.session.completed",
             {"id": self.session, "customer": self.customer, "subscription": self.id}, created=self.now)
        return self

    def object(self, status: str = "active", tier: str = "pro", **more) -> dict:
        return {"id": self.id, "customer": self.customer, "status": status, "metadata": {"org_id": self.org},
                "pause_collection": None, "cancel_at_period_end": False, "trial_start": None, "trial_end": None,
                "current_period_start": self.now, "current_period_end": self.now + 30 * 86400,
                "items": {"data": [{"price": {"id": stripe.PRICES[tier]}}]}} | more

    def updated(self, *args, at: int = 0, **more) -> None:
        tell(self.node, "customer.subscription.updated", self.object(*args, **more), created=self.now + at)

    def invoice(self, paid: bool, id: str, at: int = 0, **more) -> None:
        tell(self.node, "invoice.payment_succeeded" if paid else "invoice.payment_failed",
             {"id": id, "customer": self.customer, "subscription": self.id, "currency": "usd", "amount_paid": 4900 if paid else 0,
              "amount_due": 4900, "hosted_invoice_url": "https://invoice.example/1"} | more, created=self.now + at)


@pytest.fixture
def bought(node, person) -> Bought:
    return Bought(node, person).complete()


# --- what is asked of Stripe -------------------------------------------------------------------------------


def test_a_checkout_is_stripes(node, proxy, person):
    answer = person.post("/v1/billing/checkout", {"tier": "max", "success_url": "https://app.example/ok?a=b&c=d"})
    assert answer.status == 200 and answer.json()["session_id"].startswith("cs_test_")
    assert answer.json()["checkout_url"].startswith("https://checkout.stripe.com/")
    method, path, form, headers = proxy.asked[-1]
    org = person.get("/v1/settings").json()["org_id"]
    assert (method, path) == ("POST", "/v1/checkout/sessions")
    assert form == {"mode": "subscription", "line_items[0][price]": stripe.PRICES["max"], "line_items[0][quantity]": "1",
                    "client_reference_id": org, "metadata[org_id]": org, "metadata[tier]": "max",
                    "subscription_data[metadata][org_id]": org, "subscription_data[metadata][tier]": "max",
                    "success_url": "https://app.example/ok?a=b&c=d",
                    "cancel_url": "http://localhost:3000/billing?checkout=cancelled", "customer_email": person.address}
    assert headers["authorization"] == f"Bearer {stripe.API_KEY}" and len(headers["idempotency-key"]) == 32
    assert plan(person)["tier"] == "free"


def test_without_the_development_path(person):
    for path, body in (("confirm-payment", {"session_id": "cs_dev_1"}), ("change-tier", {"tier": "max"})):
        answer = person.post(f"/v1/billing/{path}", body)
        assert (answer.status, answer.json()) == (403, {"detail": "Only available in development"})


def test_the_portal_is_the_customers(proxy, person, bought):
    answer = person.post("/v1/billing/portal", {"return_url": "https://app.example/back"})
    assert answer.status == 200 and answer.json()["portal_url"].startswith("https://")
    assert proxy.asked[-1][1:3] == ("/v1/billing_portal/sessions",
                                    {"customer": bought.customer, "return_url": "https://app.example/back"})


def test_the_life_cycle_is_told_to_stripe(proxy, person, bought):
    subscription = f"/v1/subscriptions/{bought.id}"
    for name, asked, then in (
            ("pause", ("POST", subscription, {"pause_collection[behavior]": "void"}), "paused"),
            ("resume", ("POST", subscription, {"pause_collection": ""}), "active"),
            ("cancel", ("DELETE", subscription, {}), "cancelled")):
        moved = person.post(f"/v1/billing/{name}")
        assert moved.status == 200 and moved.json()["subscription_status"] == then
        assert proxy.asked[-1][:3] == asked
    assert person.post("/v1/billing/reactivate").json()["subscription_status"] == "active"
    method, path, form, _ = proxy.asked[-1]
    assert (method, path) == ("POST", "/v1/subscriptions")
    assert form["customer"] == bought.customer and form["items[0][price]"] == stripe.PRICES["pro"]
    # What is told late of the old subscription does not touch the new one.
    tell(bought.node, "customer.subscription.deleted", bought.object("canceled"), created=bought.now + 60)
    assert plan(person)["subscription_status"] == "active"


def test_auto_renew_is_told_to_stripe(proxy, person, bought):
    assert person.post("/v1/billing/toggle-auto-renew").json() == {"auto_renew": False}
    assert proxy.asked[-1][1:3] == (f"/v1/subscriptions/{bought.id}", {"cancel_at_period_end": "true"})


@pytest.mark.parametrize("refusal, detail", [(402, "Stripe refused the request, nothing was changed"),
                                             (500, "Stripe could not be reached, nothing was changed. Retry later")])
def test_what_stripe_refuses_changes_nothing(node, proxy, person, bought, refusal, detail):
    was = plan(person)
    proxy.refusal = refusal
    for method, name in (("POST", "pause"), ("POST", "cancel"), ("POST", "toggle-auto-renew"), ("POST", "portal"),
                         ("DELETE", "delete-organization")):
        answer = person.ask(method, f"/v1/billing/{name}", {})
        assert (answer.status, answer.json()) == (502, {"detail": detail})
    assert plan(person) == was
    assert stripe.API_KEY not in node.log()


def test_a_request_that_failed_is_sent_again_as_the_same(proxy, person, bought):
    proxy.refusal, before = 503, len(proxy.asked)
    assert person.post("/v1/billing/pause").status == 502
    first, second = proxy.asked[before:]
    assert first[3]["idempotency-key"] == second[3]["idempotency-key"]


def test_of_pauses_at_the_same_time_stripe_hears_one(proxy, person, bought):
    before = len(proxy.asked)
    with ThreadPoolExecutor(4) as several:
        statuses = sorted(several.map(lambda _: person.post("/v1/billing/pause").status, range(4)))
    assert statuses == [200, 409, 409, 409] and len(proxy.asked) == before + 1


def test_who_has_a_subscription_changes_it_in_the_portal(person, bought):
    assert person.post("/v1/billing/checkout", {"tier": "max"}).status == 409


def test_a_deleted_organization_is_cancelled_at_stripe(proxy, person, bought):
    assert person.ask("DELETE", "/v1/billing/delete-organization").status == 204
    assert proxy.asked[-1][:2] == ("DELETE", f"/v1/subscriptions/{bought.id}")


# --- what Stripe tells -------------------------------------------------------------------------------------


def test_a_completed_checkout_is_the_tier(node, person, bought):
    now = plan(person)
    assert (now["tier"], now["subscription_status"], now["max_agents"]) == ("pro", "active", 100)


def test_the_subscription_is_followed(node, person, bought):
    key = person.post("/v1/keys").json()["raw_key"]
    bought.updated("trialing", "max", trial_start=bought.now, trial_end=bought.now + 3 * 86400, at=1)
    now = plan(person)
    assert (now["tier"], now["subscription_status"]) == ("max", "trialing")
    assert now["trial"]["active"] and now["trial"]["days_left"] == 3
    assert now["current_period_end"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(bought.now + 30 * 86400))
    bought.updated("active", pause_collection={"behavior": "void"}, at=2)
    assert plan(person)["subscription_status"] == "paused" and node.post([event()], key=key).status == 403
    bought.updated("past_due", cancel_at_period_end=True, at=3)
    now = plan(person)
    assert now["subscription_status"] == "past_due" and now["cancel_at_period_end"] and now["paused_at"] is None
    assert node.post([event()], key=key).status == 202
    tell(node, "customer.subscription.deleted", bought.object("canceled"), created=bought.now + 4)
    assert plan(person)["subscription_status"] == "cancelled" and node.post([event()], key=key).status == 403


def test_newer_api_versions_keep_the_period_with_the_item(person, bought):
    told = bought.object()
    item = told["items"]["data"][0] | {name: told.pop(name) + 86400 for name in ("current_period_start", "current_period_end")}
    tell(bought.node, "customer.subscription.updated", told | {"items": {"data": [item]}})
    assert plan(person)["current_period_start"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(bought.now + 86400))


def test_older_events_do_not_undo_newer_ones(node, person, bought):
    bought.updated("active", "max", at=20)
    bought.updated("past_due", "pro", at=10)
    assert (plan(person)["tier"], plan(person)["subscription_status"]) == ("max", "active")
    tell(node, "customer.subscription.deleted", bought.object("canceled"), created=bought.now + 30)
    bought.updated("active", at=31)
    assert plan(person)["subscription_status"] == "cancelled"


def test_events_before_the_checkouts_own_find_their_organization(node, person):
    early = Bought(node, person)
    early.invoice(True, stripe.new_id("in"), subscription_details={"metadata": {"org_id": early.org}})
    early.updated("active", "pro", at=1)
    early.complete()
    now = plan(person)
    assert (now["tier"], now["subscription_status"]) == ("pro", "active")
    assert person.get("/v1/billing/payments").json()["total"] == 1


def test_invoices_are_payments_and_each_is_there_once(person, bought):
    first, second = stripe.new_id("in"), stripe.new_id("in")
    bought.invoice(False, first, at=1)
    assert plan(person)["subscription_status"] == "past_due"
    bought.invoice(True, first, at=2)
    bought.invoice(False, first, at=1)  # another event of before, which comes late
    assert plan(person)["subscription_status"] == "active"
    bought.invoice(True, second, at=3)
    payments = person.get("/v1/billing/payments").json()
    assert payments["total"] == 2
    assert {p["status"] for p in payments["payments"]} == {"succeeded"}
    assert payments["payments"][0] | {"id": 0, "created_at": 0} == {
        "id": 0, "amount_usd": 49.0, "currency": "usd", "status": "succeeded", "tier": "pro",
        "description": "Subscription invoice", "invoice_url": "https://invoice.example/1", "created_at": 0}


def test_the_same_event_on_many_connections_counts_once(node, person, bought):
    body = stripe.event("invoice.payment_succeeded", {
        "id": stripe.new_id("in"), "customer": bought.customer, "subscription": bought.id, "currency": "usd", "amount_paid": 100})
    with ThreadPoolExecutor(8) as several:
        assert {answer.status for answer in several.map(lambda _: send(node, body), range(8))} == {200}
    assert person.get("/v1/billing/payments").json()["total"] == 1


def test_a_repeated_event_does_not_undo_what_came_between(node, person, bought):
    body = stripe.event("customer.subscription.updated", bought.object())
    assert send(node, body).status == 200
    assert person.post("/v1/billing/pause").status == 200
    assert send(node, body).status == 200
    assert plan(person)["subscription_status"] == "paused"


@pytest.mark.parametrize("type, object", [("customer.created", {"id": "cus_1"}),
                                          ("customer.subscription.updated", {"id": "sub_nobodys", "status": "active"}),
                                          ("checkout.session.completed", {"id": "cs_nobodys", "subscription": "sub_x"})])
def test_what_is_nobodys_is_taken_and_does_nothing(node, type, object):
    tell(node, type, object)


def test_only_what_stripe_signed_is_taken(node, person, bought):
    body = stripe.event("customer.subscription.deleted", bought.object("canceled"))
    now = int(time.time())
    good = stripe.signature(body)
    bad = {"none": None, "empty": "", "nonsense": "nonsense", "other secret": stripe.signature(body, secret="whsec_other"),
           "old": stripe.signature(body, at=now - 600), "ahead": stripe.signature(body, at=now + 600),
           "no time": good.split(",")[1], "no signature": good.split(",")[0], "v0": good.replace("v1=", "v0="),
           "other time": f"t={now - 1}," + good.split(",")[1], "upper case": good[:14] + good[14:].upper(),
           "short": good[:-1]}
    for name, header in bad.items():
        answer = send(node, body, Stripe_Signature=header)
        assert (answer.status, answer.json()) == (400, {"detail": "Invalid signature"}), name
    assert send(node, body + b" ", Stripe_Signature=good).status == 400
    assert plan(person)["subscription_status"] == "active"
    # While a secret is replaced Stripe signs with both.
    fresh = good.split(",")[0]
    several = f"{fresh},v1={'0' * 64},{good.split(',')[1]},v0=1"
    assert send(node, body, Stripe_Signature=several).status == 200
    assert plan(person)["subscription_status"] == "cancelled"


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"id":5}', json.dumps({"id": "evt_x", "type": "invoice.payment_failed"}).encode()])
def test_a_signed_body_that_is_no_event_is_refused(node, body):
    answer = send(node, body)
    assert (answer.status, answer.json()) == (400, {"detail": "Invalid event"})
