"""The instructions that POST /v1/ingest takes per event are those of bench/instructions.json, within 3 %.

Time on a shared machine says little about a change of a few percent; callgrind counts the same to the last instruction
every time. Nothing depends on the machine: valgrind has a processor of its own (with AVX2 wherever there is one), which
decides what libc, libdeflate and OpenSSL choose; simdjson is told.
"""

import json
import os
import re
import subprocess

import pytest

from support.kavachd import BUILD, PATIENCE_S, ROOT, SANITIZED

pytestmark = pytest.mark.skipif(SANITIZED, reason="sanitized builds have no benchmarks, and other instructions")

FIGURES = ROOT / "bench" / "instructions.json"
MARGIN = 0.03

# What kavach-ingest-path is told: events of a batch, batches, and more words.
CASES = {
    "1 event": (1, 200),
    "100 events": (100, 32),
    "1000 events": (1000, 8),
    "100 events, gzip": (100, 32, "--gzip"),
    "100 events, an escape": (100, 32, "--escapes"),
}


def instructions_per_event(journal, events, batches, *words) -> int:
    command = [
        "valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no",
        "--toggle-collect=measured_request", "--toggle-collect=measured_receipt",
        BUILD / "bench" / "kavach-ingest-path", "--directory", journal,
        "--events", str(events), "--batches", str(batches), *words,
    ]
    env = os.environ | {"SIMDJSON_FORCE_IMPLEMENTATION": "haswell"}
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE_S)
    collected = re.search(r"Collected : (\d+)", ran.stderr)
    assert ran.returncode == 0 and collected, ran.stderr
    return round(int(collected[1]) / (events * batches))


@pytest.mark.parametrize("case", CASES)
def test_the_ingest_path_takes_as_many_instructions_as_before(case, tmp_path):
    counted = instructions_per_event(tmp_path, *CASES[case])
    expected = json.loads(FIGURES.read_text())[case]
    change = counted / expected - 1
    assert abs(change) <= MARGIN, (
        f"{case}: {counted} instructions per event, {change:+.1%} of the {expected} in {FIGURES.relative_to(ROOT)}. "
        f'If that is meant, write "{case}": {counted} there, and the reason into the commit that does.'
    )


def test_the_same_batches_take_the_same_instructions_in_every_run(tmp_path):
    runs = []
    for name in "ab":
        (tmp_path / name).mkdir()
        runs.append(instructions_per_event(tmp_path / name, *CASES["1 event"]))
    assert runs[0] == runs[1]
