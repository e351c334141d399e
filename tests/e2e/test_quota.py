"""Quotas, burst, budgets and agents on one node: nothing beyond a limit, nothing lost below it, and the contract's words.

What was admitted is counted twice: from the answers and from the rows in the store. That usage survives a restart is
shown with a store right behind the journal, and with one that has nothing yet.
"""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest

from support.kavachd import Answer, Kavachd, event, wait_until
from support.raw_http import Peer, ingest

CONNECTIONS = 64
SHARDS = 4
DAY_S = 86_400
# Between a limit that holds for the day and its test there is no midnight.
TEST_S = 60


@pytest.fixture(autouse=True)
def one_day():
    left = DAY_S - time.time() % DAY_S
    if left < TEST_S:
        time.sleep(left + 1)


@pytest.fixture
def limited(make_node):
    """limited(settings, "--events-per-day", 5) starts a node whose organization has these limits from the start.

    It has one shard: there a batch counts before its answer leaves. With several the next batch, over another
    connection, may be a moment faster than the message that says the last one is durable.
    """

    def make(settings: dict, *limits) -> Kavachd:
        node = make_node({"engine.shards": 1, "auth.poll_ms": 20} | settings, start=False)
        node.folder.mkdir()
        node.write_config()
        org = node.create_org()
        node.key, node.org_id = org["api_key"], org["org_id"]
        if limits:
            org_set(node, *limits)
        return node.start()

    return make


def org_set(node: Kavachd, *limits) -> None:
    node.command("org", "set", "--org", node.org_id, *map(str, limits))


def budget_set(node: Kavachd, period: str, limit: float) -> None:
    node.command("budget", "set", "--org", node.org_id, "--type", "cost", "--period", period, "--limit", str(limit))


def budget_delete(node: Kavachd, period: str) -> None:
    node.command("budget", "delete", "--org", node.org_id, "--type", "cost", "--period", period)


def budget_set_and_heard(node: Kavachd, period: str, limit: float) -> None:
    """Before the next batch the node knows of it."""
    loads = node.log().count("directory: ")
    budget_set(node, period, limit)
    wait_until(lambda: node.log().count("directory: ") > loads, "the budget is heard of")


def agent(node: Kavachd, what: str, name: str) -> None:
    node.command("agent", what, "--org", node.org_id, "--name", name)


def events(count: int, **changes) -> list:
    return [event(**changes) for _ in range(count)]


def check_taken(node: Kavachd, sent: list, accepted: int | None = None, rejected_agents: tuple = ()) -> None:
    accepted = len(sent) if accepted is None else accepted
    answer = node.post(sent)
    assert (answer.status, answer.json()) == (202, {
        "accepted": accepted,
        "rejected": len(sent) - accepted,
        "mode": "direct",
        "rejected_agents": list(rejected_agents),
    })


def check_refused(node: Kavachd, sent: list, body: dict) -> Answer:
    """A 429 with exactly this body: the same members in the same order."""
    answer = node.post(sent)
    assert (answer.status, answer.body.decode()) == (429, json.dumps(body, separators=(",", ":"), ensure_ascii=False))
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["retry-after"]) >= 1
    return answer


def reason(answer: Answer) -> str | None:
    return answer.json()["reason"] if answer.status == 429 else None


def wait_for(node: Kavachd, expected: str | None, **changes) -> None:
    """Until an event is refused for this reason, or taken (None)."""
    wait_until(lambda: reason(node.post([event(**changes)])) == expected, f"the answer {expected}")


def at_midnight(days: int = 1) -> str:
    return (datetime.now(timezone.utc) + timedelta(days=days)).strftime("%Y-%m-%dT00:00:00Z")


def next_month() -> str:
    now = datetime.now(timezone.utc)
    return f"{now.year + now.month // 12}-{now.month % 12 + 1:02}-01T00:00:00Z"


def daily_limit(limit: int) -> dict:
    return {
        "detail": "Daily event limit reached", "reason": "daily_limit", "limit": limit, "used": limit,
        "remaining": 0, "resume_at": at_midnight(), "tier": "max",
    }


