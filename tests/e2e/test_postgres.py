"""Postgres behind the journal: everything that a node keeps is there, whoever is killed, frozen or away meanwhile."""

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.fleet import Fleet
from support.kavachd import SANITIZED, event, wait_until
from support.postgres import PostgresKavachd, PostgresServer

# A server that says nothing is given up soon, so that a test sees it come back.
SETTINGS = {"store.reply_timeout_ms": 1000, "http.body_bytes_max": 256 << 10, "journal.segment_bytes": 512 << 10}
ROUNDS = 2 if SANITIZED else 5


@pytest.fixture
def postgres(tmp_path):
    with PostgresServer(tmp_path / "postgres", ["-c", "fsync=off"]) as server:
        yield server


@pytest.fixture
def node(tmp_path, postgres):
    """Not started yet."""
    node = PostgresKavachd(tmp_path / "node", dict(SETTINGS), server=postgres)
    yield node
    node.__exit__(None)


def orgs_of(node) -> list:
    """Three organizations, which the node knows from its first request on."""
    node.start()
    orgs = [{"org_id": node.org_id, "api_key": node.key}, node.create_org("second"), node.create_org("third")]
    assert node.stop() == 0
    node.start()
    return orgs


def test_an_event_is_in_postgres_with_all_that_it_says_and_stays_one_when_it_comes_again(node):
    node.start()
    sent = event(agent_name="Häuptling", prompt="a\u0000b", cost=0.000000001, run_id="run-1")
    assert node.post([sent]).status == 202
    node.wait_for_events(1)
    node.kill()
    node.start()
    assert node.post([sent, event()]).json()["accepted"] == 2
    node.wait_for_events(2)
    [row] = node.query("SELECT agent_name, prompt, cost_nano, run_id FROM events WHERE cost_nano = 1")
    # Postgres has no NUL in a text.
    assert row == ("Häuptling", "a\ufffdb", 1, "run-1")
    node.check_roll_ups()


def test_administration_works_on_postgres_and_a_running_node_hears_of_it_at_once(node):
    node.settings["auth.poll_ms"] = 1000
    node.start()
    key = node.create_key("second")
    wait_until(lambda: node.post([event()], key=key["api_key"]).status == 202, "the new key to be known")
    node.command("key", "revoke", key["key_id"])
    wait_until(lambda: node.post([event()], key=key["api_key"]).status == 401, "the revoked key to be refused")
    node.command("org", "set", "--org", node.org_id, "--events-per-day", "0")
    wait_until(lambda: node.post([event()]).status == 429, "the limit to be in force")
    node.command("budget", "set", "--org", node.org_id, "--type", "cost", "--period", "daily", "--limit", "5")
    node.command("agent", "kill", "--org", node.org_id, "--name", "runaway", "--reason", "runs in circles")
    shown = json.loads(node.command("org", "show", "--org", node.org_id).stdout)
    assert shown["limits"]["events_per_day"] == 0
    assert [budget["limit_value"] for budget in shown["budgets"]] == [5]
    assert shown["killed_agents"] == ["runaway"]


def test_a_node_waits_for_a_database_that_is_away_when_it_starts(node, postgres):
    node.start()
    assert node.post([event()]).status == 202
    node.wait_for_events(1)
    assert node.stop() == 0
    postgres.stop()
    node.start(wait=False)
    wait_until(lambda: node.log().count("the store cannot be opened, trying again") == 1, "the node to say so")
    assert node.process.poll() is None
    postgres.start()
    wait_until(lambda: ready(node), "the node to be ready")
    assert node.post([event()]).status == 202
    node.wait_for_events(2)


def test_a_node_that_waits_for_its_database_can_be_stopped(node, postgres):
    node.start()
    assert node.stop() == 0
    postgres.stop()
    node.start(wait=False)
    wait_until(lambda: "trying again" in node.log(), "the node to wait")
    assert node.stop() == 1
    postgres.start()


def test_no_acknowledged_event_is_lost_or_doubled_while_node_and_database_are_hurt(node, postgres):
    rng = random.Random(1)

    def kill_node():
        node.kill()
        node.start()

    def freeze():
        postgres.pause()
        time.sleep(rng.uniform(0.2, 2))
        postgres.resume()

    with Fleet(node, orgs_of(node), connections=4, seed="postgres") as fleet:
        for _ in range(ROUNDS):
            for hurt in rng.sample([kill_node, postgres.restart, postgres.cut_connections, freeze], 4):
                time.sleep(rng.uniform(0, 0.5))
                hurt()
    assert node.stop() == 0
    # What the database was too late for is in the journal.
    node.start()
    wait_until(lambda: node.metric("kavach_journal_backlog_frames") == 0, "the journal to be stored")
    assert node.stop() == 0
    fleet.check()
    assert len(fleet.acknowledged) > ROUNDS


def test_two_nodes_store_what_both_were_sent_once(node, tmp_path, postgres):
    node.start()
    other = PostgresKavachd(tmp_path / "other", dict(SETTINGS), server=postgres, key=node.key, org_id=node.org_id)
    with other:
        batches = [[event(agent_name=f"agent-{i % 3}", run_id=f"run-{i % 5}") for _ in range(20)] for i in range(60)]

        def send(to, order):
            for batch in order:
                assert to.post(batch).status == 202

        with ThreadPoolExecutor(4) as senders:
            orders = [batches, batches[::-1], batches[20:] + batches[:20], batches[40:] + batches[:40]]
            for done in [senders.submit(send, *pair) for pair in zip([node, other, node, other], orders)]:
                done.result()
        for one in (node, other):
            wait_until(lambda: one.metric("kavach_journal_backlog_frames") == 0, "the journal to be stored")
        assert node.event_count() == 60 * 20
        node.check_roll_ups()
        assert other.metric("kavach_shipper_failures_total") == node.metric("kavach_shipper_failures_total") == 0


def test_the_password_of_the_database_is_shown_nowhere(node, postgres):
    node.start()
    assert node.post([event()]).status == 202
    node.wait_for_events(1)
    postgres.restart()
    assert node.post([event()]).status == 202
    node.wait_for_events(2)
    printed = node.command("check", "--print").stdout
    assert "***@127.0.0.1" in printed
    password, postgres.password = postgres.password, "wrong"
    node.settings["store.url"] = postgres.url
    node.write_config()
    postgres.password = password
    refused = node.command("org", "show", "--org", node.org_id, check=False)
    assert refused.returncode == 1 and "password authentication failed" in refused.stderr
    for text in (node.log(), printed, refused.stderr):
        assert password not in text and "wrong" not in text


def ready(node) -> bool:
    try:
        return node.request("GET", "/readyz").status == 200
    except OSError:
        return False
