"""Keys: made, listed, revoked and rotated by their organization, in force at once (contract/agentkavach.md section 5)."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from support.kavachd import event, wait_until


def make(person, **body) -> dict:
    answer = person.post("/v1/keys", body)
    assert answer.status == 201, answer.body
    return answer.json()


def takes(node, raw: str) -> int:
    return node.post([event()], key=raw).status


def test_a_new_key_is_shown_once_and_is_good_at_once(node, person):
    made = make(person)
    assert made["name"] == "Default" and made["is_active"] and made["id"].startswith("key_")
    assert made["raw_key"].startswith("ak_local_") and made["prefix"] == made["raw_key"][:16]
    assert made["last_used_at"] is made["last_failed_at"] is None and made["auth_failures_count"] == 0
    assert takes(node, made["raw_key"]) == 202
    second = make(person, name="ci")
    listed = person.get("/v1/keys").json()
    assert listed["total"] == 2
    assert [key["id"] for key in listed["keys"]] == [second["id"], made["id"]]
    assert all("raw_key" not in key for key in listed["keys"])
    assert made["raw_key"] not in node.log()


@pytest.mark.parametrize("body, kind", [({"name": ""}, "string_too_short"), ({"name": "x" * 101}, "string_too_long"),
                                        ({"name": 3}, "string_type"), ({"name": None}, "string_type")])
def test_a_name_has_its_bounds(person, body, kind):
    answer = person.post("/v1/keys", body)
    assert answer.status == 422
    assert [(error["type"], error["loc"]) for error in answer.json()["detail"]] == [(kind, ["body", "name"])]


def test_a_revoked_key_is_refused_at_once_and_its_use_is_counted(node, person):
    made = make(person)
    assert takes(node, made["raw_key"]) == 202
    gone = person.ask("DELETE", f"/v1/keys/{made['id']}")
    assert (gone.status, gone.body) == (204, b"")
    assert takes(node, made["raw_key"]) == 401
    assert person.ask("DELETE", f"/v1/keys/{made['id']}").status == 204

    def failures() -> int:
        [key] = person.get("/v1/keys").json()["keys"]
        assert not key["is_active"]
        return key["auth_failures_count"] if key["last_failed_at"] else 0

    wait_until(lambda: failures() == 1, "the failure is counted")


def test_a_rotated_key_has_its_name_and_its_place(node, person):
    old = make(person, name="agent")
    new = person.post(f"/v1/keys/{old['id']}/rotate")
    assert new.status == 200 and new.json()["name"] == "agent" and new.json()["id"] != old["id"]
    assert takes(node, new.json()["raw_key"]) == 202
    assert takes(node, old["raw_key"]) == 401
    again = person.post(f"/v1/keys/{old['id']}/rotate")
    assert (again.status, again.json()) == (409, {"detail": "API key is already revoked"})


def test_of_rotations_at_the_same_time_one_wins(person):
    old = make(person)
    with ThreadPoolExecutor(4) as several:
        statuses = sorted(answer.status for answer in several.map(
            lambda _: person.post(f"/v1/keys/{old['id']}/rotate"), range(4)))
    assert statuses == [200, 409, 409, 409]
    assert sum(key["is_active"] for key in person.get("/v1/keys").json()["keys"]) == 1


@pytest.mark.parametrize("method, path", [("DELETE", "/v1/keys/{}"), ("POST", "/v1/keys/{}/rotate")])
def test_keys_of_others_are_not_there(person, stranger, method, path):
    theirs = make(stranger)
    for id in (theirs["id"], "key_nothing", "key_019b0000-0000-7000-8000-000000000001", "' OR 1=1 --", "%27%20OR%201"):
        answer = person.ask(method, path.format(id.replace(" ", "%20")))
        assert (answer.status, answer.json()) == (404, {"detail": "API key not found"})
    assert stranger.get("/v1/keys").json()["keys"][0]["is_active"]
    assert person.get("/v1/keys").json() == {"keys": [], "total": 0}


@pytest.mark.parametrize("method, path", [("POST", "/v1/keys"), ("GET", "/v1/keys"), ("DELETE", "/v1/keys/key_1"),
                                          ("POST", "/v1/keys/key_1/rotate")])
def test_a_token_is_needed_and_an_api_key_is_none(node, person, method, path):
    for token in ("", node.key, "nonsense"):
        assert person.ask(method, path, {}, token=token).status == 401