def budget_exceeded(period: str, limit: float, used: float, resume_at: str | None) -> dict:
    return {
        "detail": "Org budget exceeded", "reason": "org_budget_exceeded", "budget_type": "cost", "period": period,
        "limit_value": limit, "current_value": used, "resume_at": resume_at,
    }


def agent_limit(names: list, most: int | None, killed: bool = False) -> dict:
    body = {
        "detail": "Agent was stopped" if killed else "Agent limit reached for tier", "reason": "tier_agent_limit",
        "rejected_agents": names, "tier": "max", "max_agents": most,
    }
    return body | {"killed": True} if killed else body


# --- many connections at once ------------------------------------------------------------------------------


def on_all_connections(node: Kavachd, work) -> list:
    """work(peer, number) on 64 connections at once; what each returned."""
    ready = threading.Barrier(CONNECTIONS)

    def one(number: int):
        with Peer(node) as peer:
            ready.wait()
            return work(peer, number)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return list(pool.map(one, range(CONNECTIONS)))


def until_settled(peer: Peer, sent: list) -> Answer:
    """Sends again while the answer is to come back later, as the SDK does."""
    body = ingest(peer.node, sent)
    while reason(answer := peer.ask(body)) == "backpressure":
        assert answer.headers["retry-after"] == "1"
        time.sleep(0.01)
    return answer


def check_stored(node: Kavachd, count: int) -> None:
    """Exactly `count` events are in the store when everything has arrived there."""
    assert node.stop() == 0
    assert node.event_count() == count
    node.check_roll_ups()


def test_of_a_days_events_exactly_the_limit_is_admitted_however_many_ask_at_once(limited):
    limit = 2_000
    node = limited({"engine.shards": SHARDS}, "--events-per-day", limit)

    def send(peer: Peer, _: int) -> int:
        taken = 0
        while (answer := until_settled(peer, events(7))).status == 202:
            said = answer.json()
            assert said["accepted"] + said["rejected"] == 7
            taken += said["accepted"]
        assert json.loads(answer.body) == daily_limit(limit)
        return taken

    assert sum(on_all_connections(node, send)) == limit
    check_stored(node, limit)


def test_no_more_than_the_burst_is_admitted_in_its_window(limited):
    limit = 500
    node = limited({"engine.shards": SHARDS}, "--burst-per-minute", limit)
    until = time.monotonic() + 30  # well within the window

    def send(peer: Peer, _: int) -> int:
        taken = 0
        for _ in range(12):
            if time.monotonic() > until:
                break
            answer = peer.post(events(2))
            assert answer.status == 202 or answer.json()["reason"] == "burst", answer
            taken += 2 * (answer.status == 202)
        return taken

    assert sum(on_all_connections(node, send)) == limit
    check_stored(node, limit)


def test_of_1000_agents_that_race_for_100_places_exactly_100_get_one(limited):
    node = limited({"engine.shards": SHARDS}, "--max-agents", 100)
    names = [f"agent-{number}" for number in range(1_000)]

    def send(peer: Peer, number: int) -> list:
        admitted = []
        for name in names[number::CONNECTIONS]:
            answer = until_settled(peer, [event(agent_name=name)])
            if answer.status == 202:
                admitted.append(name)
            else:
                assert answer.json() == agent_limit([name], 100)
        return admitted

    admitted = {name for some in on_all_connections(node, send) for name in some}
    assert len(admitted) == 100
    # A place that was given is kept, and no other is free.
    for name in names[::50]:
        assert (node.post([event(agent_name=name)]).status == 202) == (name in admitted)
    check_stored(node, 100 + sum(name in admitted for name in names[::50]))
    assert {name for (name,) in node.query("SELECT DISTINCT agent_name FROM events")} == admitted


# --- what is said ------------------------------------------------------------------------------------------


