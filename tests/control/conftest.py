"""Fixtures of the control API's tests: each runs on both stores, one node for all tests of a module."""

import pytest

from support import control
from support.kavachd import Kavachd
from support.postgres import PostgresKavachd, PostgresServer


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory):
    with PostgresServer(tmp_path_factory.mktemp("postgres"), ["-c", "fsync=off"]) as server:
        yield server


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def node(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("node")
    settings = control.settings(folder) | getattr(request.module, "SETTINGS", {})
    if request.param == "sqlite":
        made = Kavachd(folder, settings)
    else:
        server = request.getfixturevalue("postgres_server").with_new_database()
        made = PostgresKavachd(folder, settings, server=server)
    with made:
        yield made


@pytest.fixture
def person(node) -> control.Dashboard:
    """With an organization of their own."""
    return control.Dashboard(node).sign_up()


@pytest.fixture
def stranger(node) -> control.Dashboard:
    """With another one."""
    return control.Dashboard(node).sign_up()
