"""The servers that Kavach is compared with do their work: otherwise the comparison would be with less."""

import gzip
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
import uuid

import pytest

from support.kavachd import BUILD, PATIENCE_S, ROOT, SANITIZED, batch_body, event

sys.path.insert(0, str(ROOT / "bench" / "peers"))
import peers  # noqa: E402

pytestmark = pytest.mark.skipif(SANITIZED, reason="sanitized builds have no benchmarks")

COLLECTOR = {"PEER_MIN": "64", "PEER_FLUSH": "5ms"}


def send(server: peers.Peer, requests: int, events: int) -> None:
    """Fresh events by kavach-load, all answered as they should be."""
    done = subprocess.run(
        [BUILD / "bench" / "kavach-load", "--json", "--url", f"http://127.0.0.1:{server.port}{server.PATH}", "--format",
         server.FORMAT, *(word for key in server.keys for word in ("--key", key)), "--connections", "8", "--requests",
         str(requests), "--events", str(events), *(word for pid in server.pids for word in ("--server-pid", str(pid)))],
        capture_output=True, text=True, timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["answers"], report["faults"]) == (requests, {})
    assert set(report["process_cpu"]) == {str(pid) for pid in server.pids}


def post(server: peers.Peer, body: bytes, key: str | None = None, **headers) -> tuple[int, dict]:
    sent = {"Authorization": f"Bearer {key or server.keys[0]}", "Content-Type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{server.PATH}", body, sent)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.fixture
def topic(kafka) -> str:
    return kafka.create_topic(partitions=4)


@pytest.fixture
def fastapi(tmp_path, kafka, redis, topic):
    with peers.FastapiIngest(tmp_path / "fastapi", redis, kafka.address, topic, 2, "batch") as server:
        yield server


def keys_in_records(kafka, topic) -> list[str]:
    return [one["idempotency_key"] for record in kafka.records(topic) for one in json.loads(record.value)["events"]]


def change_limits(redis, server, **limits) -> None:
    """Of the first key's organization; it has not been asked for yet, and so is not remembered."""
    name = next(key for key in redis.keys("key:*") if redis.ask("HGET", key, "org_id") == server.org_ids[0])
    redis.ask("HSET", name, *(word for pair in limits.items() for word in pair))


def test_what_the_fastapi_service_accepts_is_in_kafka_with_each_event_once(fastapi, kafka, topic):
    send(fastapi, requests=40, events=10)
    keys = keys_in_records(kafka, topic)
    assert len(keys) == len(set(keys)) == 400


def test_the_fastapi_service_can_send_a_record_an_event(tmp_path, kafka, redis, topic):
    with peers.FastapiIngest(tmp_path / "fastapi", redis, kafka.address, topic, 1, "event") as server:
        send(server, requests=5, events=10)
    records = kafka.records(topic)
    assert len({json.loads(record.value)["idempotency_key"] for record in records}) == len(records) == 50


def test_the_fastapi_service_drops_what_it_has_had(fastapi, kafka, topic):
    once, twice = event(), event()
    assert post(fastapi, batch_body([twice, twice])) == (
        202, {"accepted": 2, "rejected": 0, "mode": "kafka", "rejected_agents": []})
    status, answer = post(fastapi, gzip.compress(batch_body([once, twice])), Content_Encoding="gzip")
    assert (status, answer["accepted"]) == (202, 2)
    assert sorted(keys_in_records(kafka, topic)) == sorted([once["idempotency_key"], twice["idempotency_key"]])
    # Another organization's keys are its own.
    post(fastapi, batch_body([twice]), key=fastapi.keys[1])
    assert len(keys_in_records(kafka, topic)) == 3


def test_the_fastapi_service_refuses_what_the_contract_refuses(fastapi, kafka, topic):
    assert post(fastapi, batch_body([event()]), key="ak_dev_" + "1" * 64) == (401, {"detail": "Invalid API key"})
    assert post(fastapi, batch_body([event()]), Authorization="")[0] == 401
    assert post(fastapi, b"no gzip", Content_Encoding="gzip") == (400, {"detail": "Invalid gzip body"})
    for broken, kind in ((event(model=...), "missing"), (event(input_tokens=-1), "greater_than_equal"),
                         (event(agent_name=""), "string_too_short"), (event(cost="x"), "float_parsing")):
        status, answer = post(fastapi, batch_body([event(), broken]))
        assert (status, answer["detail"][0]["type"], answer["detail"][0]["loc"][:3]) == (422, kind, ["body", "events", 1])
    assert post(fastapi, batch_body([event(timestamp="yesterday")]))[0] == 422
    assert post(fastapi, b'{"events": []}')[0] == 422
    assert kafka.records(topic) == []


@pytest.mark.parametrize("limit, reason", [
    ({"events_per_day": 15}, "daily_limit"), ({"burst_per_minute": 15}, "burst"), ({"max_agents": 1}, "tier_agent_limit"),
    ({"daily_budget": 0.01}, "org_budget_exceeded"),
])
def test_the_fastapi_service_holds_to_every_limit(fastapi, redis, kafka, topic, limit, reason):
    change_limits(redis, fastapi, **limit)
    assert post(fastapi, batch_body([event() for _ in range(10)]))[0] == 202
    # Spend is added to the budget's counter a few times a second.
    if reason == "org_budget_exceeded":
        peers.wait_until(lambda: redis.keys(f"spend:{fastapi.org_ids[0]}:*"), "the spend is written")
    status, answer = post(fastapi, batch_body([event(agent_name="another") for _ in range(10)]))
    assert (status, answer["reason"]) == (429, reason)
    assert len(keys_in_records(kafka, topic)) == 10


def test_the_fastapi_service_rejects_only_the_agents_over_the_cap(fastapi, redis, kafka, topic):
    redis.ask("SADD", f"killed:{fastapi.org_ids[0]}", "stopped")
    status, answer = post(fastapi, batch_body([event(), event(agent_name="stopped")]))
    assert (status, answer) == (
        202, {"accepted": 1, "rejected": 1, "mode": "kafka", "rejected_agents": ["stopped"]})
    assert len(keys_in_records(kafka, topic)) == 1


@pytest.mark.parametrize("queue", ["true", "false"])
def test_what_the_collector_accepts_is_in_kafka(tmp_path, kafka, topic, queue):
    settings = COLLECTOR | {"PEER_QUEUE": queue, "PEER_WAIT": "true"}
    with peers.Collector(tmp_path / "collector", kafka.address, topic, settings) as server:
        send(server, requests=40, events=10)
        # At once: it has waited for the broker.
        text = b"".join(record.value for record in kafka.records(topic))
    found = re.findall(rb"\x12&\n\$([0-9a-f-]{36})\n\x0fidempotency_key", text)
    assert len({uuid.UUID(key.decode()) for key in found}) == len(found) == 400


def test_nginx_answers_what_kavach_would(tmp_path):
    with peers.Nginx(tmp_path / "nginx", 10) as server:
        send(server, requests=40, events=10)


def test_the_comparison_runs_to_its_end(tmp_path):
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "bench", "peers", "--quick", "--no-setup", "--build", BUILD, "--json", figures],
        capture_output=True, text=True, timeout=10 * PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    for server in ("Kavach", "FastAPI", "Collector", "nginx"):
        assert f"| 100, 64 | {server} |" in done.stdout
    measured = json.loads(figures.read_text())["figures"]
    assert all(value[0] > 0 for name, value in measured.items() if name.endswith("per_cpu_s"))
