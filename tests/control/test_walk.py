"""Every endpoint that /openapi.json has: whose it is, who may call it, and what it makes of strange texts.

Nothing here names an endpoint but for its sound body, so an endpoint that is added is walked, too.
"""

import json
from datetime import UTC, datetime

import pytest

from support.control import Dashboard, in_path
from support.kavachd import event

SETTINGS = {"control.tries_max": 1_000_000}
STRANGE = ["'; DROP TABLE organizations; --", "' OR '1'='1", "../../etc/passwd", "..%2f..%2f", "%00", "\0", "\u202e\ud7ff\U0010ffff",
           "{{7*7}}${7*7}", "%s%n", "-1", "x" * 100_000]
# What an endpoint takes, where a text alone is not enough.
BODIES = {
    "/v1/agents/{name}/budgets": {"budget_type": "cost", "period": "daily", "limit_value": 1},
    "/v1/keys/{key_id}/rotate": {},
}


def endpoints(node) -> list[tuple[str, str, dict]]:
    document = json.loads(node.request("GET", "/openapi.json").body)
    return [(method.upper(), path, operation) for path, methods in document["paths"].items() for method, operation in methods.items()]


def schema_of(node, operation: dict) -> dict:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return {}
    name = content["schema"]["$ref"].rsplit("/", 1)[1]
    return json.loads(node.request("GET", "/openapi.json").body)["components"]["schemas"][name]["properties"]


def furnish(person: Dashboard) -> dict[str, str]:
    """Something of everything that has an id; the ids by the names of path parameters."""
    person.send(event(agent_name="theirs", run_id="their-run", timestamp=datetime.now(UTC).isoformat()))
    budget = person.post("/v1/org/budgets", {"budget_type": "calls", "period": "daily", "limit_value": 1000}).json()
    key = person.post("/v1/keys", {"name": "second"}).json()
    return {"name": "theirs", "run_id": "their-run", "budget_id": budget["id"], "key_id": key["id"]}


def everything_of(person: Dashboard) -> list:
    keys = person.get("/v1/keys").json()["keys"]
    for key in keys:
        del key["last_used_at"]  # is written a moment after the use
    return [keys] + [person.get(path).body for path in ("/v1/org/budgets", "/v1/settings", "/v1/agents/theirs", "/v1/agents/theirs/budgets",
                                               "/v1/runs/their-run", "/v1/billing/plan", "/v1/auth/me")]


def test_what_belongs_to_another_organization_is_not_found_and_not_changed(node, person, stranger):
    ids = furnish(stranger)
    before = everything_of(stranger)
    walked = 0
    for method, path, _ in endpoints(node):
        if "{" not in path:
            continue
        for kind, id_ in ids.items():
            path_of_theirs = path.replace("{" + kind + "}", in_path(id_))
            if path_of_theirs == path:
                continue
            body = BODIES.get(path, {}) if method == "POST" else None
            answer = person.ask(method, path_of_theirs, body)
            assert answer.status == 404, (method, path, answer.body)
            walked += 1
    assert walked >= 12
    assert everything_of(stranger) == before


def test_who_has_no_token_of_a_person_is_refused_everywhere(node, person):
    key = person.post("/v1/keys", {}).json()["raw_key"]
    walked = 0
    for method, path, operation in endpoints(node):
        if operation.get("security") != [{"token": []}]:
            continue
        for token, detail in (("", "Missing or malformed Authorization header"), (key, "Invalid or expired token"),
                              ("a.b.c", "Invalid or expired token")):
            answer = person.ask(method, path.replace("{", "").replace("}", ""), {} if method in ("POST", "PUT", "PATCH") else None, token=token)
            assert (answer.status, answer.json()) == (401, {"detail": detail}), (method, path, answer.body)
            assert answer.headers["www-authenticate"] == "Bearer"
            walked += 1
    assert walked >= 100


@pytest.mark.parametrize("text", STRANGE, ids=[repr(text[:20]) for text in STRANGE])
def test_strange_texts_are_texts(node, stranger, text):
    """In each text of each body, in each query and in each path: never a 5xx, and nobody else notices."""
    furnish(stranger)
    before = everything_of(stranger)
    person = Dashboard(node).sign_up()
    for method, path, operation in endpoints(node):
        if path in ("/v1/billing/delete-organization", "/v1/auth/change-password"):
            continue  # would end the walk
        url = path
        for parameter in operation["parameters"]:
            if parameter["in"] == "path":
                url = url.replace("{" + parameter["name"] + "}", in_path(text[:2000]) or "x")
        queries = [parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "query"]
        properties = schema_of(node, operation)
        bodies = [None] if method in ("GET", "DELETE") else [{}, {name: text for name in properties}, {name: [text] for name in properties}]
        for body in bodies:
            for query in ["", *(f"?{name}={in_path(text[:2000])}" for name in queries)]:
                answer = person.ask(method, url + query, body)
                assert answer.status < 500, (method, url, body, answer.body)
    assert everything_of(stranger) == before
    assert person.get("/v1/auth/me").status == 200
