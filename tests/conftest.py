"""Fixtures of the whole-process tests: each test gets its own kavachd in its own folder."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("support")

from support.kafka import KafkaServer, kafka_settings  # noqa: E402
from support.kavachd import Kavachd  # noqa: E402
from support.redis import RedisServer  # noqa: E402


@pytest.fixture
def make_node(tmp_path):
    """make_node(settings) starts a kavachd; all are stopped, and their exit codes checked, after the test."""
    nodes = []

    def make(settings: dict | None = None, start: bool = True) -> Kavachd:
        node = Kavachd(tmp_path / f"node{len(nodes)}", settings or {})
        nodes.append(node)
        return node.start() if start else node

    yield make
    for node in nodes:
        node.__exit__(None)


@pytest.fixture(scope="module")
def shared(request, tmp_path_factory):
    """One kavachd for all tests of a module that do not mind each other, with the module's SETTINGS."""
    with Kavachd(tmp_path_factory.mktemp("shared"), getattr(request.module, "SETTINGS", {})) as node:
        yield node


@pytest.fixture
def node(make_node) -> Kavachd:
    return make_node()


@pytest.fixture
def redis(tmp_path):
    """A redis-server that runs."""
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture(scope="session")
def kafka(tmp_path_factory):
    """A broker that runs, for all tests that do not hurt it: each makes topics of its own."""
    with KafkaServer(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture
def own_kafka(tmp_path):
    """A broker that a test may hurt."""
    with KafkaServer(tmp_path / "kafka") as server:
        yield server


@pytest.fixture
def make_kafka_node(make_node):
    """make_kafka_node(kafka, **settings) starts a kavachd with topics of its own, and with settings by dotted names."""

    def make(kafka: KafkaServer, **more) -> Kavachd:
        node = make_node(kafka_settings(kafka, **more), start=False)
        node.folder.mkdir(parents=True, exist_ok=True)
        node.write_config()
        node.command("topics", "create")
        return node.start()

    return make
