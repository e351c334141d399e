"""Accounts: what the endpoints under /v1/auth say, to whom, and to whom not (contract/agentkavach.md section 4)."""

import base64
import hashlib
import hmac
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.control import PASSWORD, Dashboard

SECRET = "a secret of at least thirty-two characters"
SETTINGS = {"control.jwt_secret": SECRET}


def jwt(claims: dict, secret: str = SECRET, alg: str = "HS256") -> str:
    def part(value: dict) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    signed = f"{part({'alg': alg, 'typ': 'JWT'})}.{part(claims)}"
    digest = {"HS256": hashlib.sha256, "HS512": hashlib.sha512}.get(alg)
    mac = hmac.new(secret.encode(), signed.encode(), digest).digest() if digest else b""
    return f"{signed}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


def claims_of(token: str) -> dict:
    text = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


# --- registering -------------------------------------------------------------------------------------------


def test_who_registers_gets_a_code_and_with_it_a_token(node):
    person = Dashboard(node, "Alice.B@Example.COM")
    registered = person.register(first_name="Alice")
    assert registered.status == 201
    person.address = "alice.b@example.com"
    assert registered.json() == {"message": "Verification code sent", "email": person.address,
                                 "requires_verification": True}
    refused = person.login()
    assert refused.status == 403
    assert refused.json() == {"detail": "Email not verified", "requires_verification": True}
    code = person.code()
    wrong = f"{(int(code) + 1) % 1_000_000:06}"
    assert person.post("/v1/auth/verify-email", {"email": person.address, "code": wrong}).status == 400
    verified = person.post("/v1/auth/verify-email", {"email": person.address, "code": code})
    assert verified.status == 200
    assert verified.json()["token_type"] == "bearer" and verified.json()["expires_in"] == 86400
    assert person.post("/v1/auth/verify-email", {"email": person.address, "code": code}).status == 400
    me = person.get("/v1/auth/me", token=verified.json()["access_token"]).json()
    assert me["email"] == person.address and me["first_name"] == "Alice" and me["last_name"] == ""
    assert me["role"] == "owner" and me["email_verified"] and me["org_name"] == "Acme" and me["tier"] == "free"
    assert me["timezone"] == "UTC" and me["created_at"].endswith("Z")
    claims = claims_of(verified.json()["access_token"])
    assert claims["sub"] == me["id"] and claims["org"] == me["org_id"] and claims["role"] == "owner"
    assert claims["sys"] == "ak" and claims["typ"] == "access" and claims["exp"] - claims["iat"] == 86400


def test_an_address_is_taken_once_also_by_two_at_the_same_time(node):
    person = Dashboard(node)
    with ThreadPoolExecutor(4) as several:
        answers = list(several.map(lambda _: person.register(), range(4)))
    assert sorted(answer.status for answer in answers) == [201, 409, 409, 409]
    assert [a.json() for a in answers if a.status == 409][0] == {"detail": "Email already registered"}


@pytest.mark.parametrize("body, place, kind", [
    ({}, ["body", "email"], "missing"),
    ({"email": "nobody", "password": PASSWORD, "org_name": "a"}, ["body", "email"], "value_error"),
    ({"email": "a@b.example", "password": "short", "org_name": "a"}, ["body", "password"], "string_too_short"),
    ({"email": "a@b.example", "password": "x" * 129, "org_name": "a"}, ["body", "password"], "string_too_long"),
    ({"email": "a@b.example", "password": PASSWORD, "org_name": ""}, ["body", "org_name"], "string_too_short"),
    ({"email": 5, "password": PASSWORD, "org_name": "a"}, ["body", "email"], "string_type"),
])
def test_what_is_wrong_with_a_body_is_said_in_the_contracts_shape(node, body, place, kind):
    answer = Dashboard(node).post("/v1/auth/register", body)
    assert answer.status == 422
    first = answer.json()["detail"][0]
    assert (first["type"], first["loc"]) == (kind, place)
    if not body:
        assert [error["loc"][-1] for error in answer.json()["detail"]] == ["email", "password", "org_name"]


def test_bodies_that_are_no_json_are_told_so(node):
    person = Dashboard(node)
    assert person.ask("POST", "/v1/auth/login", b"{no").json()["detail"][0]["type"] == "json_invalid"
    assert person.ask("POST", "/v1/auth/login", b"[]").json()["detail"][0]["type"] == "model_attributes_type"
    assert person.ask("POST", "/v1/auth/login", None).json()["detail"][0]["type"] == "missing"
    assert person.ask("POST", "/v1/auth/login", b"{}", Content_Encoding="br").status == 415
    assert person.ask("POST", "/v1/auth/login", b"{}", Content_Encoding="gzip").status == 400


# --- logging in --------------------------------------------------------------------------------------------


def test_a_password_opens_and_another_does_not(node, person):
    assert person.login().status == 200
    for answer in (person.login("wrong password"), Dashboard(node).login()):
        assert answer.status == 401
        assert answer.json() == {"detail": "Invalid email or password"}