def test_a_used_up_day_says_when_it_ends(limited):
    node = limited({}, "--events-per-day", 3)
    check_taken(node, events(3))
    earliest = DAY_S - time.time() % DAY_S
    answer = check_refused(node, events(2), daily_limit(3))
    assert earliest - TEST_S < int(answer.headers["retry-after"]) <= earliest + 1


def test_of_a_batch_that_crosses_the_days_end_the_first_events_are_taken(limited):
    node = limited({}, "--events-per-day", 5)
    sent = events(4)
    check_taken(node, events(3))
    check_taken(node, sent, accepted=2)
    # What was taken is a duplicate from now on; what was not is none.
    check_taken(node, sent[:2])
    check_refused(node, sent, daily_limit(5))
    org_set(node, "--events-per-day", 7)
    wait_until(lambda: node.post(sent).json().get("accepted") == 4, "the higher limit is heard of")
    check_stored(node, 7)
    keys = {key for (key,) in node.query("SELECT dedup_key FROM events")}
    assert {e["idempotency_key"] for e in sent} <= keys


def test_a_burst_is_refused_as_a_whole_and_says_when_to_come_back(limited):
    node = limited({}, "--burst-per-minute", 5)
    check_taken(node, events(3))
    answer = node.post(events(3))
    said = answer.json()
    resume_at = datetime.fromisoformat(said.pop("resume_at").replace("Z", "+00:00"))
    assert resume_at.microsecond == 0
    assert 0 < resume_at.timestamp() - time.time() <= 62
    assert 1 <= int(answer.headers["retry-after"]) <= 61
    assert (answer.status, said) == (429, {"detail": "Burst rate exceeded", "reason": "burst", "limit": 5, "remaining": 0})
    check_taken(node, events(2))
    check_stored(node, 5)


def test_a_used_up_budget_says_which_and_how_much_was_spent(limited):
    node = limited({})
    check_taken(node, events(2, cost=0.0155))
    for period, resume_at in (("daily", at_midnight()), ("monthly", next_month()), ("total", None)):
        budget_set(node, period, 0.03)
        wait_for(node, "org_budget_exceeded", cost=0)
        answer = check_refused(node, [event()], budget_exceeded(period, 0.03, 0.031, resume_at))
        if resume_at is None:
            assert answer.headers["retry-after"] == str(DAY_S)
        budget_delete(node, period)
        wait_for(node, None, cost=0)


def test_the_batch_that_crosses_a_budget_is_recorded_since_it_was_spent(limited):
    node = limited({})
    budget_set_and_heard(node, "total", 50)
    check_taken(node, events(1, cost=49.5))
    check_taken(node, events(3, cost=0.27))
    check_refused(node, [event(cost=0)], budget_exceeded("total", 50.0, 50.31, None))
    budget_set(node, "total", 51)
    wait_for(node, None, cost=0)


def test_agents_beyond_the_cap_are_named_and_those_inside_go_on(limited):
    node = limited({}, "--max-agents", 2)
    odd = 'b "\\\n✓'
    check_taken(node, [event(agent_name="a")])
    mixed = [event(agent_name=name) for name in ("z", odd, "a", odd, "c")]
    check_taken(node, mixed, accepted=2, rejected_agents=(odd, "c"))
    check_refused(node, [event(agent_name=name) for name in ("c", odd, "c")], agent_limit([odd, "c"], 2))
    check_taken(node, [event(agent_name="z"), event(agent_name="a")])
    org_set(node, "--max-agents", 3)
    wait_for(node, None, agent_name="c")
    check_refused(node, [event(agent_name=odd)], agent_limit([odd], 3))


def test_a_killed_agent_is_refused_until_it_is_reactivated(limited):
    node = limited({}, "--max-agents", 1)
    check_taken(node, [event(agent_name="a")])
    agent(node, "kill", "a")
    wait_for(node, "tier_agent_limit", agent_name="a")
    check_refused(node, [event(agent_name="a")], agent_limit(["a"], 1, killed=True))
    check_refused(node, [event(agent_name="b"), event(agent_name="a")], agent_limit(["a", "b"], 1))
    org_set(node, "--max-agents", "unlimited")
    wait_for(node, None, agent_name="b")
    check_taken(node, [event(agent_name="a"), event(agent_name="b")], accepted=1, rejected_agents=("a",))
    check_refused(node, [event(agent_name="a")], agent_limit(["a"], None, killed=True))
    agent(node, "reactivate", "a")
    wait_for(node, None, agent_name="a")


