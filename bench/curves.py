"""How cost and latency move with the size of a batch, with the load, and with how much there is of everything:
`scripts/bench ingest latency scale`.

Each repetition runs Kavach and its ceiling, the null server, one after the other, every second time in the other order.
"""

import contextlib
import hashlib
import json
import os
import resource
import secrets
import sqlite3
import time
import uuid
from pathlib import Path

from harness import CONNECTIONS, NULL_KEY, ROOT, Figures, Harness, Measured, Row, check_counts, cpu_us, judged, rate
from report import Chart, Section
from support.kavachd import wait_until

SIZES = (1, 10, 100, 1000)  # events of a batch
MANY_CONNECTIONS = 1024  # so many that a commit of the journal serves a few hundred batches
ORGS_OF_SHARDS = 16
PARTS = (0.2, 0.5, 0.8)  # of the peak
PERCENTILES = {"p50": "p50", "p90": "p90", "p99": "p99", "p99_9": "p99.9"}
# Connections: as many files as may be open, and ports as one address has.
MANY = {"orgs": (10, 1_000, 100_000), "connections": (10, 1_000, min(28_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 1_000))}
MANY_QUICK = {"orgs": (10, 200), "connections": (10, 200)}
Many = dict[str, tuple[int, ...]]

Values = dict[str, list[float]]  # of Figures.by_name


def cpu_ns(run: dict, events: int) -> float:
    return cpu_us(run) * 1e3 / events


def events_per_s(run: dict, events: int) -> float:
    return rate(run) * events


def in_turn(repetition: int, *legs) -> dict:
    figures = {}
    for leg in legs if repetition % 2 == 0 else reversed(legs):
        figures |= leg()
    return figures


# --- ingest ----------------------------------------------------------------------------------------------------


