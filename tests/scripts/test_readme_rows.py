"""The README's table of the control API agrees with what is served and with the tests that are there."""

import json
import re

import pytest

from support.kavachd import ROOT, Kavachd

ROWS = re.findall(r"^\| ([x ]) \| `([A-Z]+ /\S+)` \| (.*) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)


def test_every_endpoint_of_the_contract_has_a_row():
    assert len(ROWS) == len({endpoint for _, endpoint, _ in ROWS}) == 57


@pytest.mark.parametrize("tick, endpoint, tests", ROWS, ids=[endpoint for _, endpoint, _ in ROWS])
def test_a_tick_has_tests_that_are_there(tick, endpoint, tests):
    names = re.findall(r"`([^`]+)`", tests)
    assert bool(names) == (tick == "x")
    for name in names:
        file, _, function = name.partition("::")
        text = (ROOT / "tests" / file).read_text()
        assert not function or f"\ndef {function}(" in text, name


def test_what_is_ticked_is_served_and_nothing_else(tmp_path):
    with Kavachd(tmp_path) as node:
        paths = json.loads(node.request("GET", "/openapi.json").body)["paths"]
    served = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    # Beside the table of the control API: the front line's own, and an extension that the contract proposes.
    served |= {"POST /v1/ingest", "GET /healthz", "GET /v1/status"}
    assert served - {"POST /v1/agents/{name}/reactivate"} == {endpoint for tick, endpoint, _ in ROWS if tick == "x"}
