"""Schemathesis asks every endpoint of /openapi.json: no answer is a 5xx or outside of what is described."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime

from support.kavachd import event

SETTINGS = {"control.tries_max": 1_000_000, "node.environment": "dev"}
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
# It would be the last request that the person may make.
EXCLUDED = "/v1/billing/delete-organization"


def test_every_answer_is_one_that_is_described(node, person, tmp_path):
    person.send(event(agent_name="a", run_id="r", timestamp=datetime.now(UTC).isoformat()))
    (tmp_path / "schemathesis.toml").write_text('[parameters]\n"path.name" = "a"\n"path.run_id" = "r"\n')
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{node.port}/openapi.json", "--header",
         f"Authorization: Bearer {person.token}", "--checks", CHECKS, "--exclude-path", EXCLUDED, "--phases", "coverage,fuzzing",
         "--max-examples", "20", "--seed", "1", "--suppress-health-check", "all", "--no-color"],
        cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]
    tested = int(re.search(r"Tested: (\d+)", done.stdout)[1])
    paths = json.loads(node.request("GET", "/openapi.json").body)["paths"]
    assert tested == sum(len(methods) for methods in paths.values()) - 1, done.stdout[-2000:]
