"""Runs: the events of one run id, from the first to the last (contract/agentkavach.md section 7)."""

from datetime import UTC, datetime, timedelta

import pytest

from support.control import in_path
from support.kavachd import event


def iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def of(run: str, at: datetime, **more) -> dict:
    return event(**({"agent_name": "a", "run_id": run, "timestamp": iso(at)} | more))


def test_a_run_adds_up_its_events(person):
    first = datetime.now(UTC) - timedelta(hours=1)
    person.send(of("r", first, cost=0.5, input_tokens=1, output_tokens=2, duration_ms=10),
                of("r", first + timedelta(seconds=90), cost=0.25, input_tokens=3, output_tokens=4, duration_ms=20, model="m2", status="error"),
                of("r", first + timedelta(seconds=60), cost=0, model="m2"), of("other", first))
    answer = person.get("/v1/runs/r")
    assert answer.status == 200, answer.body
    run = answer.json()
    assert sorted(run.pop("models")) == ["gpt-4o", "m2"]
    assert run == {"run_id": "r", "agent_name": "a", "status": "failed", "started_at": iso(first), "ended_at": iso(first + timedelta(seconds=90)),
                   "last_event_at": iso(first + timedelta(seconds=90)), "duration_ms": 90_000, "total_events": 3, "total_cost": 0.75,
                   "input_tokens": 1504, "output_tokens": 806, "llm_duration_ms": 1280, "error_count": 1}


@pytest.mark.parametrize("age_s, failed, status", [(0, False, "running"), (240, True, "running"), (310, False, "completed"), (310, True, "failed")])
def test_a_run_ends_when_nothing_comes_for_five_minutes(person, age_s, failed, status):
    person.send(of("r", datetime.now(UTC) - timedelta(seconds=age_s), status="error" if failed else "success"))
    run = person.get("/v1/runs/r").json()
    assert run["status"] == status
    assert (run["ended_at"] is None) == (status == "running")


def test_an_agents_runs_come_newest_first_in_pages(person):
    first = datetime.now(UTC) - timedelta(hours=1)
    person.send(*[of(f"r{i}", first + timedelta(minutes=i)) for i in range(5)], of("b's", first, agent_name="b"))
    listed = person.get("/v1/agents/a/runs").json()
    assert listed["total"] == 5 and [run["run_id"] for run in listed["runs"]] == ["r4", "r3", "r2", "r1", "r0"]
    assert listed["runs"][0] == person.get("/v1/runs/r4").json()
    page = person.get("/v1/agents/a/runs?limit=2&offset=3").json()
    assert page["total"] == 5 and [run["run_id"] for run in page["runs"]] == ["r1", "r0"]


def test_a_runs_events_come_oldest_first_in_pages(person):
    first = datetime.now(UTC) - timedelta(hours=1)
    name = "run/1 ü"
    person.send(*[of(name, first - timedelta(seconds=i), cost=i) for i in range(4)])
    path = f"/v1/runs/{in_path(name)}/events"
    listed = person.get(path).json()
    assert set(listed) == {"run_id", "events", "total"} and (listed["run_id"], listed["total"]) == (name, 4)
    assert [item["cost"] for item in listed["events"]] == [3, 2, 1, 0]
    assert all(item["run_id"] == name for item in listed["events"])
    assert [item["cost"] for item in person.get(path + "?limit=2&offset=1").json()["events"]] == [2, 1]


@pytest.mark.parametrize("path", ["/v1/runs/r", "/v1/runs/r/events"])
def test_a_run_of_another_organization_is_unknown(person, stranger, path):
    stranger.send(of("r", datetime.now(UTC)))
    assert stranger.get(path).status == 200
    answer = person.get(path)
    assert (answer.status, answer.json()) == (404, {"detail": "Run not found"})
    key = stranger.post("/v1/keys", {}).json()["raw_key"]
    assert stranger.ask("GET", path, token=key).status == stranger.ask("GET", path, token="").status == 401


@pytest.mark.parametrize("path, query, kind", [
    ("/v1/agents/a/runs", "limit=201", "less_than_equal"), ("/v1/agents/a/runs", "limit=0", "greater_than_equal"),
    ("/v1/agents/a/runs", "offset=-1", "greater_than_equal"), ("/v1/runs/r/events", "limit=1001", "less_than_equal"),
    ("/v1/runs/r/events", "offset=1.5", "int_parsing")])
def test_a_bad_query_is_refused(person, path, query, kind):
    person.send(of("r", datetime.now(UTC)))
    answer = person.get(f"{path}?{query}")
    assert answer.status == 422
    [error] = answer.json()["detail"]
    assert (error["type"], error["loc"]) == (kind, ["query", query.split("=")[0]])
