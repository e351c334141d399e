"""What carries events on behind the journal, beside the least that could: `scripts/bench followers`.

Each beside its ceiling in the same run, turn by turn (kavach-pipeline, and `psql \\copy`).
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from harness import Figures, Harness, Measured, Row, check_counts, cpu_us, judged, say
from services import Services, check_receipts, kafka_node, wait_for_kafka

TABLES = ("events", "dedup_keys", "agents", "runs", "usage_minute", "usage_hourly", "usage_hourly_dim",
          "usage_daily_platform", "node_usage")
DATABASE = "kavach_race"
EVENTS = 200_000  # of a case
# Kafka takes this many times the events: they are gone in half a second otherwise.
KAFKA_TIMES = 3
# With `journal` receipts the backlog of one second takes many to be carried away.
BROKER_SECONDS, JOURNAL_SECONDS = 4, 1
RECEIPT_ORGS = 16  # a record goes to the partition of its organization
# No repetition begins that would probably end later than this after the start.
SECONDS_MAX = 330
# A ceiling whose best and worst repetition are further apart says that others had the machine.
CEILING_SPREAD_MAX = 1.5


def race(bench: Harness, case: str, *words, times: int = 1) -> dict:
    """One round: by leg, events per second and CPU per event of the client."""
    done = subprocess.run([bench.tools / "kavach-pipeline", case, "--json", "--events", str(bench.events(EVENTS) * times),
                           "--directory", bench.options.directory, *map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"scripts/bench: kavach-pipeline {case}: {done.stderr}{done.stdout}")
    return json.loads(done.stdout)


def figures_of_race(case: str, legs: dict) -> dict:
    figures = {f"{case}.{leg}_{what}": value for leg, run in legs.items() for what, value in run.items()}
    for leg, run in legs.items():
        if leg != "kavach":
            figures[f"{case}.of_{leg}"] = legs["kavach"]["per_s"] / run["per_s"]
    return figures


def case_kafka_shipper(bench: Harness, services: Services, swapped: bool) -> dict:
    legs = race(bench, "kafka", "--brokers", services.brokers, *["--ceiling-first"] * swapped, times=KAFKA_TIMES)
    cpu = legs["ceiling"]["cpu_us"] / legs["kavach"]["cpu_us"]
    return figures_of_race("ship_kafka", legs) | {"ship_kafka.cpu_of_ceiling": cpu}


def case_sqlite_shipper(bench: Harness, _: Services, swapped: bool) -> dict:
    return figures_of_race("ship_sqlite", race(bench, "sqlite", *["--ceiling-first"] * swapped))


def rows_of_postgres(bench: Harness, services: Services) -> dict[str, Path]:
    """Files of what the writer stores, table by table; its tables are there, with their partitions."""
    services.psql("postgres", f"CREATE DATABASE {DATABASE}")
    race(bench, "postgres", "--url", services.url(DATABASE))
    files = {table: services.folder / f"{table}.copy" for table in ("events", "dedup_keys")}
    for table, file in files.items():
        services.psql(DATABASE, f"\\copy (SELECT * FROM {table}) to '{file}'")
    return files


def case_postgres_writer(bench: Harness, services: Services, swapped: bool) -> dict:
    """Each leg has the same tables, emptied, all to itself."""
    def empty() -> None:
        services.psql(DATABASE, "TRUNCATE " + ", ".join(TABLES), "CHECKPOINT")

    def copied(*tables: str) -> dict:
        empty()
        started = time.monotonic()
        for table in tables:
            services.psql(DATABASE, f"\\copy {table} from '{services.rows[table]}'")
        seconds = time.monotonic() - started
        if services.psql(DATABASE, f"SELECT COUNT(*) FROM {tables[0]}") != str(bench.events(EVENTS)):
            sys.exit("scripts/bench: psql has not copied every row: the figures mean nothing")
        return {"per_s": bench.events(EVENTS) / seconds}

    def written() -> dict:
        empty()
        return race(bench, "postgres", "--url", services.url(DATABASE))["kavach"]

    order = [("kavach", written), ("ceiling", lambda: copied("events"))]
    if swapped:
        order.reverse()
    legs = {leg: run() for leg, run in (*order, ("tables", lambda: copied("events", "dedup_keys")))}
    return figures_of_race("write_postgres", legs)


def case_receipt_classes(bench: Harness, services: Services, swapped: bool) -> dict:
    """A node whose answers wait for Kafka, and one whose answers do not: events a second until Kafka has all of them, since
    the second one takes more than it can pass on."""
    def carried(receipt: str) -> dict:
        topic = f"receipts-{receipt}-{time.monotonic_ns()}"
        with kafka_node(bench, services, topic, **{"kafka.receipt": receipt}) as node:
            node.make_keys(RECEIPT_ORGS)  # and the producer's way to the broker is known
            started = time.monotonic()
            run = bench.load(node.pid, node.port, node.keys, "--events", 100,
                             seconds=BROKER_SECONDS if receipt == "broker" else JOURNAL_SECONDS)
            wait_for_kafka(node)
            seconds = time.monotonic() - started
            check_counts(node)
            check_receipts(node, receipt)
            return {"per_s": node.metric("kavach_ingest_events_accepted_total") / seconds,
                    "p50_ms": run["latency"]["p50"] / 1e3}

    order = ["broker", "journal"] if swapped else ["journal", "broker"]
    legs = {receipt: carried(receipt) for receipt in order}
    figures = {f"receipt.{leg}_{what}": value for leg, run in legs.items() for what, value in run.items()}
    return figures | {"receipt.broker_of_journal": legs["broker"]["per_s"] / legs["journal"]["per_s"]}


def case_broker_cost(bench: Harness, services: Services, swapped: bool) -> dict:
    """What an event costs the whole process when its answer waits for Kafka: a record each, and a record a batch."""
    def cost(record_events: int) -> dict:
        topic = f"cost-{record_events}-{time.monotonic_ns()}"
        settings = {"kafka.receipt": "broker", "kafka.record_events_max": record_events}
        with kafka_node(bench, services, topic, **settings) as node:
            node.make_keys(RECEIPT_ORGS)
            run = bench.load(node.pid, node.port, node.keys, "--events", 100)
            check_receipts(node, "broker")
        return {f"broker.{record_events}.cpu_us": cpu_us(run) / 100}

    first, second = (100, 1) if swapped else (1, 100)
    return cost(first) | cost(second)


# A case is called once per repetition, with the order of its legs turned round every second time.
CASES = (case_kafka_shipper, case_sqlite_shipper, case_postgres_writer, case_receipt_classes, case_broker_cost)


def measure(bench: Harness) -> Measured:
    figures = Figures()
    began = time.monotonic()
    with Services(bench, "postgres", "kafka") as services:
        services.rows = rows_of_postgres(bench, services)
        case_kafka_shipper(bench, services, False)  # a broker that has just started is slow
        longest = 0.0
        for repetition in bench.repetitions():
            started = time.monotonic()
            if started - began + longest > SECONDS_MAX:
                say(f"stopped after {repetition} repetitions: there is no time for more")
                break
            for case in CASES:
                figures.add(case(bench, services, repetition % 2 == 1))
            longest = max(longest, time.monotonic() - started)
    for name, values in figures.by_name.items():
        if name.endswith("ceiling_per_s") and max(values) > CEILING_SPREAD_MAX * min(values):
            say(f"warning: {name} was between {min(values):.0f} and {max(values):.0f}: the machine was busy, and the "
                "ratios of that case prove little")
    return Measured(figures, [judged(rows(figures))], setting=f"{bench.events(EVENTS)} events in batches of 100, of 32 "
                                                             "organizations, servers on the same machine")


def rows(f: Figures) -> list[Row]:
    def rates(case: str, leg: str) -> str:
        return f"{f.show(f'{case}.kavach_per_s')} of {f.show(f'{case}.{leg}_per_s')} events/s"

    def ratio(name: str) -> str:
        return f.show(name, "{:.2f}")

    return [
        ("Kafka shipper, of the same records sent by a bare loop of `rd_kafka_producev()`",
         f"{ratio('ship_kafka.of_ceiling')}: {rates('ship_kafka', 'ceiling')}", ">= 0.7",
         f.median("ship_kafka.of_ceiling") >= 0.7),
        ("its CPU per event; the bare loop's",
         f"{f.show('ship_kafka.kavach_cpu_us', '{:.2f}')} us; {f.show('ship_kafka.ceiling_cpu_us', '{:.2f}')} us: "
         f"{ratio('ship_kafka.cpu_of_ceiling')} of the speed", ">= 0.7",
         f.median("ship_kafka.cpu_of_ceiling") >= 0.7),
        ("SQLite shipper, of bare prepared inserts into `events` alone",
         f"{ratio('ship_sqlite.of_ceiling')}: {rates('ship_sqlite', 'ceiling')}", ">= 0.7",
         f.median("ship_sqlite.of_ceiling") >= 0.7),
        ("the same, of bare inserts into `events` and `dedup_keys`",
         f"{ratio('ship_sqlite.of_tables')}: {rates('ship_sqlite', 'tables')}", "", None),
        ("Postgres writer, of `psql \\copy` into `events` alone",
         f"{ratio('write_postgres.of_ceiling')}: {rates('write_postgres', 'ceiling')}", ">= 0.6",
         f.median("write_postgres.of_ceiling") >= 0.6),
        ("the same, of `psql \\copy` into `events` and `dedup_keys`",
         f"{ratio('write_postgres.of_tables')}: {rates('write_postgres', 'tables')}", "", None),
        ("`broker` receipts, of `journal` receipts: events taken and in Kafka, 64 connections x 100 events",
         f"{ratio('receipt.broker_of_journal')}: {f.show('receipt.broker_per_s')} of {f.show('receipt.journal_per_s')} "
         f"events/s; p50 {f.show('receipt.broker_p50_ms', '{:.1f}')} and {f.show('receipt.journal_p50_ms', '{:.1f}')} ms",
         ">= 0.8", f.median("receipt.broker_of_journal") >= 0.8),
        ("`broker` receipts, the way to Kafka included, 100 events a batch: a record each",
         f"{f.show('broker.1.cpu_us', '{:.2f}')} us CPU per event", "<= 1.8 us", f.median("broker.1.cpu_us") <= 1.8),
        ("the same, a record a batch", f"{f.show('broker.100.cpu_us', '{:.2f}')} us CPU per event", "<= 0.9 us",
         f.median("broker.100.cpu_us") <= 0.9),
    ]
