"""No question of the control API reads a large table, or an organization's part of one, from end to end: the plans of all
statements that it runs.

Postgres says how it executes each (auto_explain), with scans priced so high that it scans only where no index helps;
the same texts are explained by SQLite. Every endpoint of /openapi.json is asked, so a new one is watched, too.
"""

import itertools
import json
import re
import sqlite3
from datetime import UTC, datetime

import pytest

from support import control
from support.control import Dashboard, in_path
from support.kavachd import Kavachd, event, wait_until
from support.postgres import PostgresKavachd, PostgresServer

# They grow with what organizations send.
LARGE = ("events", "usage_minute", "usage_hourly", "usage_hourly_dim", "runs", "agents", "alert_events", "payments")
# Of these, one organization's rows are too many: an index must narrow them by more than the organization, or have them in the
# order of which the first few are wanted. SQLite is asked, which takes the narrowest one; Postgres goes by how much there is,
# and here that is next to nothing.
GROWING = tuple(sorted(set(LARGE) - {"agents", "payments"}))
EXPLAIN = ["-c", "session_preload_libraries=auto_explain", "-c", "auto_explain.log_min_duration=0", "-c", "enable_seqscan=off",
           "-c", "fsync=off"]
# Of queries: more than one value where another statement answers.
VALUES = {"granularity": ["hourly", "daily"], "range": ["today", "7d", "30d"], "status": ["error"], "run_id": ["r"],
          "start": ["2026-01-01T00:10:00Z"], "end": ["2099-01-01T00:10:00Z"]}
# What a node asks for itself: all organizations' killed agents, which have an index of their own, and at its start
# those that are active.
OF_THE_NODE = ("SELECT org_id, name FROM agents WHERE killed_at_us IS NOT NULL", "SELECT org_id, name, last_received_us FROM agents")
NODE = re.compile(r"(Seq Scan|Index Scan|Index Only Scan|Bitmap Heap Scan|Bitmap Index Scan)[^\n]* on (\w+)")


@pytest.fixture(scope="module")
def explained(tmp_path_factory) -> dict[str, str]:
    """Every SELECT that was executed, with its plan."""
    folder = tmp_path_factory.mktemp("plans")
    with PostgresServer(folder / "postgres", EXPLAIN) as server:
        with PostgresKavachd(folder / "node", control.settings(folder), server=server.with_new_database()) as node:
            person = Dashboard(node).sign_up()
            person.send(event(agent_name="a", run_id="r", timestamp=datetime.now(UTC).isoformat()))
            ids = {"name": "a", "run_id": "r"}
            assert person.post("/v1/agents/a/budgets", {"budget_type": "cost", "period": "daily", "limit_value": 1}).status == 201
            assert person.post("/v1/org/budgets", {"budget_type": "cost", "period": "daily", "limit_value": 100}).status == 201
            asked = 0
            for path, methods in json.loads(node.request("GET", "/openapi.json").body)["paths"].items():
                if "get" not in methods:
                    continue
                for name, id_ in ids.items():
                    path = path.replace("{" + name + "}", in_path(id_))
                names = [parameter["name"] for parameter in methods["get"]["parameters"] if parameter["in"] == "query"]
                choices = [[None, *VALUES.get(name, [])] for name in names]
                for values in itertools.product(*choices):
                    query = "&".join(f"{name}={in_path(value)}" for name, value in zip(names, values) if value)
                    answer = person.get(f"{path}?{query}")
                    assert answer.status == 200, (path, query, answer.body)
                    asked += 1
            assert asked > 40
            for path in ("/v1/agents/a/kill", "/v1/agents/kill-all", "/v1/agents/a/reactivate"):
                assert person.post(path).status == 200
        wait_until(lambda: "kill_reason" in server.log(), "the plans")
        blocks = re.findall(r"plan:\n\tQuery Text: (.*?)\n((?:\t.*\n)+)", server.log())
    return {sql: plan for sql, plan in blocks
            if sql.startswith("SELECT") and not sql.startswith((*OF_THE_NODE, "SELECT row_to_json("))}  # the latter are this test's


def test_postgres_finds_everything_by_an_index(explained):
    seen = set()
    for sql, plan in explained.items():
        nodes = list(NODE.finditer(plan))
        for at, node in enumerate(nodes):
            table = re.sub(r"_(\d{8}|default)$", "", node[2])  # a day's partition
            if table not in LARGE and not node[2].startswith(LARGE):
                continue
            seen.add(table)
            assert node[1] != "Seq Scan", f"{sql}\n{plan}"
            about = plan[node.end():nodes[at + 1].start() if at + 1 < len(nodes) else len(plan)]
            if node[1] != "Bitmap Heap Scan":
                assert "Index Cond: " in about, f"{sql}\n{plan}"
    assert seen >= {"events", "usage_minute", "usage_hourly", "runs", "agents", "alert_events"}


def test_sqlite_finds_everything_by_an_index(explained, tmp_path):
    with Kavachd(tmp_path) as node:
        pass
    seen = set()
    with sqlite3.connect(node.store) as database:
        for sql in explained:
            if not re.search(rf"\b({'|'.join(LARGE)})\b", sql):
                continue
            count = max([int(number) for number in re.findall(r"[$?](\d+)", sql)], default=0)
            plan = [row[3] for row in database.execute("EXPLAIN QUERY PLAN " + sql.replace("$", "?"), [None] * count)]
            for step in plan:
                found = re.match(rf"(SCAN|SEARCH) (?:\w+ AS )?({'|'.join(LARGE)}|a)\b(?:.* \((.*)\))?", step)
                if found:
                    seen.add(found[2])
                    assert found[1] == "SEARCH", f"{sql}\n{plan}"
                    if found[2] in GROWING:
                        is_ordered = "LIMIT" in sql and not any("TEMP B-TREE" in other for other in plan)
                        assert is_ordered or set(re.findall(r"(\w+)[=<>]", found[3])) != {"org_id"}, f"{sql}\n{plan}"
            if "is_error = 1 ORDER BY" in sql:
                seen.add("errors")
                assert any("ix_events_agent_errors" in step for step in plan), f"{sql}\n{plan}"
    assert seen >= {"events", "usage_minute", "usage_hourly", "runs", "alert_events", "errors"}
