"""Kavach beside other servers, each in turn under the same load: `scripts/bench peers`. The servers are in bench/peers/."""

import contextlib
import itertools
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import peers
from harness import CONNECTIONS, RENEWAL_S, SAMPLE_EVENT, Figures, Harness, Measured, Node, check_counts, on_core
from report import Table
from services import Services, check_receipts, kafka_node, wait_for_kafka
from support.kavachd import wait_until
from support.redis import RedisServer

ORGS = 16  # a record goes to the partition of its organization

# Events of a request and connections. A closed loop that waits for Kafka needs many connections to keep a fast server
# busy, and has a slow one use more for each event: so small requests come over few and over many.
LOADS = ((1, CONNECTIONS), (1, 1024), (100, CONNECTIONS))
LOADS_QUICK = ((1, CONNECTIONS), (100, CONNECTIONS))
# A few batches may be told to come again (a lease that was late); they are not counted as events.
REFUSED_MAX = 0.01
# The Collector waits for Kafka: one request at a time, or (small batches) what has come together in the meantime. Or it
# answers when its queue has the records, as it does by default.
COLLECTOR_ALONE = {"PEER_QUEUE": "false", "PEER_WAIT": "true", "PEER_MIN": "64", "PEER_FLUSH": "5ms"}
COLLECTOR_TOGETHER = COLLECTOR_ALONE | {"PEER_QUEUE": "true"}
COLLECTOR_EARLY = {"PEER_QUEUE": "true", "PEER_WAIT": "false", "PEER_MIN": "1500", "PEER_FLUSH": "200ms"}


class LimitedNode(Node):
    """With organizations that have every limit, high enough to refuse nothing, shared through Redis."""

    PATH, FORMAT = peers.Peer.PATH, peers.Peer.FORMAT
    # What a node leases grows with what it is asked, and until then some may be told to wait.
    LEAD_IN_S = 2 * RENEWAL_S

    def __enter__(self) -> "LimitedNode":
        tiers = self.folder / "tiers.toml"
        limits = "".join(f"{name} = {limit}\n" for name, limit in peers.LIMITS.items())
        tiers.write_text("".join(f"[{tier}]\n{limits}" for tier in ("free", "pro", "max")))
        self.settings["quota.tiers_file"] = str(tiers)
        super().__enter__()
        orgs = [self.create_org(f"org-{i}") for i in range(ORGS)]
        for org in orgs:
            self.command("budget", "set", "--org", org["org_id"], "--type", "cost", "--period", "daily", "--limit",
                         "1000000000")
        self.keys = [org["api_key"] for org in orgs]
        wait_until(lambda: all(self.post([SAMPLE_EVENT], key=key).status == 202 for key in self.keys),
                   "the organizations to be known")
        return self

    def __exit__(self, *exception) -> None:
        if exception[0] is None:
            wait_for_kafka(self)
            check_counts(self)
            check_receipts(self, "broker")
        super().__exit__(*exception)

    @property
    def pids(self) -> list[int]:
        return [self.pid]


@dataclass
class Leg:
    """A server under a load of batches of so many events."""

    name: str
    start: Callable  # a context manager
    events: int
    connections: int
    answer_means: str
    against: str = "Kavach"  # what of Kavach is like it
    wanted: float | None = None  # events per CPU second, Kavach's by its

    def figure(self, what: str) -> str:
        return f"peers.{self.events}.{self.connections}.{self.name}.{what}"


def legs_of(bench: Harness, services: Services, redis: RedisServer, folder: Path) -> list[Leg]:
    names = itertools.count()

    def kavach(topic: str, record_events: int) -> Callable:
        return lambda: kafka_node(bench, services, topic, LimitedNode, **{
            "kafka.receipt": "broker", "kafka.record_events_max": record_events, "redis.url": redis.unix_url,
            "redis.prefix": f"kavach-{next(names)}"})

    def fastapi(topic: str, record: str) -> Callable:
        return lambda: peers.FastapiIngest(folder / f"fastapi-{next(names)}", redis, services.brokers, topic, ORGS,
                                           record)

    def collector(topic: str, settings: dict) -> Callable:
        return lambda: peers.Collector(folder / f"collector-{next(names)}", services.brokers, topic, settings)

    def nginx(events: int) -> Callable:
        return lambda: peers.Nginx(folder / f"nginx-{next(names)}", events)

    legs = []
    for events, connections in loads(bench):
        def add(name: str, start: Callable, answer_means: str = "all in-sync replicas have it", **more) -> None:
            legs.append(Leg(name, start, events, connections, answer_means, **more))

        topic = f"peers-{events}"
        waits = COLLECTOR_TOGETHER if events == 1 else COLLECTOR_ALONE
        add("Kavach", kavach(topic, events))
        add("FastAPI", fastapi(topic, "batch"), wanted=20 if events == 1 else 60)
        add("Collector", collector(topic, waits), wanted=5)
        add("nginx", nginx(events), "nothing, it does nothing")
        if bench.options.quick:
            continue
        if connections == CONNECTIONS:
            add("Collector, queue", collector(topic, COLLECTOR_EARLY), "its memory has it")
        if events > 1:
            one = "a record an event"
            add(f"Kavach, {one}", kavach(topic, 1), against=f"Kavach, {one}")
            add(f"FastAPI, {one}", fastapi(topic, "event"), against=f"Kavach, {one}")
    return legs


