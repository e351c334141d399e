"""The unchanged `agentkavach` SDK from PyPI, in a process of its own, reports to a kavachd.

Its provider is a stub (openai_stub.py), so nothing leaves the machine.
"""

import json
import os
import random
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from clients.openai_stub import OpenaiStub
from clients.sdk import Sdk
from support.disk_faults import DiskFaults
from support.kavachd import Kavachd, wait_until

# Nano-dollars a token, input and output: from the SDK's own table.
PRICES = {"gpt-4o": (2_500, 10_000), "gpt-4o-mini": (150, 600), "o3-mini": (1_100, 4_400)}


@pytest.fixture
def make_sdk(tmp_path):
    made = []
    with OpenaiStub() as stub:

        def make(node: Kavachd) -> Sdk:
            made.append(Sdk(node, stub, tmp_path / f"home{len(made)}"))
            return made[-1]

        yield make
        for sdk in made:
            sdk.kill()


def row_of(agent: str, model: str, prompt: str, stream: bool) -> tuple:
    """What the store must hold of a call."""
    if prompt.startswith("fail"):
        return (agent, model, "openai", 0, 0, 0, 1)
    # Of a stream the SDK estimates the input: four characters a token, and some for the message.
    tokens_in = len(prompt) // 4 + 1 + 4 if stream else len(prompt)
    tokens_out = len(prompt.split())
    cost_in, cost_out = PRICES[model]
    return (agent, model, "openai", tokens_in, tokens_out, tokens_in * cost_in + tokens_out * cost_out, 0)


def test_500_calls_of_three_agents_become_500_rows(node, make_sdk):
    rng = random.Random(500)
    calls = [
        {
            "agent": f"agent-{i % 3}",
            "model": rng.choice(list(PRICES)),
            "prompt": " ".join(["fail" if i % 10 == 9 else "word"] + ["more"] * rng.randrange(20)),
            "stream": i % 4 == 0,
        }
        for i in range(500)
    ]
    sdk = make_sdk(node)
    for call in calls:
        answer = sdk.call(**call)
        assert answer == ("BadRequestError" if call["prompt"].startswith("fail") else _said(call))
    assert sdk.end() == []
    assert sdk.buffered() == 0

    node.wait_for_events(500)
    columns = "agent_name, model, provider, input_tokens, output_tokens, cost_nano, is_error"
    assert sorted(node.query(f"SELECT {columns} FROM events")) == sorted(row_of(**call) for call in calls)
    runs = node.query("SELECT DISTINCT agent_name, run_id FROM events")
    assert len(runs) == len({run for _, run in runs}) == 3
    keys = [key for (key,) in node.query("SELECT dedup_key FROM events")]
    assert len(set(keys)) == 500
    assert all(uuid.UUID(text).version == 4 for text in keys + [run for _, run in runs])
    implausible = "duration_ms < 0 OR abs(ts_us - received_at_us) > 3600e6"
    assert node.query(f"SELECT count(*) FROM events WHERE {implausible}") == [(0,)]
    node.check_roll_ups()

    # It compresses: an event is some 350 bytes of JSON.
    assert node.metric("kavach_http_received_bytes_total") < 500 * 150
    assert node.metric("kavach_ingest_batches_refused_total") == 0
    # At its start every agent has said which budgets and alerts it has.
    assert node.query("SELECT agent_name, budget_type, period, limit_value FROM budgets ORDER BY 1") == [
        (f"agent-{i}", "cost", "daily", 100.0) for i in range(3)]
    assert node.metric("kavach_http_answers_total", **{"class": "4xx"}) == 0


def _said(call: dict) -> str:
    words = call["prompt"].split()
    return "".join(words) if call["stream"] else " ".join(words)


def test_nothing_is_lost_or_doubled_when_kavachd_is_restarted_in_between(make_node, make_sdk):
    node = make_node(start=False)
    faults = DiskFaults(node)
    node.start()
    sdk = make_sdk(node)

    def make_calls() -> None:
        for _ in range(20):
            assert sdk.call() == "one two three"

    make_calls()
    sdk.flush()
    node.wait_for_events(20)

    # It dies while the SDK waits for an answer that was due: what it had written is sent again.
    faults.set("fdatasync /journal/ hold")
    make_calls()
    sdk.start_flush()
    faults.wait_for_hit()
    node.kill()
    sdk.finish_flush()
    assert sdk.buffered() == 20
    faults.clear()

    # While it is away, agents work on.
    make_calls()
    sdk.flush()
    assert sdk.buffered() == 40
    node.start()
    make_calls()
    sdk.flush()
    assert sdk.buffered() == 0
    logged = sdk.end()
    assert logged and all(line.startswith("Ingest request failed") for line in logged)
    node.wait_for_events(80)
    assert node.query("SELECT count(DISTINCT dedup_key) FROM events") == [(80,)]
    node.check_roll_ups()


def test_a_transient_429_makes_the_sdk_try_again_and_not_stop(make_node, make_sdk):
    node = make_node(start=False)
    faults = DiskFaults(node)
    node.start()
    sdk = make_sdk(node)

    def refused() -> float:
        return node.metric("kavach_ingest_batches_refused_total")

    # The disk is well again before the SDK's patience ends.
    faults.set("fdatasync /journal/ errno=28")
    assert sdk.call() == "one two three"
    sdk.start_flush()
    faults.wait_for_hit()
    faults.clear()
    sdk.finish_flush()
    node.wait_for_events(1)
    assert sdk.buffered() == 0
    assert refused() >= 1

    # It is not: the SDK keeps the events on its own disk, and its agents work on.
    faults.set("fdatasync /journal/ errno=28")
    assert sdk.call() == "one two three"
    sdk.flush()
    assert sdk.buffered() == 1
    assert sdk.call() == "one two three"
    faults.clear()
    wait_until(lambda: node.request("GET", "/readyz").status == 200, "the journal to be well")
    sdk.flush()
    assert sdk.buffered() == 0
    logged = sdk.end()
    assert logged and all(line.startswith("Ingest 429 after 3 retries") for line in logged)
    node.wait_for_events(3)
    node.check_roll_ups()
