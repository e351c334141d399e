"""What an administrator's commands announce through Redis, and that a Redis which is away costs them little."""

import json
import time

import pytest
from support.kavachd import SANITIZED
from support.redis import RedisServer

CHANNEL = "fleet-7:changes"
# What a command may take without any Redis, and how long it may wait for one.
OVERHEAD_S = 20 if SANITIZED else 4
PATIENCE_S = 1


@pytest.fixture
def make_admin(make_node):
    """make_admin(url): the commands of a store whose nodes share the Redis at `url`."""

    def make(url: str, settings: dict | None = None):
        node = make_node({"redis.url": url, "redis.prefix": "fleet-7:"} | (settings or {}), start=False)
        node.folder.mkdir()
        node.write_config()
        return node

    return make


@pytest.fixture
def heard(redis):
    """heard(): the announcements since it was asked last."""
    with redis.client() as client:
        assert client("SUBSCRIBE", CHANNEL) == ["subscribe", CHANNEL, 1]

        def since() -> list:
            client.send("PING", "now")  # answered after what was published before
            messages = []
            while (message := client.receive()) != ["pong", "now"]:
                messages.append(message)
            return messages

        yield since


def test_every_change_is_announced_once_and_nothing_else_is(redis, heard, make_admin):
    admin = make_admin(redis.url)
    org = ("--org", admin.create_org()["org_id"])
    announcement = ["message", CHANNEL, "directory"]
    assert heard() == [announcement]
    key = json.loads(admin.command("key", "create", *org, "--name", "ci").stdout)["key_id"]
    assert heard() == [announcement]
    budget = ("--type", "cost", "--period", "daily")
    for words in (
        ("org", "set", *org, "--tier", "pro"),
        ("key", "revoke", key),
        ("budget", "set", *org, *budget, "--limit", "5"),
        ("budget", "delete", *org, *budget),
        ("agent", "kill", *org, "--name", "a"),
        ("agent", "reactivate", *org, "--name", "a"),
    ):
        done = admin.command(*words)
        assert (heard(), done.stderr) == ([announcement], ""), words
    for words in (("org", "show", *org), ("budget", "list", *org), ("check",)):
        admin.command(*words)
    for words in (("org", "set", *org), ("budget", "delete", *org, *budget), ("key", "revoke", "key_nobody")):
        assert admin.command(*words, check=False).returncode != 0
    assert heard() == []


def test_it_is_announced_over_a_socket_and_with_a_password(tmp_path, make_admin):
    with RedisServer(tmp_path / "locked", password="s3cret") as redis, redis.client() as client:
        client("SUBSCRIBE", CHANNEL)
        for url in (redis.url, redis.unix_url):
            made = make_admin(url).command("org", "create", "--name", "acme")
            assert made.stderr == ""
            assert client.receive() == ["message", CHANNEL, "directory"]


def check_warned_of(admin, reason: str) -> None:
    """The change is made all the same; who made it is told, in one line and without the password."""
    began = time.monotonic()
    done = admin.command("org", "create", "--name", "acme", "--tier", "pro")
    assert time.monotonic() - began < PATIENCE_S + OVERHEAD_S
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("kavachd: warning: the change is stored, but not announced through "), done.stderr
    assert reason in done.stderr and "nodes will see it with their next poll" in done.stderr, done.stderr
    assert "s3cret" not in done.stderr
    org_id = json.loads(done.stdout)["org_id"]
    assert json.loads(admin.command("org", "show", "--org", org_id).stdout)["tier"] == "pro"


def test_a_redis_that_is_away_costs_a_warning(redis, make_admin):
    admin = make_admin(redis.url.replace("redis://", "redis://:s3cret@"))
    redis.kill()
    check_warned_of(admin, f"redis://***@127.0.0.1:{redis.port}/0: Connection refused")
    redis.start()
    check_warned_of(admin, "AUTH was refused (ERR)")  # it wants no password
    redis.kill()
    check_warned_of(make_admin(redis.unix_url), f"unix://{redis.socket_path}?db=0: No such file or directory")


def test_a_redis_that_does_not_answer_costs_a_second_and_a_warning(redis, make_admin):
    redis.pause()
    for url in (redis.url, redis.unix_url, redis.url.replace("redis://", "rediss://")):
        check_warned_of(make_admin(url), "no answer in time")
    redis.resume()


def test_a_redis_whose_name_nobody_knows_costs_a_second_and_a_warning(make_admin):
    check_warned_of(make_admin("redis://:s3cret@no-such-host.invalid"), "the host's name cannot be looked up")


def test_a_certificate_file_that_is_none_costs_a_warning(redis, make_admin):
    admin = make_admin(redis.url.replace("redis://", "rediss://"), {"redis.ca_file": "/nowhere.pem"})
    check_warned_of(admin, "redis.ca_file: cannot use /nowhere.pem")


def test_a_url_that_is_none_costs_a_warning(make_admin):
    check_warned_of(make_admin("redis://:s3cret@host:99999"), "Redis: redis.url: the port is not 1..65535")
