"""A fleet of three on one real Redis keeps one organization to its limits, whatever happens to a node or to Redis.

What the clients were told is held against what is stored: never more than the limit, in the end exactly the limit, and
nobody is told for good that nothing is left while something is.
"""

import itertools
import random
import sqlite3
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.kavachd import Kavachd, event, wait_until
from support.redis import RedisServer

EVENTS_PER_DAY = 16_000
AGENTS_MAX = 10
AGENT_NAMES = [f"agent-{i}" for i in range(16)]
BATCH_EVENTS = 10
CLIENTS = (4, 2, 1)  # of each node: uneven
SECONDS_PER_DAY = 86_400


@dataclass
class Told:
    """One answer of a node, with when its request was sent and when it came."""

    sent: float
    answered: float
    reason: str  # empty: accepted
    accepted: int
    agent: str


@dataclass
class Load:
    """Clients that send batch after batch, each again until it is answered, to the node they belong to."""

    nodes: list[Kavachd]
    pause_s: float = 0.1  # between two batches of one client; 0 once everything that was to happen has happened
    told: list[Told] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopping: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> "Load":
        numbers = itertools.count()
        for node, clients in zip(self.nodes, CLIENTS):
            for _ in range(clients):
                thread = threading.Thread(target=self._run, args=(node, random.Random(next(numbers))))
                self.threads.append(thread)
                thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def _run(self, node: Kavachd, chance: random.Random) -> None:
        try:
            while not self.stopping.is_set():
                agent = chance.choice(AGENT_NAMES)
                self._send(node, agent, [event(agent_name=agent, run_id=...) for _ in range(BATCH_EVENTS)])
                time.sleep(self.pause_s)
        except Exception as error:  # told by the test
            self.errors.append(repr(error))

    def _send(self, node: Kavachd, agent: str, events: list) -> None:
        # Also to the end of the load: a batch whose answer was lost may be stored.
        while True:
            sent = time.monotonic()
            try:
                answer = node.post(events)
            except OSError:
                time.sleep(0.02)
                continue
            assert answer.status in (202, 429), answer
            said = answer.json()
            told = Told(sent, time.monotonic(), said.get("reason", ""), said.get("accepted", 0), agent)
            with self.lock:
                self.told.append(told)
            return

    def reasons(self, since: float = 0) -> Counter:
        with self.lock:
            return Counter(told.reason for told in self.told if told.sent >= since)

    def accepted(self) -> int:
        with self.lock:
            return sum(told.accepted for told in self.told)

    def goes_on(self) -> None:
        """Waits until the fleet takes events again."""
        before = self.accepted()
        wait_until(lambda: self.accepted() > before, "events are taken again")


@dataclass
class Fleet:
    redis: RedisServer
    nodes: list[Kavachd]

    @property
    def store(self) -> Path:
        return self.nodes[0].folder.parent / "fleet.db"

    def stored(self, query: str) -> list:
        with sqlite3.connect(self.store, timeout=30) as store:
            return store.execute(query).fetchall()

    def stored_events(self) -> int:
        return self.stored("SELECT count(*) FROM events")[0][0]


@pytest.fixture
def fleet(tmp_path, make_node):
    # The limit is of one day.
    left = SECONDS_PER_DAY - time.time() % SECONDS_PER_DAY
    if left < 180:
        time.sleep(left + 1)
    with RedisServer(tmp_path / "redis") as redis:
        settings = {"redis.url": redis.unix_url, "store.path": str(tmp_path / "fleet.db"), "engine.shards": 2}
        nodes = [make_node(settings, start=False) for _ in range(len(CLIENTS))]
        nodes[0].start()
        nodes[0].command(
            "org", "set", "--org", nodes[0].org_id, "--events-per-day", str(EVENTS_PER_DAY),
            "--max-agents", str(AGENTS_MAX),
        )
        for node in nodes[1:]:
            node.key, node.org_id = nodes[0].key, nodes[0].org_id
            node.start()
        time.sleep(1)  # by then each has heard of the limits
        yield Fleet(redis, nodes)


def check_nobody_was_told_wrong(load: Load) -> None:
    """A refusal for good was true: what was sent after it was not accepted, by whatever node."""
    spent = [told.answered for told in load.told if told.reason == "daily_limit"]
    if spent:
        late = [told for told in load.told if told.accepted > 0 and told.sent > min(spent)]
        assert late == [], f"{len(late)} batches accepted after the day's quota was said to be used up"
    for agent in AGENT_NAMES:
        refused = [told.answered for told in load.told if told.agent == agent and told.reason == "tier_agent_limit"]
        if refused:
            late = [told for told in load.told if told.agent == agent and told.accepted > 0 and told.sent > min(refused)]
            assert late == [], f"{agent} accepted after it was said to have no place"


def check_it_ends_at_the_limit(fleet: Fleet, load: Load) -> None:
    """The load goes on until the day's quota is used up."""
    load.pause_s = 0
    began = time.monotonic()
    wait_until(lambda: load.reasons(began)["daily_limit"] >= 50, "the day's quota is used up")
    load.__exit__()
    assert load.errors == []
    wait_until(lambda: fleet.stored_events() == load.accepted(), "everything that was accepted is stored")
    assert load.accepted() == EVENTS_PER_DAY
    assert fleet.stored("SELECT count(DISTINCT agent_name) FROM events") == [(AGENTS_MAX,)]
    check_nobody_was_told_wrong(load)