def measure_ingest(bench: Harness) -> Measured:
    figures = Figures()

    def costs(name: str, run: dict, events: int) -> dict:
        return {f"ingest.{name}.{events}.cpu_ns": cpu_ns(run, events), f"ingest.{name}.{events}.per_s": events_per_s(run, events)}

    def null(events: int, connections: int = CONNECTIONS, name: str = "null") -> dict:
        with bench.null_server(events) as (pid, port):
            run = bench.load(pid, port, [NULL_KEY], "--events", events, "--spin", connections=connections)
        return costs(name, run, events)

    def plain(events: int, connections: int = CONNECTIONS, name: str = "plain") -> dict:
        with bench.node() as node:
            run = bench.load(node.pid, node.port, node.keys, "--events", events, "--spin", connections=connections)
            check_counts(node)
        return costs(name, run, events)

    def gzip(events: int) -> dict:
        # Bodies x keys are the requests there are: more than the machine can take.
        bodies = {1: 8192, 10: 8192, 100: 2048, 1000: 256}[events]
        with bench.node() as node:
            node.make_keys(8 if bench.options.quick else 100)
            run = bench.load(node.pid, node.port, node.keys, "--events", events, "--gzip", "--gzip-bodies", bodies, "--spin")
            check_counts(node)
        return costs("gzip", run, events)

    def shards(count: int) -> dict:
        """On both cores, which they share with the load: so what counts is their own CPU. Of several organizations,
        whose processes have connections of their own."""
        before = os.sched_getaffinity(0)
        with bench.node(settings={"engine.shards": count}) as node:
            node.make_keys(ORGS_OF_SHARDS)
            for task in Path(f"/proc/{node.pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), before)
            run = bench.load(node.pid, node.port, node.keys, "--events", 100, "--key-per-connection")
            check_counts(node)
        return {f"ingest.shards.{count}.cpu_ns": cpu_ns(run, 100)}

    for repetition in bench.repetitions():
        measured = {}
        for events in SIZES:
            measured |= in_turn(repetition, lambda: null(events), lambda: plain(events), lambda: gzip(events))
        measured |= in_turn(repetition, lambda: null(1, MANY_CONNECTIONS, "null_many"), lambda: plain(1, MANY_CONNECTIONS, "plain_many"))
        measured |= in_turn(repetition, lambda: shards(1), lambda: shards(2))
        for name in ("", "_many"):
            measured[f"ingest.one{name}_of_null"] = measured[f"ingest.null{name}.1.cpu_ns"] / measured[f"ingest.plain{name}.1.cpu_ns"]
        measured["ingest.scale"] = 2 * measured["ingest.shards.1.cpu_ns"] / measured["ingest.shards.2.cpu_ns"]
        figures.add(measured)
    return Measured(figures, [judged(rows_of_ingest(figures))], sections_of_ingest(figures.by_name, instruction_counts()))


def rows_of_ingest(f: Figures) -> list[Row]:
    def ns(name: str) -> str:
        return f.show(f"ingest.{name}.cpu_ns") + " ns CPU per event"

    rows = [("1 event, plain: requests per CPU second, of the null server's", f.show("ingest.one_of_null", "{:.2f}"), ">= 0.75",
             f.median("ingest.one_of_null") >= 0.75)]
    for label, name, most in (("100 events, plain", "plain.100", 400), ("1000 events, plain", "plain.1000", 320),
                              ("100 events, gzip", "gzip.100", 600)):
        rows.append((f"{label}, `journal` receipt", ns(name), f"<= {most} ns", f.median(f"ingest.{name}.cpu_ns") <= most))
    rows.append(("two shards against one, 100 events: work per CPU second, times the shards", f.show("ingest.scale", "{:.2f}") + " x",
                 ">= 1.8 x", f.median("ingest.scale") >= 1.8))
    rows.append((f"1 event, plain, over {MANY_CONNECTIONS:,} connections: of the null server's",
                 f.show("ingest.one_many_of_null", "{:.2f}"), "", None))
    rows.append(("10 events, plain", ns("plain.10"), "", None))
    rows.append(("1 / 1000 events, gzip", f"{ns('gzip.1')} / {ns('gzip.1000')}", "", None))
    rows.append(("null server, 1 / 10 / 100 / 1000 events", " / ".join(f.show(f"ingest.null.{n}.cpu_ns") for n in SIZES) + " ns", "", None))
    return rows


def sections_of_ingest(figures: Values, instructions: dict) -> list[Section]:
    def lines(what: str) -> dict:
        return {name: [(events, figures[f"ingest.{name}.{events}.{what}"]) for events in SIZES] for name in ("plain", "gzip", "null")}

    return [
        Section("Cost per event against the size of a batch",
                "CPU, user and system, of the whole server process. The null server answers without looking.",
                Chart(lines("cpu_ns"), "events of a batch", "ns CPU per event", log_x=True, log_y=True)),
        Section("Throughput against the size of a batch", "64 connections in a closed loop, server and load on a core each.",
                Chart(lines("per_s"), "events of a batch", "events per second", log_x=True, log_y=True)),
        Section("Instructions per event", "Counted by callgrind, without socket and disk (bench/instructions.json).",
                table=(["case", "instructions per event"], [[name, f"{count:,.0f}"] for name, count in instructions.items()])),
    ]


# --- latency ---------------------------------------------------------------------------------------------------


def measure_latency(bench: Harness) -> Measured:
    """At fixed rates: each latency counts from when its request was due, so that a server that stalls pays for it."""
    figures = Figures()

    @contextlib.contextmanager
    def kavach():
        with bench.node() as node:
            yield node.pid, node.port, node.keys
            check_counts(node)

    @contextlib.contextmanager
    def null():
        with bench.null_server(100) as (pid, port):
            yield pid, port, [NULL_KEY]

    def legs_of(name: str, server) -> dict:
        """A server of its own for each leg: together they send more keys than a node remembers."""
        with server() as (pid, port, keys):
            peak = bench.load(pid, port, keys, "--events", 100)
        measured = {f"latency.{name}.peak": events_per_s(peak, 100), f"latency.{name}.100.cpu_ns": cpu_ns(peak, 100)}
        for part in PARTS:
            with server() as (pid, port, keys):
                run = bench.load(pid, port, keys, "--events", 100, "--rate", rate(peak) * part)
            percent = round(part * 100)
            measured |= {f"latency.{name}.{percent}.{p}": run["latency"][p] for p in PERCENTILES}
            measured[f"latency.{name}.{percent}.cpu_ns"] = cpu_ns(run, 100)
        return measured

    for repetition in bench.repetitions():
        measured = in_turn(repetition, lambda: legs_of("kavach", kavach), lambda: legs_of("null", null))
        disk = bench.run_tool("kavach-disk", bench.options.server_core, "--directory", bench.options.directory, "--duration",
                              bench.options.seconds / 2, "--group-bytes", 65_536, "--frames", 2)
        measured["latency.commit.p99"] = disk["p99"]
        measured["latency.of_bound"] = measured["latency.kavach.50.p99"] / (2 * measured["latency.null.50.p99"] + disk["p99"])
        figures.add(measured)
    return Measured(figures, [judged(rows_of_latency(figures))], sections_of_latency(figures.by_name))


def rows_of_latency(f: Figures) -> list[Row]:
    def ms(name: str) -> str:
        return f.show(f"latency.{name}", "{:.2f}", 1e-3)

    rows = [("p99 at half the peak, of twice the null server's and one commit of the disk",
             f"{f.show('latency.of_bound', '{:.1f}')}: {ms('kavach.50.p99')} ms; {ms('null.50.p99')} and {ms('commit.p99')} ms", "<= 1",
             f.median("latency.of_bound") <= 1)]
    for part in PARTS:
        percent = round(part * 100)
        rows.append((f"p50 / p99 / p99.9 at {percent} % of the peak",
                     " / ".join(ms(f"kavach.{percent}.{p}") for p in ("p50", "p99", "p99_9")) + " ms; null server "
                     + " / ".join(ms(f"null.{percent}.{p}") for p in ("p50", "p99", "p99_9")) + " ms", "", None))
    return rows


def sections_of_latency(figures: Values) -> list[Section]:
    percents = [round(part * 100) for part in PARTS]
    curves = {f"{name} {shown}": [(percent, [us / 1e3 for us in figures[f"latency.{name}.{percent}.{p}"]]) for percent in percents]
              for name in ("kavach", "null") for p, shown in PERCENTILES.items() if p != "p90"}
    by_percentile = {f"{name}, {percent} %": [(i + 1, [us / 1e3 for us in figures[f"latency.{name}.{percent}.{p}"]])
                                              for i, p in enumerate(PERCENTILES)]
                     for name in ("kavach", "null") for percent in percents}
    cost = {name: [(percent, figures[f"latency.{name}.{percent}.cpu_ns"]) for percent in (*percents, 100)] for name in ("kavach", "null")}
    return [
        Section("Latency against load", "100 events a batch at fixed rates, 64 connections; from when a request was due to its answer.",
                Chart(curves, "% of the peak", "ms", log_y=True)),
        Section("Latency curves", "The same by percentile.",
                Chart(by_percentile, "percentile", "ms", log_y=True, x_names=list(PERCENTILES.values()))),
        Section("Cost per event against load", "100 % is the closed loop.",
                Chart(cost, "% of the peak", "ns CPU per event")),
    ]


# --- scale -----------------------------------------------------------------------------------------------------


def add_orgs(node, count: int) -> list[str]:
    """Organizations with a key each, put into the node's store while it runs; returns the keys once they are known."""
    prefix, now = node.key[:9], int(time.time() * 1e6)
    keys = [prefix + secrets.token_hex(32) for _ in range(count)]
    ids = [(str(uuid.uuid4()), str(uuid.uuid4()), str(uuid.uuid4())) for _ in keys]
    with contextlib.closing(sqlite3.connect(node.store, timeout=60)) as store, store:
        store.executemany("INSERT INTO organizations (id, name, tier, created_at_us, updated_at_us) VALUES (?, 'o', 'max', ?, ?)",
                          [(org, now, now) for org, _, _ in ids])
        store.executemany("INSERT INTO projects (id, org_id, name, is_default, created_at_us, updated_at_us) VALUES (?, ?, 'Default', 1, ?, ?)",
                          [(project, org, now, now) for org, project, _ in ids])
        store.executemany("INSERT INTO subscriptions (org_id, tier, status, updated_at_us) VALUES (?, 'max', 'active', ?)",
                          [(org, now) for org, _, _ in ids])
        store.executemany("INSERT INTO api_keys (id, kind, org_id, project_id, name, prefix, key_hash, created_at_us) "
                          "VALUES (?, 'ak', ?, ?, 'k', ?, ?, ?)",
                          [(id, org, project, key[:16], hashlib.sha256(key.encode()).hexdigest(), now)
                           for key, (org, project, id) in zip(keys, ids)])
    wait_until(lambda: node.post([], key=keys[-1]).status != 401, "the last key is known")
    return keys


def measure_scale(bench: Harness) -> Measured:
    """Batches of 100 events of so many organizations in turn; and over so many connections."""
    figures = Figures()

    def orgs(count: int) -> dict:
        with bench.node() as node:
            key_file = node.folder / "keys"
            key_file.write_text("".join(key + "\n" for key in add_orgs(node, count)))
            run = bench.load(node.pid, node.port, [], "--key-file", key_file, "--events", 100)
            check_counts(node)
        return {f"scale.orgs.{count}.cpu_ns": cpu_ns(run, 100)}

    def connections(count: int) -> dict:
        with bench.node() as node:
            run = bench.load(node.pid, node.port, node.keys, "--events", 100, connections=count)
            check_counts(node)
        return {f"scale.connections.{count}.cpu_ns": cpu_ns(run, 100)}

    many = MANY_QUICK if bench.options.quick else MANY
    for repetition in bench.repetitions():
        measured = in_turn(repetition, *(lambda n=n: orgs(n) for n in many["orgs"]),
                           *(lambda n=n: connections(n) for n in many["connections"]))
        for what, counts in many.items():
            costs = [measured[f"scale.{what}.{n}.cpu_ns"] for n in counts]
            measured[f"scale.{what}.ratio"] = max(costs) / costs[0]
        figures.add(measured)
    return Measured(figures, [judged(rows_of_scale(figures, many))], sections_of_scale(figures.by_name, many))


def rows_of_scale(f: Figures, many: Many) -> list[Row]:
    return [(f"100 events, of {' / '.join(f'{n:,}' for n in counts)} {what}",
             f"{' / '.join(f.show(f'scale.{what}.{n}.cpu_ns') for n in counts)} ns CPU per event: {f.show(f'scale.{what}.ratio', '{:.2f}')} x",
             "<= 1.3 x", f.median(f"scale.{what}.ratio") <= 1.3)
            for what, counts in many.items()]


def sections_of_scale(figures: Values, many: Many) -> list[Section]:
    return [Section(f"Cost per event against {what}", "Batches of 100 events.",
                    Chart({what: [(n, figures[f"scale.{what}.{n}.cpu_ns"]) for n in counts]}, what, "ns CPU per event", log_x=True))
            for what, counts in many.items()]


def instruction_counts() -> dict:
    return json.loads((ROOT / "bench" / "instructions.json").read_text())