def test_of_all_limits_that_are_reached_the_first_is_named_and_duplicates_pass_them_all(limited):
    node = limited({}, "--burst-per-minute", 2)
    first = events(2, agent_name="a")
    check_taken(node, first)
    org_set(node, "--events-per-day", 2, "--max-agents", 1)
    budget_set(node, "daily", 0.01)
    org_set(node, "--status", "paused")
    wait_until(lambda: node.post([event(agent_name="b")]).status == 403, "the pause is heard of")
    assert node.post(b"[", encoding="x").status == 403
    steps = [
        ("daily_limit", lambda: org_set(node, "--status", "active")),
        ("burst", lambda: org_set(node, "--events-per-day", "unlimited")),
        ("org_budget_exceeded", lambda: org_set(node, "--burst-per-minute", "unlimited")),
        ("tier_agent_limit", lambda: budget_delete(node, "daily")),
    ]
    for expected, change in steps:
        change()
        wait_for(node, expected, agent_name="b")
        assert node.post(b"{}").status == 422
        check_taken(node, first)
    refused = {limit: node.metric("kavach_quota_batches_refused_total", limit=limit)
               for limit in ("daily", "burst", "budget", "agents")}
    assert min(refused.values()) >= 1, refused
    org_set(node, "--max-agents", "unlimited")
    wait_for(node, None, agent_name="b")
    check_stored(node, 3)


# --- settings ----------------------------------------------------------------------------------------------


def test_what_is_left_is_in_the_header_where_it_is_asked_for(limited):
    node = limited({}, "--events-per-day", 10, "--burst-per-minute", 8)
    assert not [name for name in node.post(events(1)).headers if name.startswith("ratelimit")]
    node.reload(ingest__rate_limit_headers=True)
    for sent, status, day, burst in ((2, 202, 7, 5), (6, 429, 7, 5), (5, 202, 2, 0), (1, 429, 2, 0)):
        answer = node.post(events(sent))
        assert answer.status == status
        assert answer.headers["ratelimit-policy"] == '"daily";q=10;w=86400, "burst";q=8;w=60'
        left = [part.split(";") for part in answer.headers["ratelimit"].split(", ")]
        assert [(name, r) for name, r, _ in left] == [('"daily"', f"r={day}"), ('"burst"', f"r={burst}")]
        resets = [int(t.removeprefix("t=")) for _, _, t in left]
        assert 0 < resets[0] <= DAY_S and 0 < resets[1] <= 61
    org_set(node, "--events-per-day", "unlimited")
    wait_until(lambda: node.post(events(1)).headers["ratelimit-policy"] == '"burst";q=8;w=60', "no limit of the day")
    org_set(node, "--burst-per-minute", "unlimited")
    wait_until(lambda: "ratelimit-policy" not in node.post(events(1)).headers, "no limit at all")
    node.reload(ingest__rate_limit_headers=False)


LIMITS = {"daily": "daily_limit", "burst": "burst", "budget": "org_budget_exceeded", "agents": "tier_agent_limit"}


def test_a_limit_in_shadow_mode_is_counted_and_refuses_nothing(limited):
    shadow = {f"quota.{limit}_mode": "shadow" for limit in LIMITS}
    node = limited(shadow, "--events-per-day", 1, "--burst-per-minute", 1, "--max-agents", 1)
    budget_set_and_heard(node, "daily", 0.01)
    check_taken(node, events(3, agent_name="a"))
    check_taken(node, events(2, agent_name="b"))

    def counts(what: str) -> dict:
        return {limit: node.metric(f"kavach_quota_batches_{what}_total", limit=limit) for limit in LIMITS}

    assert counts("shadowed") == {"daily": 2, "burst": 2, "budget": 1, "agents": 1}
    assert set(counts("refused").values()) == {0}
    for limit, expected in LIMITS.items():
        node.reload(**{f"quota__{limit}_mode": "enforce"})
        assert reason(node.post([event(agent_name="c")])) == expected
        node.reload(**{f"quota__{limit}_mode": "shadow"})
    assert counts("refused") == dict.fromkeys(LIMITS, 1)
    check_taken(node, [event(agent_name="c")])
    check_stored(node, 6)


