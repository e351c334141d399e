"""Who may send: API keys in every form, and what is said to those who have none."""

import hashlib
import secrets
import time
import uuid

import pytest

from support.kavachd import event, wait_until
from support.raw_http import Peer, ingest
from support.checks import check_refused

SETTINGS = {"auth.poll_ms": 20}

NO_KEY = '{"detail":"Missing or malformed Authorization header"}'
BAD_KEY = '{"detail":"Invalid API key"}'
HEX = "0123456789abcdef" * 4


def settled(node) -> None:
    """What was accepted so far is stored: the checks count from here."""
    wait_until(
        lambda: node.event_count() == node.metric("kavach_ingest_events_accepted_total"), "what was accepted before"
    )


def check_unauthorized(node, headers: dict, body: str) -> None:
    settled(node)
    sent = ingest(node, [event()], {"Authorization": None} | headers)
    answer = check_refused(node, sent, 401, body)
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Basic dXNlcjpwYXNzd29yZA==",
        f"Bearerak_prod_{HEX}",
        f"ak_prod_{HEX}",
        f"Token ak_prod_{HEX}",
        f"Bearer ak_prod_{HEX[:-1]}",
        f"Bearer ak_prod_{HEX}0",
        f"Bearer ak_prod_{HEX[:-1]}g",
        f"Bearer ak_test_{HEX}",
        f"Bearer AK_PROD_{HEX}",
        f"Bearer ak_prod_{HEX} and more",
        "Bearer cg_",
        "Bearer cg_" + "x" * 200,
        "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "Bearer ключ",
        "Bearer " + "x" * 8000,
    ],
)
def test_without_a_well_formed_key_nobody_gets_in(shared, authorization):
    check_unauthorized(shared, {"Authorization": authorization}, NO_KEY)


@pytest.mark.parametrize("name", ["X-API-Key", "Authorization"])
@pytest.mark.parametrize("key", [f"ak_prod_{HEX}", f"ak_dev_{HEX}", f"ak_local_{HEX}", "cg_nobody_has_this_key"])
def test_an_unknown_key_is_refused(shared, key, name):
    check_unauthorized(shared, {name: f"Bearer {key}" if name == "Authorization" else key}, BAD_KEY)


def test_a_key_that_differs_in_one_digit_is_unknown(shared):
    last = "0" if shared.key[-1] != "0" else "1"
    check_unauthorized(shared, {"Authorization": f"Bearer {shared.key[:-1]}{last}"}, BAD_KEY)


def test_a_key_works_as_soon_as_another_process_made_it_and_until_it_is_revoked(shared):
    made = shared.create_key("short-lived")
    key_id = made["key_id"].removeprefix("key_")
    wait_until(lambda: shared.post([event()], key=made["api_key"]).status == 202, "the new key")
    with Peer(shared) as peer:
        mine = {"Authorization": f"Bearer {made['api_key']}"}
        assert peer.ask(ingest(shared, [event()], mine)).status == 202
        shared.command("key", "revoke", made["key_id"])
        # Also on a connection that was let in before.
        wait_until(lambda: peer.ask(ingest(shared, [event()], mine)).status == 401, "the key to be refused")
    check_unauthorized(shared, mine, BAD_KEY)

    def use():
        return shared.query(
            "SELECT auth_failures_count, last_failed_at_us, last_used_at_us FROM api_keys WHERE id = ?", key_id
        )[0]

    wait_until(lambda: use()[0] >= 2, "the attempts to be counted")
    now_us = time.time() * 1e6
    assert now_us - 600e6 < use()[2] <= use()[1] <= now_us


def insert_key(node, raw: str) -> None:
    """A key that Kavach did not mint, such as one taken over from another system."""
    node.execute(
        "INSERT INTO api_keys (id, kind, org_id, project_id, name, prefix, key_hash, created_at_us)"
        " SELECT ?, kind, org_id, project_id, 'taken over', ?, ?, 0 FROM api_keys WHERE org_id = ? LIMIT 1",
        str(uuid.uuid4()),
        raw[:16],
        hashlib.sha256(raw.encode()).hexdigest(),
        node.org_id,
    )
    wait_until(lambda: node.post([event()], key=raw).status == 202, "the key to be known")


