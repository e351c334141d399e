"""Alerts from event to receiver (contract/agentkavach.md section 3.3): which rules fire, how often, and what arrives."""

import hashlib
import hmac
import json
import threading
import time
import uuid

import pytest

from support import control
from support.control import Dashboard
from support.kavachd import Kavachd, event, wait_until
from support.pipeline import Pipeline
from support.postgres import PostgresKavachd
from support.receivers import MailServer, Receiver


@pytest.fixture(scope="module")
def receiver():
    with Receiver() as made:
        yield made


@pytest.fixture(scope="module")
def mail_server():
    with MailServer() as made:
        yield made


def make_settings(folder, receiver: Receiver, mail_server: MailServer) -> dict:
    return control.settings(folder) | {
        "alerts.allow_private_targets": True, "alerts.pagerduty_url": receiver.url + "/v2/enqueue", "alerts.retry_ms": 100,
        "alerts.dashboard_url": "https://kavach.example", "control.secret_key": "a passphrase of the tests"}


def make_node(store: str, folder, settings: dict, request, server=None) -> Kavachd:
    if store == "sqlite":
        return Kavachd(folder, settings)
    server = server or request.getfixturevalue("postgres_server").with_new_database()
    return PostgresKavachd(folder, settings, server=server)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def node(request, tmp_path_factory, receiver, mail_server):
    folder = tmp_path_factory.mktemp("node")
    with make_node(request.param, folder, make_settings(folder, receiver, mail_server), request) as made:
        yield made


@pytest.fixture
def path() -> str:
    """Of the receiver, this test's own."""
    return f"/{uuid.uuid4().hex}"


def sync(person, agent: str, rules: list[dict], budgets=None, **more) -> None:
    person.send(event(agent_name=agent, cost=0))
    body = {"agent_name": agent, "budgets": budgets or [{"budget_type": "cost", "period": "daily", "limit_value": 10, "unit": "usd"}],
            "alert_configs": rules} | more
    answer = person.node.request("POST", "/v1/sync-config", json.dumps(body).encode(),
                                 {"Authorization": f"Bearer {person.key}", "Content-Type": "application/json"})
    assert answer.status == 200, answer.body


def rule(channel: str, threshold: float, target: str | None = None, **more) -> dict:
    return {"channel": channel, "threshold_pct": threshold, "budget_type": "cost"} | ({"target": target} if target else {}) | more


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def spend(person, agent: str, cost: float, count: int = 1, **more) -> None:
    person.send(*[event(agent_name=agent, cost=cost / count, timestamp=now(), **more) for _ in range(count)])


def alerts(person, agent: str) -> list[dict]:
    """Oldest first."""
    return person.get(f"/v1/agents/{agent}/alerts").json()["alerts"][::-1]


def wait_for_alerts(person, agent: str, count: int) -> list[dict]:
    wait_until(lambda: len(alerts(person, agent)) >= count, f"{count} alerts")
    return alerts(person, agent)


def settle(person, agent: str, receiver: Receiver) -> None:
    """Long enough for an alert too many: another rule, set after all of it, has fired and its message has arrived."""
    probe = f"/{uuid.uuid4().hex}"
    other = f"probe-{uuid.uuid4().hex[:8]}"
    sync(person, other, [rule("slack", 0.5, receiver.url + probe)])
    spend(person, other, 6)
    wait_until(lambda: receiver.at(probe), "the probe's message")


def test_thresholds_fire_in_their_order_and_once(person, receiver, path):
    sync(person, "a", [rule("slack", 0.5, receiver.url + path), rule("slack", 0.8, receiver.url + path), rule("slack", 1.0, receiver.url + path)])
    spend(person, "a", 4.9)
    settle(person, "a", receiver)
    assert alerts(person, "a") == []
    spend(person, "a", 3.2)
    wait_until(lambda: len(receiver.at(path)) == 2, "two messages")
    spend(person, "a", 0.1)
    settle(person, "a", receiver)
    fired = alerts(person, "a")
    assert [(one["threshold_pct"], one["level"], one["channel"]) for one in fired] == [(0.5, "WARN", "slack"), (0.8, "WARN", "slack")]
    first = fired[0]
    assert first["current_value"] == pytest.approx(8.1) and first["limit_value"] == 10 and first["period"] == "daily"
    assert first["period_key"] == now()[:10] and first["budget_type"] == "cost" and first["agent_name"] == "a"
    assert first["message"] == "a at 50% of $10.00 daily Cost limit"
    wait_until(lambda: all(one["delivered"] for one in alerts(person, "a")), "both are delivered")
    assert all(one["error"] is None for one in alerts(person, "a"))
    spend(person, "a", 2)
    wait_until(lambda: len(receiver.at(path)) == 3, "the third message")
    assert alerts(person, "a")[-1]["level"] == "CRITICAL"
    bodies = [one.json() for one in receiver.at(path)]
    assert [body["blocks"][0]["text"]["text"] for body in bodies] == [
        "[WARN] a — 50% of Cost limit", "[WARN] a — 80% of Cost limit", "[CRITICAL] a — 100% of Cost limit"]
    assert bodies[0]["blocks"][2]["elements"][0]["url"] == "https://kavach.example/dashboard/agents/a"