def loads(bench: Harness) -> tuple[tuple[int, int], ...]:
    return LOADS_QUICK if bench.options.quick else LOADS


def measure_leg(bench: Harness, leg: Leg, servers: dict[str, int]) -> dict:
    with contextlib.ExitStack() as running:
        with on_core(bench.options.server_core):
            server = running.enter_context(leg.start())

        def run_load(seconds: float) -> dict:
            return bench.load([*server.pids, *servers.values()], server.port, server.keys, "--events", leg.events, "--format",
                              server.FORMAT, path=server.PATH, connections=leg.connections, seconds=seconds, check=False)

        run_load(server.LEAD_IN_S)  # no figure of it is kept
        run = run_load(bench.options.seconds)
        refused = run["faults"].pop("status 429", 0) / (run["answers"] or 1)
        if run["faults"] or refused > REFUSED_MAX or run["answers"] == 0:
            sys.exit(f"scripts/bench: {leg.name}: {refused:.1%} refused, {run['faults']}: the figures mean nothing")
        own = sum(run["process_cpu"][str(pid)] for pid in server.pids)
    events = run["answers"] * leg.events
    return {"per_s": events / run["window_s"], "cpu_us": own / events, "per_cpu_s": events / own * 1e6,
            "p50_ms": run["latency"]["p50"] / 1e3, "refused": refused,
            } | {f"{name}_us": run["process_cpu"][str(pid)] / events for name, pid in servers.items()}


def measure(bench: Harness) -> Measured:
    figures = Figures()
    with contextlib.ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(dir=bench.options.directory)))
        with on_core(bench.options.load_core):
            services = running.enter_context(Services(bench, "kafka"))
            redis = running.enter_context(RedisServer(folder / "redis"))
        servers = {"redis": redis.process.pid, "kafka": services.pid("kafka")}
        legs = legs_of(bench, services, redis, folder)
        for topic in {f"peers-{events}" for events, _ in loads(bench)}:
            shutil.rmtree(kafka_node(bench, services, topic).folder)
        if not bench.options.quick:
            measure_leg(bench, legs[0], servers)  # a broker that has just started is slow
        for repetition in bench.repetitions():
            rounds = {}
            for leg in legs if repetition % 2 == 0 else reversed(legs):
                redis.flush()
                rounds[leg.name, leg.events, leg.connections] = measure_leg(bench, leg, servers)
            for leg in legs:
                own, kavach = (rounds[name, leg.events, leg.connections] for name in (leg.name, leg.against))
                own["kavach_by_peer"] = kavach["per_cpu_s"] / own["per_cpu_s"]
                figures.add({leg.figure(what): value for what, value in own.items()})
    return Measured(figures, [table_of(figures, legs)], setting="each server on one core; load, Redis and Kafka on another")


def table_of(f: Figures, legs: list[Leg]) -> Table:
    rows_of_it = []
    for leg in legs:
        def show(what: str, form: str = "{:.0f}") -> str:
            return f.show(leg.figure(what), form)

        ratio = "" if leg.name == leg.against else f"{show('kavach_by_peer', '{:.1f}')} x"
        wanted = ""
        if leg.wanted is not None:
            met = f.median(leg.figure("kavach_by_peer")) >= leg.wanted
            wanted = f">= {leg.wanted} x: {'met' if met else '**not met**'}"
        rows_of_it.append([f"{leg.events}, {leg.connections}", leg.name, leg.answer_means, show("per_s"), show("cpu_us", "{:.2f}"),
                           show("per_cpu_s"), f"{show('redis_us', '{:.2f}')} / {show('kafka_us', '{:.2f}')}", ratio, wanted])
    return ["events a request, connections", "server", "a success says", "events/s", "CPU us per event", "events per CPU second",
            "CPU us per event of Redis / Kafka", "Kavach by it", "wanted"], rows_of_it