@pytest.mark.parametrize("form", ["cg_{}", "ak_prod_{}", "ak_dev_{}", "ak_local_{}"])
def test_keys_of_every_kind_are_accepted_in_both_headers(shared, form):
    key = form.format(secrets.token_hex(32))
    insert_key(shared, key)
    with Peer(shared) as peer:
        for headers in (
            {"Authorization": f"Bearer {key}"},
            {"Authorization": f"bearer {key}"},
            {"Authorization": f"BEARER   {key}"},
            {"authorization": f"\t Bearer {key} \t"},
            {"X-API-Key": key},
            {"x-api-key": key, "Authorization": ""},
        ):
            fields = {"Authorization": None} | headers
            assert peer.ask(ingest(shared, [event()], fields)).status == 202, headers


@pytest.mark.parametrize(
    "status, detail",
    [
        ("paused", "Subscription is paused. Resume to continue."),
        ("cancelled", "Subscription is cancelled. Reactivate to resume."),
    ],
)
def test_an_organization_without_a_running_subscription_is_refused_until_it_has_one(shared, status, detail):
    org = shared.create_org("customer")
    key = {"Authorization": f"Bearer {org['api_key']}"}
    wait_until(lambda: shared.post([event()], key=org["api_key"]).status == 202, "the new organization")
    set_subscription = (
        "INSERT INTO subscriptions (org_id, tier, status, updated_at_us) VALUES (?, 'max', ?, 0)"
        " ON CONFLICT (org_id) DO UPDATE SET status = excluded.status"
    )
    shared.execute(set_subscription, org["org_id"], status)
    wait_until(lambda: shared.post([event()], key=org["api_key"]).status == 403, status)
    settled(shared)
    body = f'{{"detail":"{detail}","subscription_status":"{status}"}}'
    check_refused(shared, ingest(shared, [event()], key), 403, body)
    shared.execute(set_subscription, org["org_id"], "active")
    wait_until(lambda: shared.post([event()], key=org["api_key"]).status == 202, "the subscription to run")


def test_keys_stay_as_they_are_while_the_key_table_cannot_be_read_and_that_is_reported(shared):
    def database() -> str:
        return shared.request("GET", "/v1/status").json()["database"]

    shared.execute("ALTER TABLE subscriptions RENAME TO subscriptions_away")
    shared.execute("UPDATE directory_version SET version = version + 1")
    wait_until(lambda: database() == "down", "the status")
    assert shared.post([event()]).status == 202
    shared.execute("ALTER TABLE subscriptions_away RENAME TO subscriptions")
    wait_until(lambda: database() == "ok", "the status")
    assert "cannot read the store, keys stay as they are: sqlite: no such table: subscriptions" in shared.log()


def test_the_credential_is_checked_before_everything_else(shared):
    settled(shared)
    no_key = {"Authorization": None}
    bad_body = ingest(shared, b"no JSON", no_key | {"Content-Encoding": "br"})
    check_refused(shared, bad_body, 401, NO_KEY)
    # A body that would not be read anyway is not waited for, so the connection ends (RFC 9112 9.6).
    too_large = ingest(shared, b"", no_key | {"Content-Length": "99999999999"})
    check_refused(shared, too_large, 401, NO_KEY, ends=True)
    announced = ingest(shared, b"", no_key | {"Content-Length": "100", "Expect": "100-continue"})
    check_refused(shared, announced, 401, NO_KEY, ends=True)


def test_a_raw_key_is_found_neither_in_the_store_nor_in_the_journal_nor_in_the_log(shared):
    shared.post([event()])
    secret = shared.key.rpartition("_")[2].encode()
    for file in shared.folder.rglob("*"):
        if file.is_file():
            assert secret not in file.read_bytes(), file
