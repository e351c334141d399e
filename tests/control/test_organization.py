"""An organization's settings and budgets (contract/agentkavach.md section 7), and the API's description."""

import pytest

from support.control import Dashboard
from support.kavachd import event, wait_until


@pytest.mark.parametrize("method, path", [("PUT", "/v1/dashboard/settings"), ("PUT", "/v1/settings"), ("PATCH", "/v1/settings")])
def test_settings_are_changed_one_by_one_or_together(person, method, path):
    before = person.get("/v1/settings").json()
    assert before["org_name"] == "Acme" and before["timezone"] == "UTC" and before["tier"] == "free"
    assert person.ask(method, path, {}).json() == before
    changed = person.ask(method, path, {"timezone": "America/New_York"})
    assert (changed.status, changed.json()) == (200, before | {"timezone": "America/New_York"})
    assert person.ask(method, path, {"org_name": "Umbrella"}).json()["timezone"] == "America/New_York"
    assert person.get("/v1/auth/me").json()["org_name"] == "Umbrella"


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", "/etc/localtime", "utc' OR 1=1"])
def test_a_zone_that_is_none_is_refused(person, zone):
    answer = person.ask("PATCH", "/v1/settings", {"timezone": zone})
    assert answer.status == 422
    [error] = answer.json()["detail"]
    assert (error["type"], error["loc"], error["input"]) == ("value_error", ["body", "timezone"], zone)


def test_a_budget_is_set_shown_used_and_taken_away(node, person):
    key = person.post("/v1/keys", {}).json()["raw_key"]
    made = person.post("/v1/org/budgets", {"budget_type": "cost", "period": "monthly", "limit_value": 2})
    assert made.status == 201
    budget = made.json()
    assert budget["id"].startswith("budget_") and budget["agent_name"] is None and budget["source"] == "dashboard"
    assert (budget["limit_value"], budget["current_value"], budget["usage_pct"], budget["unit"]) == (2, 0, 0, "usd")
    assert node.post([event(cost=0.5)], key=key).status == 202

    def used() -> tuple:
        [shown] = person.get("/v1/org/budgets").json()["budgets"]
        return shown["current_value"], shown["usage_pct"]

    wait_until(lambda: used() == (0.5, 25.0), "the use is shown")
    again = person.post("/v1/org/budgets", {"budget_type": "cost", "period": "monthly", "limit_value": "0.5"})
    assert (again.status, again.json()["id"], again.json()["usage_pct"]) == (200, budget["id"], 100.0)
    # In force when it is answered.
    refused = node.post([event(cost=0.5)], key=key)
    assert (refused.status, refused.json()["reason"]) == (429, "org_budget_exceeded")
    assert person.ask("DELETE", f"/v1/org/budgets/{budget['id']}").status == 204
    assert node.post([event(cost=0.5)], key=key).status == 202
    gone = person.ask("DELETE", f"/v1/org/budgets/{budget['id']}")
    assert (gone.status, gone.json()) == (404, {"detail": "Budget not found"})
    assert person.get("/v1/org/budgets").json() == {"budgets": [], "total": 0}


@pytest.mark.parametrize("body, error", [
    ({"budget_type": "cost", "period": "weekly", "limit_value": 1},
     {"type": "literal_error", "loc": ["body", "period"], "msg": "Input should be 'daily', 'monthly' or 'total'",
      "input": "weekly", "ctx": {"expected": "'daily', 'monthly' or 'total'"}}),
    ({"budget_type": "cost", "period": "daily", "limit_value": 0},
     {"type": "greater_than", "loc": ["body", "limit_value"], "msg": "Input should be greater than 0", "input": 0,
      "ctx": {"gt": 0.0}}),
    ({"budget_type": "cost", "period": "daily", "limit_value": "x"},
     {"type": "float_parsing", "loc": ["body", "limit_value"],
      "msg": "Input should be a valid number, unable to parse string as a number", "input": "x"}),
    ({"period": "daily", "limit_value": 1},
     {"type": "missing", "loc": ["body", "budget_type"], "msg": "Field required",
      "input": {"period": "daily", "limit_value": 1}}),
])
def test_what_is_no_budget_is_refused(person, body, error):
    answer = person.post("/v1/org/budgets", body)
    assert (answer.status, answer.json()) == (422, {"detail": [error]})


def test_budgets_of_others_are_not_there(person, stranger):
    theirs = stranger.post("/v1/org/budgets", {"budget_type": "calls", "period": "daily", "limit_value": 5}).json()
    assert person.ask("DELETE", f"/v1/org/budgets/{theirs['id']}").status == 404
    assert stranger.get("/v1/org/budgets").json()["total"] == 1


def test_the_description_has_every_endpoint_and_a_page(node):
    anybody = Dashboard(node)
    described = anybody.get("/openapi.json")
    assert described.status == 200 and described.headers["content-type"] == "application/json"
    document = described.json()
    assert document["openapi"] == "3.1.0"
    named = str(document)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            wrong = "PATCH" if "patch" not in operations else "PUT"
            if method == "get" or "patch" in operations and "put" in operations:
                continue
            answer = anybody.ask(wrong, path.replace("{", "").replace("}", ""))
            assert answer.status == 405 and method.upper() in answer.headers["allow"]
    for name in document["components"]["schemas"]:
        assert f"#/components/schemas/{name}" in named, f"nobody refers to {name}"
    page = anybody.get("/docs")
    assert page.status == 200 and page.headers["content-type"].startswith("text/html")
    assert all(path in page.body.decode() for path in document["paths"])
