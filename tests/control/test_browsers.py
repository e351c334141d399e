"""The control API in a browser (CORS), and behind a load balancer (X-Forwarded-For)."""

import pytest

from support import control
from support.control import Dashboard
from support.kavachd import Kavachd

SITE = "https://app.example.com"
SETTINGS = {"control.cors_origins": f"{SITE}, http://localhost:3000", "control.tries_max": 3, "control.trusted_proxies": "127.0.0.0/8"}


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    folder = tmp_path_factory.mktemp("node")
    with Kavachd(folder, control.settings(folder) | SETTINGS) as made:
        yield made


def preflight(node, origin: str, path: str = "/v1/keys", method: str = "POST"):
    return node.request("OPTIONS", path, headers={"Origin": origin, "Access-Control-Request-Method": method,
                                                  "Access-Control-Request-Headers": "authorization,content-type"})


@pytest.mark.parametrize("origin", [SITE, "http://localhost:3000"])
def test_a_preflight_of_a_configured_origin_is_answered(node, origin):
    answer = preflight(node, origin)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["access-control-allow-methods"] == "GET, POST"
    assert answer.headers["access-control-allow-headers"] == "Authorization, Content-Type"
    assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize("origin", ["https://evil.example.com", SITE + ".evil.com", "null", "https://APP.example.com"])
def test_another_origin_may_not(node, origin):
    for answer in (preflight(node, origin), node.request("GET", "/v1/pricing", headers={"Origin": origin})):
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize("method, path, status", [("GET", "/v1/pricing", 200), ("GET", "/v1/keys", 401), ("GET", "/v1/nothing", 404),
                                                  ("PUT", "/v1/keys", 405), ("POST", "/v1/auth/login", 422), ("POST", "/v1/sync-config", 401)])
def test_every_answer_may_be_read_by_a_configured_origin(node, method, path, status):
    answer = node.request(method, path, b"{}" if method != "GET" else None, {"Origin": SITE, "Content-Type": "application/json"})
    assert answer.status == status
    assert answer.headers["access-control-allow-origin"] == SITE


def test_without_an_origin_a_preflight_is_a_method_that_is_not_there(node):
    assert node.request("OPTIONS", "/v1/keys").status == 405


def test_tries_are_counted_by_the_client_behind_a_trusted_proxy(node):
    def tried(client: str) -> int:
        stranger = Dashboard(node)
        return stranger.post("/v1/auth/login", {"email": stranger.address, "password": "wrong password"}, X_Forwarded_For=client).status

    assert [tried("203.0.113.1") for _ in range(5)] == [401, 401, 401, 429, 429]
    assert tried("203.0.113.2") == 401
    # What the client itself has put before the proxy's part does not help.
    assert tried("198.51.100.7, 203.0.113.1") == 429
