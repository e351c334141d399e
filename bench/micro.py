"""What limits cost, and what others pay for counting alone: `scripts/bench micro`.

Google Benchmark over the parts, and small fleets of real nodes on a real redis-server.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import RENEWAL_S, SAMPLE_EVENT, Figures, Harness, Measured, Row, judged, on_core
from support.redis import RedisServer

EVENT_DOLLARS = 0.0202  # an event of the load generator on average


def run_microbench(bench: Harness, name_filter: str) -> dict[str, dict]:
    """What Google Benchmark says, by the case's name without the run's conditions at its end."""
    done = subprocess.run([bench.tools / "kavach-microbench", f"--benchmark_filter={name_filter}", "--benchmark_format=json"],
                          capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"scripts/bench: kavach-microbench failed: {done.stderr}{done.stdout}")
    cases = json.loads(done.stdout)["benchmarks"]
    for case in cases:
        if case.get("error_occurred"):
            sys.exit(f"scripts/bench: {case['name']}: {case['error_message']}")
        if "items_per_second" in case:
            unit = {"ns": 1e-3, "us": 1, "ms": 1e3}[case["time_unit"]]
            case["cpu_us"], case["wall_us"] = case["cpu_time"] * unit, case["real_time"] * unit
    return {case["name"].split("/iterations")[0].split("/real_time")[0]: case for case in cases}


def case_limits(bench: Harness) -> dict:
    with on_core(bench.options.server_core):
        ours = run_microbench(bench, r"BM_AdmitNew/.*keys:10{4,6}/|BM_AdmitOrgs|BM_AdmitDuplicate|BM_OrgMemory")
    figures = {}
    for keys in (10_000, 100_000, 1_000_000):
        if (case := ours.get(f"BM_AdmitNew/events:100/keys:{keys}")) is not None:
            figures[f"limits.keys_{keys}_us"] = case["cpu_us"]
    figures["limits.duplicates_us"] = ours["BM_AdmitDuplicate/events:100"]["cpu_us"]
    for events in (1, 100):
        few, many = (ours[f"BM_AdmitOrgs/orgs:{orgs}/events:{events}"]["cpu_us"] for orgs in (10, 100_000))
        figures |= {f"limits.orgs_10_events_{events}_us": few, f"limits.orgs_100000_events_{events}_us": many,
                    f"limits.orgs_ratio_events_{events}": many / few}
    figures |= {f"limits.{what}": ours["BM_OrgMemory"][what] for what in ("org_bytes", "agent_bytes")}

    # On both cores: two shards, two threads, and a redis-server beside its client.
    both = run_microbench(bench, "BM_Verdict")
    for events in (1, 100):
        kavach, keyed = (both[f"BM_VerdictKavach/events:{events}/keys:{keys}"] for keys in (0, 1))
        redis = both[f"BM_VerdictRedis/events:{events}"]
        home = both[f"BM_VerdictOnHomeShard/events:{events}"]
        away, alone = (both[f"BM_VerdictFromOtherShard/events:{events}/under_way:{n}"] for n in (64, 1))
        per_batch = 5_000  # kBatches of bench/quota/home_shard_bench.cc
        figures |= {
            f"limits.kavach_{events}_us": kavach["cpu_us"],
            f"limits.kavach_keys_{events}_us": keyed["cpu_us"],
            f"limits.mutex_{events}_us": both[f"BM_VerdictMutexMap/events:{events}/threads:1"]["cpu_us"],
            f"limits.mutex_2_threads_{events}_us": both[f"BM_VerdictMutexMap/events:{events}/threads:2"]["cpu_us"],
            f"limits.redis_{events}_us": redis["cpu_us"] + redis["server_cpu_ns"] / 1e3,
            f"limits.redis_wall_{events}_us": redis["wall_us"],
            f"limits.redis_ratio_{events}": (redis["cpu_us"] + redis["server_cpu_ns"] / 1e3) / kavach["cpu_us"],
            f"limits.redis_keys_ratio_{events}": (redis["cpu_us"] + redis["server_cpu_ns"] / 1e3) / keyed["cpu_us"],
            f"limits.home_{events}_us": home["cpu_us"] / per_batch,
            f"limits.away_{events}_us": away["cpu_us"] / per_batch,
            f"limits.away_alone_{events}_us": alone["wall_us"] / per_batch,
        }
    return figures


# --- fleets ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def fleet(bench: Harness, size: int):
    """Nodes of one organization, which all have heard of it, on a redis-server."""
    with contextlib.ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(dir=bench.options.directory)))
        redis = running.enter_context(RedisServer(folder))
        nodes = []
        for _ in range(size):
            node = bench.node()
            node.settings |= {"redis.url": redis.unix_url, "store.path": str(folder / "fleet.db")}
            if nodes:
                node.key, node.org_id = nodes[0].key, nodes[0].org_id
            nodes.append(running.enter_context(node))
        yield redis, nodes


def case_pause(bench: Harness) -> dict:
    """The same load before Redis is paused and while it is, on a limit that has to be leased."""
    rate_wanted = 2_000
    with fleet(bench, 1) as (redis, [node]):
        node.command("org", "set", "--org", node.org_id, "--events-per-day", "1000000000")
        time.sleep(1.5)  # by then it is heard of

        def run() -> dict:
            return bench.load(node.pid, node.port, [node.key], "--events", 10, "--rate", rate_wanted, seconds=2)

        before = run()
        redis.pause()
        paused = run()
        redis.resume()
    return {"fleet.before_p99_ms": before["latency"]["p99"] / 1e3, "fleet.paused_p99_ms": paused["latency"]["p99"] / 1e3,
            "fleet.paused_ratio": paused["latency"]["p99"] / before["latency"]["p99"]}


def case_budget(bench: Harness) -> dict:
    """Three nodes spend one budget: what was admitted beyond it, against the bound of quota/DESIGN.md."""
    events, rate_wanted, seconds = 10, 200, 6
    with fleet(bench, 3) as (_, nodes):
        dollars = 3 * rate_wanted * events * EVENT_DOLLARS * seconds / 2
        nodes[0].command("budget", "set", "--org", nodes[0].org_id, "--type", "cost", "--period", "daily", "--limit",
                         f"{dollars:.6f}")
        time.sleep(1.5)
        runs = [subprocess.Popen(
            [bench.tools / "kavach-load", "--json", "--url", f"http://127.0.0.1:{node.port}/v1/ingest", "--key", node.key,
             "--connections", "8", "--events", str(events), "--rate", str(rate_wanted), "--warmup", "0",
             "--duration", str(seconds)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for node in nodes]
        for run in runs:
            run.communicate()  # refused batches are faults to it
        time.sleep(2 * RENEWAL_S)
        refused = nodes[0].post([SAMPLE_EVENT])  # says what all of them have spent
        if refused.status != 429:
            sys.exit("scripts/bench: the budget was not used up: the figures mean nothing")
        over = refused.json()["current_value"] - dollars
    spending = 3 * rate_wanted * events * EVENT_DOLLARS
    bound = spending * 2 * RENEWAL_S + 3 * 8 * events * EVENT_DOLLARS
    return {"budget.over_dollars": over, "budget.bound_dollars": bound, "budget.of_bound": over / bound}


# --- the suite -------------------------------------------------------------------------------------------------


def measure(bench: Harness) -> Measured:
    figures = Figures()
    for _ in bench.repetitions():
        figures.add(case_limits(bench))
        figures.add(case_pause(bench))
        figures.add(case_budget(bench))
    return Measured(figures, [judged(rows(figures))])


def rows(f: Figures) -> list[Row]:
    def us(name: str) -> str:
        return f.show(f"limits.{name}_us", "{:.2f}")

    return [
        ("verdict and settlement of 100 new events, in a table of 10,000 / 100,000 / 1,000,000 keys that grows",
         f"{us('keys_10000')} / {us('keys_100000')} / {us('keys_1000000')} us CPU", "<= 3 us",
         f.median("limits.keys_1000000_us") <= 3),
        ("the same without keys; 100 duplicates", f"{us('kavach_100')} us; {us('duplicates')} us", "", None),
        ("a batch of 100 of one of 10 / of 100,000 organizations",
         f"{us('orgs_10_events_100')} / {us('orgs_100000_events_100')} us: "
         f"{f.show('limits.orgs_ratio_events_100', '{:.2f}')} x", "<= 1.3 x",
         f.median("limits.orgs_ratio_events_100") <= 1.3),
        ("one event of one of 10 / of 100,000 organizations",
         f"{us('orgs_10_events_1')} / {us('orgs_100000_events_1')} us: "
         f"{f.show('limits.orgs_ratio_events_1', '{:.2f}')} x", "", None),
        ("memory", f"{f.show('limits.org_bytes')} bytes an organization with one agent, "
         f"{f.show('limits.agent_bytes')} each further agent", "", None),
        ("verdict asked of another shard, 1 event: CPU of both shards; on the home shard",
         f"{us('away_1')} us; {us('home_1')} us", "", None),
        ("the same with 100 events", f"{us('away_100')} us; {us('home_100')} us", "", None),
        ("there and back with nothing else under way, 1 event", f"{us('away_alone_1')} us", "", None),
        ("Redis, INCRBY and EXPIRE in one round trip: CPU of client and server; time",
         f"{us('redis_1')} us; {us('redis_wall_1')} us", "", None),
        ("Redis against a verdict and settlement here, of 1 event / of 100",
         f"{f.show('limits.redis_ratio_1', '{:.1f}')} / {f.show('limits.redis_ratio_100', '{:.1f}')} x; deduplicated "
         f"here, too: {f.show('limits.redis_keys_ratio_1', '{:.1f}')} / "
         f"{f.show('limits.redis_keys_ratio_100', '{:.1f}')} x", "", None),
        ("a counter in a map behind a mutex, 1 / 2 threads",
         f"{us('mutex_1')} / {us('mutex_2_threads_1')} us CPU", "", None),
        ("p99 of 2,000 batches of 10 a second before Redis is paused, and while it is",
         f"{f.show('fleet.before_p99_ms', '{:.2f}')} / {f.show('fleet.paused_p99_ms', '{:.2f}')} ms: "
         f"{f.show('fleet.paused_ratio', '{:.2f}')} x", "<= 2 x", f.median("fleet.paused_ratio") <= 2),
        ("a budget overshot by three nodes that spend 121 dollars a second; the bound (quota/DESIGN.md)",
         f"{f.show('budget.over_dollars', '{:.1f}')} of {f.show('budget.bound_dollars', '{:.1f}')} dollars: "
         f"{f.show('budget.of_bound', '{:.2f}')} of it", "<= the bound", f.median("budget.of_bound") <= 1),
    ]
