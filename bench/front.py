"""What the front costs: a request, an event, a receipt, a connection and a key: `scripts/bench front`.

Every repetition runs all cases once, one after the other, each against a fresh process, so that a disturbance of the
machine meets all of them.
"""

import socket
import time

from harness import CONNECTIONS, NULL_KEY, Figures, Harness, Measured, Row, check_counts, cpu_us, judged, rate, thread_us
from support.kavachd import wait_until

IDLE_CONNECTIONS = 10_000
REMEMBERED_KEYS = 1_000_000


# --- cases: each returns its figures by name -------------------------------------------------------------------


def case_one_event(bench: Harness) -> dict:
    with bench.null_server(1) as (pid, port):
        null = bench.load(pid, port, [NULL_KEY])
    with bench.node() as node:
        kavach = bench.load(node.pid, node.port, node.keys)
        check_counts(node)
    return {
        "one.null_us": cpu_us(null),
        "one.null_rate": rate(null),
        "one.cpu_us": cpu_us(kavach),
        "one.shard_us": thread_us(kavach, "shard-0"),
        "one.journal_us": thread_us(kavach, "journal"),
        "one.rate": rate(kavach),
        "one.ratio": cpu_us(kavach) / cpu_us(null),
    }


def case_hundred_plain(bench: Harness) -> dict:
    words = ("--events", 100)
    with bench.null_server(100) as (pid, port):
        null = bench.load(pid, port, [NULL_KEY], *words)
    with bench.node() as node:
        peak = bench.load(node.pid, node.port, node.keys, *words)
        check_counts(node)
    return {
        "plain.null_us": cpu_us(null),
        "plain.ns_per_event": cpu_us(peak) * 10,
        "plain.shard_ns": thread_us(peak, "shard-0") * 10,
        "plain.journal_ns": thread_us(peak, "journal") * 10,
        "plain.events_per_s": rate(peak) * 100,
        "plain.rate": rate(peak),
        "peak.p50_us": peak["latency"]["p50"],
        "peak.p99_us": peak["latency"]["p99"],
    }


def case_hundred_gzip(bench: Harness) -> dict:
    # Enough for more than the machine can take: bodies x keys are the requests there are.
    bodies, keys = (1024, 8) if bench.options.quick else (2048, 100)
    with bench.node() as node:
        node.make_keys(keys)
        run = bench.load(node.pid, node.port, node.keys, "--events", 100, "--gzip", "--gzip-bodies", bodies)
        check_counts(node)
    return {
        "gzip.ns_per_event": cpu_us(run) * 10,
        "gzip.shard_ns": thread_us(run, "shard-0") * 10,
        "gzip.journal_ns": thread_us(run, "journal") * 10,
        "gzip.events_per_s": rate(run) * 100,
    }


def case_receipts(bench: Harness, peak_rate: float) -> dict:
    """At half the peak, where what is waited for is the disk; then the disk alone, with groups of the same size."""
    with bench.node() as node:
        bench.load(node.pid, node.port, node.keys, "--events", 100, seconds=bench.options.seconds / 2)  # segments to recycle
        before = [node.metric(f"kavach_journal_{what}_total") for what in ("groups", "bytes", "frames")]
        run = bench.load(node.pid, node.port, node.keys, "--events", 100, "--rate", peak_rate / 2)
        after = [node.metric(f"kavach_journal_{what}_total") for what in ("groups", "bytes", "frames")]
        check_counts(node)
    groups, group_bytes, frames = (b - a for a, b in zip(before, after))
    disk = bench.run_tool("kavach-disk", bench.options.server_core, "--directory", bench.options.directory,
                          "--duration", bench.options.seconds, "--group-bytes", round(group_bytes / groups),
                          "--frames", max(1, round(frames / groups)))
    return {
        "receipts.rate": rate(run),
        "receipts.frames_per_group": frames / groups,
        "receipts.p50_us": run["latency"]["p50"],
        "receipts.p99_us": run["latency"]["p99"],
        "receipts.p99_9_us": run["latency"]["p99_9"],
        "disk.p50_us": disk["p50"],
        "disk.p99_us": disk["p99"],
        "receipts.ratio": run["latency"]["p99"] / disk["p99"],
    }


def case_sqlite(bench: Harness) -> dict:
    with bench.node("sqlite") as node:
        def stored_events() -> float:
            return node.metric("kavach_shipper_events_total")

        before, cpu = stored_events(), node.cpu_s("shipper")
        run = bench.load(node.pid, node.port, node.keys, "--events", 100)
        # A short window may end within the first transaction.
        stored = wait_until(lambda: stored_events() - before, "a transaction of the shipper")
        cpu = node.cpu_s("shipper") - cpu
        check_counts(node)
    return {
        "sqlite.front_ns": thread_us(run, "shard-0", "journal") * 10,
        "sqlite.shipper_ns": cpu * 1e9 / stored,
        "sqlite.events_per_s": rate(run) * 100,
    }