def test_a_code_is_void_after_five_tries(node):
    person = Dashboard(node)
    person.register()
    code = person.code()
    for i in range(5):
        wrong = f"{(int(code) + 1 + i) % 1_000_000:06}"
        assert person.post("/v1/auth/verify-email", {"email": person.address, "code": wrong}).status == 400
    assert person.post("/v1/auth/verify-email", {"email": person.address, "code": code}).status == 400
    assert person.post("/v1/auth/resend-otp", {"email": person.address}).status == 200
    fresh = person.code(mails_before=1)
    assert person.post("/v1/auth/verify-email", {"email": person.address, "code": fresh}).status == 200


# --- passwords ---------------------------------------------------------------------------------------------


def test_a_forgotten_password_is_set_anew_and_old_tokens_are_void(node, person):
    said = {"message": "If the account exists, a reset code has been sent"}
    assert Dashboard(node).post("/v1/auth/forgot-password", {"email": "nobody@example.com"}).json() == said
    before = len(person.mails())
    assert person.post("/v1/auth/forgot-password", {"email": person.address}).json() == said
    code = person.code(before)
    token = person.post("/v1/auth/verify-reset-code", {"email": person.address, "code": code}).json()
    assert token["expires_in"] == 300
    new = {"reset_token": token["reset_token"], "new_password": "another password"}
    assert person.post("/v1/auth/reset-password", new | {"new_password": "short"}).status == 422
    assert person.post("/v1/auth/reset-password", new).json() == {"message": "Password updated"}
    assert person.post("/v1/auth/reset-password", new).status == 400
    assert person.get("/v1/auth/me").status == 401
    assert person.login().status == 401
    assert person.login("another password").status == 200


def test_a_password_is_changed_by_who_knows_it(person):
    wrong = person.post("/v1/auth/change-password", {"current_password": "nope", "new_password": "another password"})
    assert (wrong.status, wrong.json()) == (400, {"detail": "Current password is incorrect"})
    changed = person.post("/v1/auth/change-password", {"current_password": PASSWORD, "new_password": "another password"})
    assert changed.json() == {"message": "Password updated"}
    assert person.get("/v1/auth/me").status == 401
    assert person.login("another password").status == 200


def test_resending_says_the_same_of_everybody(node, person):
    before = len(person.mails())
    for address in (person.address, "nobody@example.com"):
        answer = person.post("/v1/auth/resend-otp", {"email": address})
        assert (answer.status, answer.json()) == (200, {"message": "Verification code sent"})
    assert person.post("/v1/auth/resend-otp", {"email": person.address, "purpose": "x"}).status == 422
    assert person.post("/v1/auth/resend-otp", {"email": person.address, "purpose": "reset"}).status == 200
    person.code(before)


# --- tokens ------------------------------------------------------------------------------------------------


def test_a_token_is_exchanged_also_a_day_after_its_end(person):
    claims = claims_of(person.token)
    now = int(time.time())
    assert person.post("/v1/auth/refresh").status == 200
    ended = claims | {"iat": now - 90_000, "exp": now - 3_600}
    assert person.get("/v1/auth/me", token=jwt(ended)).status == 401
    fresh = person.post("/v1/auth/refresh", token=jwt(ended))
    assert fresh.status == 200
    assert person.get("/v1/auth/me", token=fresh.json()["access_token"]).status == 200
    assert person.post("/v1/auth/refresh", token=jwt(claims | {"iat": now - 200_000, "exp": now - 90_000})).status == 401


def test_tokens_that_are_none_of_ours_are_refused(node, person, stranger):
    claims = claims_of(person.token)
    assert person.get("/v1/auth/me", token=jwt(claims)).status == 200
    now = int(time.time())
    head, body, mac = person.token.split(".")
    for token in (
        jwt(claims, alg="none"), jwt(claims, alg="HS512"), jwt(claims, secret="another secret, long enough as well"),
        jwt(claims | {"iat": now + 3_600, "exp": now + 7_200}), jwt(claims | {"exp": now - 1}),
        jwt(claims | {"sys": "ac"}), jwt(claims | {"typ": "refresh"}), jwt({}), f"{head}.{body}.", f"{head}.{body}",
        f"{head}.{jwt(claims | {'role': 'x'}).split('.')[1]}.{mac}", "nonsense", "a.b.c",
        jwt(claims | {"org": claims_of(stranger.token)["org"]}), jwt(claims | {"sub": "' OR 1=1 --"}),
    ):
        answer = person.get("/v1/auth/me", token=token)
        assert (answer.status, answer.json()) == (401, {"detail": "Invalid or expired token"}), token
        assert answer.headers["www-authenticate"] == "Bearer"
    for headers in ({}, {"Authorization": "Basic abc"}, {"Authorization": "Bearer"}):
        answer = person.get("/v1/auth/me", token="", **headers)
        assert (answer.status, answer.json()) == (401, {"detail": "Missing or malformed Authorization header"})
    assert person.get("/v1/auth/me", token=node.key).status == 401


def test_methods_and_paths_that_are_not_there(person):
    wrong = person.get("/v1/auth/login")
    assert (wrong.status, wrong.json(), wrong.headers["allow"]) == (405, {"detail": "Method Not Allowed"}, "POST")
    assert person.get("/v1/auth/nothing").json() == {"detail": "Not Found"}
    assert person.get("/v1/auth/me/").status == 404