def test_a_node_is_killed_and_redis_stops_restarts_and_forgets_and_the_limits_hold(fleet):
    redis, nodes = fleet.redis, fleet.nodes
    with Load(nodes) as load:
        load.goes_on()
        time.sleep(2)

        nodes[0].kill()
        time.sleep(1)
        nodes[0].start()
        load.goes_on()
        time.sleep(1)

        redis.pause()
        time.sleep(5)
        wait_until(lambda: nodes[1].request("GET", "/v1/status").json()["status"] == "degraded", "it says so")
        redis.resume()
        wait_until(lambda: nodes[1].request("GET", "/v1/status").json()["redis"] == "ok", "it is well again")
        load.goes_on()
        time.sleep(1)

        redis.restart()
        load.goes_on()
        time.sleep(4)

        redis.flush()
        load.goes_on()
        time.sleep(4)
        assert load.reasons()["daily_limit"] == 0, "the faults came too late"
        check_it_ends_at_the_limit(fleet, load)


def test_a_change_is_heard_of_by_every_node(fleet):
    def refused_by(node: Kavachd) -> bool:
        return node.post([event(agent_name="stopped")]).status == 429

    assert not any(refused_by(node) for node in fleet.nodes)
    before = [node.metric("kavach_changes_announced_total") for node in fleet.nodes]
    fleet.nodes[0].command("agent", "kill", "--org", fleet.nodes[0].org_id, "--name", "stopped")
    wait_until(lambda: all(refused_by(node) for node in fleet.nodes), "every node refuses the killed agent")
    after = [node.metric("kavach_changes_announced_total") for node in fleet.nodes]
    assert all(now > then for now, then in zip(after, before))


def test_a_node_starts_without_its_redis_and_leases_when_it_is_there(tmp_path, make_node):
    redis = RedisServer(tmp_path / "redis")
    node = make_node({"redis.url": redis.unix_url, "redis.learn_ms": 2500}, start=False)
    node.start()
    node.command("org", "set", "--org", node.org_id, "--events-per-day", "100")
    status = node.request("GET", "/v1/status").json()
    assert (status["status"], status["redis"]) == ("degraded", "down")
    assert status["fleet"]["degraded_since"] is not None

    def answer() -> tuple:
        told = node.post([event()])
        return told.status, told.json().get("reason")

    wait_until(lambda: answer() == (429, "backpressure"), "what nobody leased is refused for now")
    with redis:
        wait_until(lambda: answer() == (202, None), "events are taken")
        wait_until(lambda: node.request("GET", "/v1/status").json()["status"] == "ok", "the status is ok")
        assert node.stop() == 0


def test_what_an_idle_node_has_used_is_told_to_a_redis_that_was_emptied(tmp_path, make_node, redis):
    settings = {"redis.url": redis.unix_url, "store.path": str(tmp_path / "fleet.db"), "redis.idle_ms": 500,
                "redis.learn_ms": 2500}
    idle, busy = make_node(settings, start=False), make_node(settings, start=False)
    idle.start()
    idle.command("org", "set", "--org", idle.org_id, "--events-per-day", "100", "--max-agents", "1")
    busy.key, busy.org_id = idle.key, idle.org_id
    busy.start()

    def send(node: Kavachd, count: int) -> tuple:
        answer = node.post([event(agent_name="only") for _ in range(count)])
        return answer.status, answer.json().get("accepted"), answer.json().get("reason")

    wait_until(lambda: idle.post([event(agent_name="only"), event(agent_name="other")]).json()["rejected"] == 1,
               "the limits are heard of")
    used = int(idle.metric("kavach_ingest_events_accepted_total"))
    assert send(idle, 60 - used) == (202, 60 - used, None)
    held = "kavach_lease_held_events"
    wait_until(lambda: idle.metric(held) == 0, "the idle node gives back what it holds")
    time.sleep(1.5)  # and nobody asks for the organization any more
    redis.flush()
    # Longer than it takes to notice.
    wait_until(lambda: busy.request("GET", "/v1/status").json()["fleet"]["learning"], "the loss is noticed")
    wait_until(lambda: not busy.request("GET", "/v1/status").json()["fleet"]["learning"], "it is learned what was")
    assert busy.post([event(agent_name="another")]).json()["reason"] == "tier_agent_limit"
    assert send(busy, 50) == (202, 40, None)
    wait_until(lambda: send(busy, 1) == (429, None, "daily_limit"), "the day's quota is used up")


def test_what_a_stopped_node_had_leased_is_there_for_the_others(fleet):
    with Load(fleet.nodes) as load:
        load.goes_on()
        time.sleep(1)
        fleet.nodes[2].stop()
        # Its client goes to another.
        fleet.nodes[2].port = fleet.nodes[1].port
        check_it_ends_at_the_limit(fleet, load)