def case_memory(bench: Harness) -> dict:
    """Of an idle connection that has had an answer, and of a million keys."""
    connections, keys = (1000, 100_000) if bench.options.quick else (IDLE_CONNECTIONS, REMEMBERED_KEYS)
    with bench.node(expected_keys=0) as node:
        def send(requests: int, *words) -> None:
            bench.load(node.pid, node.port, node.keys, "--requests", requests, *words)

        # Buffers and pools first.
        send(500, "--events", 100)
        before = node.resident_bytes()
        idle = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(connections)]
        for connection in idle:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: bench\r\n\r\n")
        for connection in idle:
            assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
        connection_bytes = (node.resident_bytes() - before) / connections
        for connection in idle:
            connection.close()
        before, table_before = node.resident_bytes(), node.metric("kavach_dedup_bytes")
        send(keys // 100, "--events", 100)
        time.sleep(0.5)  # the gauges are set at the next tick
        key_bytes = (node.resident_bytes() - before) / keys
        table_bytes = (node.metric("kavach_dedup_bytes") - table_before) / keys
        check_counts(node)
    return {
        "memory.connection_bytes": connection_bytes,
        "memory.key_bytes": key_bytes,
        "memory.table_bytes": table_bytes,
    }


# --- the suite -------------------------------------------------------------------------------------------------


def measure(bench: Harness) -> Measured:
    figures = Figures()
    for repetition in bench.repetitions():
        figures.add(case_one_event(bench))
        figures.add(case_hundred_plain(bench))
        figures.add(case_hundred_gzip(bench))
        figures.add(case_receipts(bench, figures.by_name["plain.rate"][-1]))
        figures.add(case_sqlite(bench))
        if repetition == 0:
            figures.add(case_memory(bench))
    return Measured(figures, [judged(rows(figures))])


def rows(f: Figures) -> list[Row]:
    mib_per_million = f.median("memory.key_bytes") * 1e6 / 2**20
    return [
        ("1 event, plain",
         f"{f.show('one.cpu_us', '{:.2f}')} us CPU per request: {f.show('one.ratio', '{:.2f}')} x the null server's "
         f"{f.show('one.null_us', '{:.2f}')} us", "<= 1.6 x", f.median("one.ratio") <= 1.6),
        ("100 events, plain", f"{f.show('plain.ns_per_event')} ns CPU per event", "<= 550 ns",
         f.median("plain.ns_per_event") <= 550),
        ("100 events, gzip", f"{f.show('gzip.ns_per_event')} ns CPU per event", "<= 850 ns",
         f.median("gzip.ns_per_event") <= 850),
        (f"`journal` receipts, {CONNECTIONS} connections x 100 events, half the peak rate",
         f"p99 {f.show('receipts.p99_us', '{:.2f}', 1e-3)} ms: {f.show('receipts.ratio', '{:.1f}')} x the disk's own "
         f"p99 for one group commit, {f.show('disk.p99_us', '{:.2f}', 1e-3)} ms", "<= 3 x",
         f.median("receipts.ratio") <= 3),
        ("an idle connection", f"{f.show('memory.connection_bytes')} bytes", "<= 8192",
         f.median("memory.connection_bytes") <= 8192),
        ("1,000,000 remembered keys", f"{mib_per_million:.1f} MiB", "<= 40 MiB", mib_per_million <= 40),
        ("peak, 1 event a request", f"{f.show('one.rate')} events/s; null server {f.show('one.null_rate')}", "", None),
        ("peak, 100 events plain",
         f"{f.show('plain.events_per_s')} events/s, p50 {f.show('peak.p50_us', '{:.1f}', 1e-3)} ms, p99 "
         f"{f.show('peak.p99_us', '{:.1f}', 1e-3)} ms", "", None),
        ("peak, 100 events gzip", f"{f.show('gzip.events_per_s')} events/s", "", None),
        ("where the CPU goes, per event: shard / journal",
         f"1 plain {f.show('one.shard_us', '{:.2f}')} / {f.show('one.journal_us', '{:.2f}')} us; 100 plain "
         f"{f.show('plain.shard_ns')} / {f.show('plain.journal_ns')} ns; 100 gzip {f.show('gzip.shard_ns')} / "
         f"{f.show('gzip.journal_ns')} ns", "", None),
        ("SQLite following on the same core, 100 events plain",
         f"front {f.show('sqlite.front_ns')} ns CPU per event, shipper {f.show('sqlite.shipper_ns')} ns per stored "
         f"event, {f.show('sqlite.events_per_s')} events/s", "", None),
    ]