def test_concurrent_batches_on_all_shards_fire_each_channel_once(node, person, receiver, path):
    key = "R0123456789abcdef"
    sync(person, "a", [rule("slack", 0.5, receiver.url + path), rule("webhook", 0.5, receiver.url + path + "w"),
                       rule("pagerduty", 0.5, key + path), rule("kill", 0.5)])
    bodies = [[event(agent_name="a", cost=0.05, timestamp=now()) for _ in range(20)] for _ in range(40)]

    def send(mine):
        for events in mine:
            assert node.post(events, key=person.key).status == 202

    threads = [threading.Thread(target=send, args=(bodies[i::8],)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    person.sent += 800
    fired = wait_for_alerts(person, "a", 4)
    settle(person, "a", receiver)
    assert sorted(one["channel"] for one in alerts(person, "a")) == ["kill", "pagerduty", "slack", "webhook"], fired
    assert len(receiver.at(path)) == 1 and len(receiver.at(path + "w")) == 1
    assert len([one for one in receiver.at("/v2/enqueue") if one.json()["routing_key"] == key + path]) == 1
    assert person.get("/v1/agents/a").json()["status"] == "active"  # the SDK stops it, not ingest


def test_a_webhook_is_signed_and_says_what_the_contract_says(person, receiver, path):
    sync(person, "ü <b>", [rule("webhook", 0.9, receiver.url + path, secret="sssh")])
    spend(person, "ü <b>", 9.5)
    wait_until(lambda: receiver.at(path), "the webhook")
    [got] = receiver.at(path)
    signature = "sha256=" + hmac.new(b"sssh", got.body, hashlib.sha256).hexdigest()
    assert got.headers["x-agentkavach-signature"] == signature
    assert abs(int(got.headers["x-agentkavach-timestamp"]) - time.time()) < 60
    assert got.headers["content-type"] == "application/json"
    body = got.json()
    assert abs(time.time() - time.mktime(time.strptime(body.pop("timestamp")[:19], "%Y-%m-%dT%H:%M:%S")) + time.timezone) < 60
    assert body == {"event": "threshold.breach", "level": "ALERT", "agent": "ü <b>", "budget_type": "Cost", "limit": "$10.00",
                    "current": "$9.50", "pct": "90", "period": "daily", "remaining": "$0.5000"}
    assert got.body.decode() == json.dumps(got.json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def test_pagerduty_gets_the_key_that_the_store_does_not_show(node, person, receiver):
    key = uuid.uuid4().hex
    sync(person, "a", [rule("pagerduty", 1.0, key)])
    spend(person, "a", 10)
    wait_until(lambda: any(one.json()["routing_key"] == key for one in receiver.at("/v2/enqueue")), "the message")
    [got] = [one.json() for one in receiver.at("/v2/enqueue") if one.json()["routing_key"] == key]
    assert got["event_action"] == "trigger" and got["payload"]["severity"] == "critical" and got["payload"]["source"] == "agentkavach"
    assert got["payload"]["summary"] == "AgentKavach: a at 100% — $10.00/$10.00 (Cost)"
    assert key not in str(node.query("SELECT * FROM deliveries")) and key not in node.log()


def test_a_rule_without_a_target_uses_what_there_is(person):
    sync(person, "a", [rule("slack", 0.5), rule("email", 0.5)])
    spend(person, "a", 6)
    wait_for_alerts(person, "a", 2)
    by_channel = lambda: {one["channel"]: one for one in alerts(person, "a")}
    assert not by_channel()["slack"]["delivered"] and "no target" in by_channel()["slack"]["error"]
    # A mail goes to the owner.
    wait_until(lambda: by_channel()["email"]["delivered"], "the mail")
    [mail] = [mail for mail in person.mails() if "Cost budget" in mail["Subject"]]
    assert mail["Subject"] == "[WARN] a — 50% of Cost budget"


def test_a_budget_of_the_organization_counts_all_agents(person, receiver, path):
    sync(person, "a", [], org_budget={"budget_type": "cost", "period": "daily", "limit_value": 10, "unit": "usd"},
         org_alert_configs=[rule("webhook", 0.8, receiver.url + path)])
    spend(person, "a", 5)
    settle(person, "a", receiver)  # spends 6 with another agent
    wait_until(lambda: receiver.at(path), "the organization's alert")
    [got] = receiver.at(path)
    assert got.json()["agent"] is None and got.json()["pct"] == "80"

    def of_the_organization() -> dict:
        [fired] = [one for one in person.get("/v1/alerts").json()["alerts"] if one["agent_name"] is None]
        return fired

    assert of_the_organization()["current_value"] == pytest.approx(11)
    wait_until(lambda: of_the_organization()["delivered"], "the receiver's answer is noted")


def test_each_run_has_its_budget(person, receiver, path):
    sync(person, "a", [rule("slack", 1.0, receiver.url + path, budget_type="calls")],
         budgets=[{"budget_type": "calls", "period": "per_run", "limit_value": 3, "unit": "calls"}])
    run = uuid.uuid4().hex
    spend(person, "a", 0.1, count=2, run_id="other" + run)
    spend(person, "a", 0.1, count=3, run_id=run)
    [fired] = wait_for_alerts(person, "a", 1)
    assert fired["period_key"] == f"run:{run}" and fired["period"] == "per_run" and fired["current_value"] == 3
    # Within five minutes another run fires nothing.
    spend(person, "a", 0.1, count=3, run_id="third" + run)
    settle(person, "a", receiver)
    assert len(alerts(person, "a")) == 1


def test_a_sync_that_replaces_the_rules_does_not_fire_them_again(person, receiver, path):
    rules = [rule("slack", 0.5, receiver.url + path)]
    sync(person, "a", rules)
    spend(person, "a", 6)
    wait_for_alerts(person, "a", 1)
    sync(person, "a", [])
    sync(person, "a", rules)
    spend(person, "a", 0.5)
    settle(person, "a", receiver)
    assert len(alerts(person, "a")) == 1 and len(receiver.at(path)) == 1


def test_who_fired_a_moment_ago_is_silent_for_five_minutes(node, person, receiver, path):
    sync(person, "a", [rule("slack", 0.5, receiver.url + path)])
    spend(person, "a", 6)
    wait_for_alerts(person, "a", 1)
    # As if it had been yesterday: the day's alert is to come, once it was silent for long enough.
    scope = f"scope_key LIKE '{person.org_id}/%'"
    node.execute(f"UPDATE alert_fired SET period_key = '2020-01-01' WHERE period_key LIKE '20%' AND {scope}")
    spend(person, "a", 0.1)
    settle(person, "a", receiver)
    assert len(alerts(person, "a")) == 1
    node.execute(f"UPDATE alert_fired SET fired_at_us = fired_at_us - 300000000 WHERE {scope}")
    spend(person, "a", 0.1)
    assert len(wait_for_alerts(person, "a", 2)) == 2


def test_a_target_that_wants_it_later_gets_it_later(person, receiver, path):
    receiver.answers[path] = 503
    sync(person, "a", [rule("slack", 0.5, receiver.url + path)])
    spend(person, "a", 6)
    wait_until(lambda: len(receiver.at(path)) >= 2, "a second try")
    [fired] = alerts(person, "a")
    assert not fired["delivered"] and fired["error"] == "the target answered 503"
    receiver.answers[path] = 200
    wait_until(lambda: alerts(person, "a")[0]["delivered"], "it is delivered", patience_s=90)
    assert alerts(person, "a")[0]["error"] is None


def test_a_target_that_refuses_is_not_asked_again(node, person, receiver, path):
    receiver.answers[path] = 404
    sync(person, "a", [rule("webhook", 0.5, receiver.url + path)])
    spend(person, "a", 6)
    wait_until(lambda: alerts(person, "a") and alerts(person, "a")[0]["error"], "the refusal")
    settle(person, "a", receiver)
    assert alerts(person, "a")[0]["error"] == "the target answered 404" and len(receiver.at(path)) == 1
    [(status, tries)] = node.query(f"SELECT status, attempts FROM deliveries WHERE org_id = '{person.org_id}' AND channel = 'webhook'")
    assert (status, tries) == ("failed", 1)
    assert path not in node.log()


def test_metrics_tell(node, person, receiver, path):
    before = node.metric("kavach_alerts_fired_total")
    sync(person, "a", [rule("slack", 0.5, receiver.url + path)])
    spend(person, "a", 6)
    wait_until(lambda: receiver.at(path), "the message")
    wait_until(lambda: node.metric("kavach_alerts_fired_total") > before, "the count")
    wait_until(lambda: node.metric("kavach_alert_deliveries_total", result="delivered") >= 1, "the count")


# --- with settings, or a life, of their own ---------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgres"])
def make(request, tmp_path, receiver, mail_server):
    """Makes a node with these settings; not started."""
    made = []

    def make(**settings) -> Kavachd:
        folder = tmp_path / f"node{len(made)}"
        all_of_them = make_settings(folder, receiver, mail_server) | {name.replace("__", "."): value for name, value in settings.items()}
        server = made[0].server if made and request.param == "postgres" else None
        made.append(make_node(request.param, folder, all_of_them, request, server))
        return made[-1]

    make.store = request.param
    return make


def test_what_could_not_be_delivered_is_delivered_after_a_restart(make):
    path = f"/{uuid.uuid4().hex}"
    away = Receiver()
    with make() as node:
        person = Dashboard(node).sign_up()
        sync(person, "a", [rule("slack", 0.5, away.url + path)])
        spend(person, "a", 6)
        wait_until(lambda: alerts(person, "a") and alerts(person, "a")[0]["error"], "it failed once")
        node.kill()
        node.start()
        with away:
            wait_until(lambda: alerts(person, "a")[0]["delivered"], "it is delivered", patience_s=90)
            assert len(away.at(path)) == 1


def test_a_rule_that_was_crossed_while_nobody_watched_fires_at_the_start(make, receiver):
    path = f"/{uuid.uuid4().hex}"
    with make() as node:
        person = Dashboard(node).sign_up()
        sync(person, "a", [rule("slack", 0.9, receiver.url + path)])
        spend(person, "a", 6)
        node.stop()
        node.execute("UPDATE alert_configs SET threshold = 0.5")
        node.start()
        wait_until(lambda: receiver.at(path), "the alert")


def test_two_nodes_on_one_database_fire_and_deliver_once(make, receiver):
    if make.store == "sqlite":
        pytest.skip("one node at a time has a SQLite file's events")
    path = f"/{uuid.uuid4().hex}"
    with make() as one, make() as two:
        person = Dashboard(one).sign_up()
        sync(person, "a", [rule("slack", part / 100, receiver.url + path) for part in range(1, 21)])
        wait_until(lambda: two.post([event(agent_name="a", cost=0)], key=person.key).status == 202, "the key is known")
        bodies = [[event(agent_name="a", cost=0.01, timestamp=now()) for _ in range(10)] for _ in range(60)]

        def send(node, mine):
            for events in mine:
                assert node.post(events, key=person.key).status == 202

        threads = [threading.Thread(target=send, args=((one, two)[i % 2], bodies[i::4])) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_until(lambda: len(receiver.at(path)) >= 20, "twenty messages")
        wait_until(lambda: all(alert["delivered"] for alert in alerts(person, "a")), "all are delivered")
        time.sleep(1)
        assert len(alerts(person, "a")) == 20
        headers = [got.json()["blocks"][0]["text"]["text"] for got in receiver.at(path)]
        assert len(headers) == len(set(headers)) == 20


def test_private_targets_are_refused_unless_allowed(make, receiver):
    path = f"/{uuid.uuid4().hex}"
    with make(alerts__allow_private_targets=False) as node:
        person = Dashboard(node).sign_up()
        sync(person, "a", [rule("webhook", 0.5, receiver.url + path)])
        spend(person, "a", 6)
        wait_until(lambda: alerts(person, "a") and alerts(person, "a")[0]["error"], "the refusal")
        assert "private" in alerts(person, "a")[0]["error"] or "public" in alerts(person, "a")[0]["error"]
        assert receiver.at(path) == []


def test_a_kill_rule_may_stop_the_agent_on_the_server(make):
    with make(alerts__kill_on_server=True) as node:
        person = Dashboard(node).sign_up()
        sync(person, "a", [rule("kill", 1.0)])
        spend(person, "a", 10)
        wait_until(lambda: person.get("/v1/agents/a").json()["status"] == "killed", "it is killed")
        refused = lambda: node.post([event(agent_name="a", cost=0)], key=person.key)
        wait_until(lambda: refused().status == 429, "ingest refuses it")
        [fired] = [one for one in alerts(person, "a") if one["channel"] == "kill"]
        assert fired["delivered"] and fired["threshold_pct"] == 1.0
        assert person.post("/v1/agents/a/reactivate").status in (200, 404)


def test_targets_of_the_settings_are_for_rules_without_one(make, receiver):
    path, key = f"/{uuid.uuid4().hex}", uuid.uuid4().hex
    with make(alerts__slack_webhook_url=receiver.url + path, alerts__pagerduty_routing_key=key, alerts__email="all@example.com") as node:
        person = Dashboard(node).sign_up()
        sync(person, "a", [rule("slack", 0.5), rule("pagerduty", 0.5), rule("email", 0.5)])
        spend(person, "a", 6)
        wait_for_alerts(person, "a", 3)
        wait_until(lambda: all(one["delivered"] for one in alerts(person, "a")), "all three are delivered")
        assert len(receiver.at(path)) == 1
        assert [one for one in receiver.at("/v2/enqueue") if one.json()["routing_key"] == key]
        assert [mail for mail in Dashboard(node, "all@example.com").mails()]
        assert path not in node.log() and key not in node.log()


def test_mail_goes_by_smtp(make, mail_server):
    with make() as node:
        person = Dashboard(node).sign_up()  # with the outbox
        node.stop()
        node.settings |= {"mail.kind": "smtp", "mail.smtp_url": mail_server.url, "mail.smtp_security": "none",
                          "mail.from": "Kavach <alerts@kavach.example>"}
        node.start()
        sync(person, "a", [rule("email", 0.5, "ops@example.com"), rule("email", 0.6, "nobody@refused.example")])
        spend(person, "a", 7)
        fired = wait_for_alerts(person, "a", 2)
        wait_until(lambda: alerts(person, "a")[0]["delivered"] and alerts(person, "a")[1]["error"], "both are settled")
        assert fired[0]["threshold_pct"] == 0.5 and not alerts(person, "a")[1]["delivered"]
        mail = mail_server.to("ops@example.com")[-1]
        assert mail["Subject"] == "[WARN] a — 50% of Cost budget" and mail["From"] == "Kavach <alerts@kavach.example>"
        assert "Current:    $7.00" in mail.get_body(("plain",)).get_content()
        assert "<strong>50%</strong>" in mail.get_body(("html",)).get_content()


def test_mail_goes_by_an_http_api(make, receiver):
    with make() as node:
        person = Dashboard(node).sign_up()
        node.stop()
        node.settings |= {"mail.kind": "resend", "mail.resend_url": receiver.url, "mail.resend_api_key": "re_secret"}
        node.start()
        sync(person, "a", [rule("email", 0.5, "ops@example.com")])
        before = len(receiver.at("/emails"))
        spend(person, "a", 6)
        wait_until(lambda: len(receiver.at("/emails")) > before, "the mail")
        got = receiver.at("/emails")[-1]
        assert got.headers["authorization"] == "Bearer re_secret"
        assert got.json()["to"] == ["ops@example.com"] and got.json()["subject"] == "[WARN] a — 50% of Cost budget"


def test_a_writer_fires_and_announces_in_kafka(tmp_path, kafka, postgres_server, receiver):
    """Where events go through Kafka, whoever carries them into the store watches the rules."""
    path = f"/{uuid.uuid4().hex}"
    pipeline = Pipeline(tmp_path, kafka, postgres_server.with_new_database())
    shared = {"alerts.allow_private_targets": True, "control.secret_key": "the fleet's"}
    try:
        node = pipeline.add_node(**shared, **control.settings(tmp_path))
        writer = pipeline.add_writer(**shared)
        person = Dashboard(node).sign_up()
        sync(person, "a", [rule("slack", 0.5, receiver.url + path), rule("kill", 0.5)])
        spend(person, "a", 6)
        wait_until(lambda: receiver.at(path), "the message")
        topic = node.settings["kafka.alerts_topic"]
        wait_until(lambda: sum(kafka.ends(topic).values()) == 2, "both are announced")
        told = sorted((json.loads(record.value) for record in kafka.records(topic)), key=lambda one: one["channel"])
        assert {record.key.decode() for record in kafka.records(topic)} == {person.org_id}
        assert [(one["channel"], one["threshold"], one["current"], one["limit"], one["budget_type"]) for one in told] == [
            ("kill", 0.5, 6.0, 10.0, "cost"), ("slack", 0.5, 6.0, 10.0, "cost")]
        assert told[0] | {"timestamp": ""} == {
            "event": "threshold.breach", "org_id": person.org_id, "agent_name": "a", "channel": "kill", "threshold": 0.5, "level": "WARN",
            "budget_type": "cost", "period": "daily", "period_key": now()[:10], "current": 6.0, "limit": 10.0, "timestamp": ""}
        assert writer.metric("kavach_alerts_fired_total") == 2
        wait_until(lambda: all(one["delivered"] for one in alerts(person, "a")), "both are delivered")
    finally:
        pipeline.close()