# --- restarts ----------------------------------------------------------------------------------------------


def restart(node: Kavachd, how: str) -> None:
    if how == "kill":
        node.kill()
    else:
        assert node.stop() == 0
    node.start()


@pytest.mark.parametrize("batch_delay_ms", [0, 60_000], ids=["stored", "in_the_journal"])
@pytest.mark.parametrize("how", ["kill", "stop"])
def test_use_of_every_limit_goes_on_after_a_restart(limited, how, batch_delay_ms):
    settings = {"engine.shards": SHARDS, "store.batch_delay_ms": batch_delay_ms}
    node = limited(settings, "--events-per-day", 10, "--max-agents", 2)
    check_taken(node, events(3, agent_name="a", cost=0.01))
    restart(node, how)
    check_taken(node, events(3, agent_name="b", cost=0.01))
    restart(node, how)
    check_refused(node, events(1, agent_name="c"), agent_limit(["c"], 2))
    check_taken(node, events(3, agent_name="a", cost=0.01))
    if how == "kill" and batch_delay_ms:
        assert node.event_count() == 0, "the store was to have nothing yet"
    restart(node, how)
    check_taken(node, events(3, agent_name="b", cost=0.01), accepted=1)
    restart(node, how)
    check_refused(node, events(1, agent_name="a"), daily_limit(10))

    org_set(node, "--events-per-day", "unlimited")
    for period, resume_at in (("daily", at_midnight()), ("monthly", next_month()), ("total", None)):
        budget_set(node, period, 0.05)
        wait_for(node, "org_budget_exceeded", agent_name="a", cost=0)
        restart(node, how)
        check_refused(node, events(1, agent_name="a"), budget_exceeded(period, 0.05, 0.1, resume_at))
        budget_delete(node, period)
        wait_for(node, None, agent_name="a", cost=0)


def test_without_a_store_behind_it_the_journals_tail_is_remembered(limited):
    node = limited({"store.kind": "none"}, "--events-per-day", 5, "--max-agents", 1)
    check_taken(node, events(3, agent_name="a"))
    restart(node, "kill")
    check_refused(node, events(1, agent_name="b"), agent_limit(["b"], 1))
    check_taken(node, events(3, agent_name="a"), accepted=2)


def test_a_burst_of_kills_neither_passes_the_limit_nor_loses_a_part_of_it(limited):
    limit = 3_000
    node = limited({"engine.shards": SHARDS, "store.batch_delay_ms": 100}, "--events-per-day", limit)
    acknowledged = []
    over = threading.Event()

    def send() -> None:
        """Nothing is sent twice: what was not answered is left as it is."""
        while not over.is_set():
            try:
                with Peer(node) as peer:
                    while not over.is_set():
                        sent = events(5)
                        answer = peer.post(sent)
                        if answer.status == 202:
                            acknowledged.extend(e["idempotency_key"] for e in sent[: answer.json()["accepted"]])
                        elif reason(answer) == "daily_limit":
                            return
            except (OSError, AssertionError):
                time.sleep(0.01)  # killed, or not there yet

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        for kill in range(1, 5):
            wait_until(lambda: len(acknowledged) > kill * limit // 8, "some more events")
            restart(node, "kill")
        wait_until(lambda: not any(thread.is_alive() for thread in threads), "the limit is reached by all")
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert node.stop() == 0
    stored = {key for (key,) in node.query("SELECT dedup_key FROM events")}
    assert len(stored) == node.event_count() == limit
    assert stored >= set(acknowledged)
