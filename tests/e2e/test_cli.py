"""The command line: what each command prints, says about mistakes, and returns.

Exit codes: 1, it failed; 2, the command line or the config is wrong.
"""

import hashlib
import json
import re
import socket
import subprocess
import uuid

import pytest

from support.kavachd import BINARY, PATIENCE_S, event, wait_until

COMMANDS = ["serve", "check", "org create", "key create", "key revoke", "journal inspect"]
SOME_ID = "01890a5d-ac96-774b-bcce-b302099a8057"


def run(*words: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [BINARY, *words], capture_output=True, text=True, timeout=PATIENCE_S, env={"PATH": "", **environment}
    )


@pytest.fixture
def idle(make_node):
    """A node that was never started, with a config and nothing else."""
    node = make_node({"quota.tiers_file": ""}, start=False)
    node.folder.mkdir()
    node.write_config()
    return node


# --- being asked -------------------------------------------------------------------------------------------


def test_help_names_every_command_and_each_command_has_help():
    text = run("--help").stdout
    for command in COMMANDS:
        group, _, sub = command.partition(" ")
        assert f"\n  {group} " in text
        shown = run(group, "--help").stdout if sub else text
        assert not sub or f"\n  {sub} " in shown
        own = run(*command.split(), "--help")
        assert own.returncode == 0
        assert "--config" in own.stdout and own.stderr == ""


def test_version_is_one_line():
    shown = run("--version")
    assert shown.returncode == 0
    assert re.fullmatch(r"kavachd \d+\.\d+\.\d+\n", shown.stdout)


@pytest.mark.parametrize(
    "words, named",
    [
        ([], "subcommand"),
        (["bogus"], "subcommand"),
        (["org"], "subcommand"),
        (["serve", "--bogus"], "--bogus"),
        (["org", "create"], "--name"),
        (["key", "create", "--name", "x"], "--org"),
        (["key", "create", "--org", SOME_ID], "--name"),
        (["key", "revoke"], "key"),
        (["serve", "--config"], "--config"),
    ],
)
def test_a_wrong_command_line_is_explained_and_exits_2(words, named):
    refused = run(*words)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert named in refused.stderr and "--help" in refused.stderr


# --- the config --------------------------------------------------------------------------------------------


def test_every_mistake_in_a_config_is_said_at_once_with_its_place(tmp_path):
    config = tmp_path / "wrong.toml"
    config.write_text(
        """[http]
port = 70000
adress = "127.0.0.1"

[journal]
segment_bytes = "large"
[nope]
x = 1
[store]
kind = "mysql"
"""
    )
    refused = run("check", "--config", str(config), KAVACH_HTTP_PROT="1")
    assert refused.returncode == 2
    assert refused.stdout == ""
    heading, *problems = refused.stderr.splitlines()
    assert heading == "kavachd: the config is wrong:"
    assert sorted(problems) == sorted(
        [
            f"{config}:2:8: http.port: 70000 is out of range 0..65535",
            f"{config}:3:1: http.adress: no such setting; did you mean http.address?",
            f"{config}:6:17: journal.segment_bytes: must be an integer 8192..1073741824, not a string",
            f"{config}:7:2: nope: no such table; did you mean node?",
            f'{config}:10:8: store.kind: "mysql" is not one of sqlite, postgres, none',
            "environment: KAVACH_HTTP_PROT: no such setting; did you mean KAVACH_HTTP_PORT?",
        ]
    )


@pytest.mark.parametrize("command", [c.split() for c in COMMANDS])
def test_every_command_refuses_a_wrong_config(tmp_path, command):
    arguments = {
        "org create": ["--name", "x"],
        "key create": ["--org", SOME_ID, "--name", "x"],
        "key revoke": ["key_x"],
    }
    words = [*command, *arguments.get(" ".join(command), [])]
    refused = run(*words, "--config", str(tmp_path / "missing.toml"))
    assert refused.returncode == 2
    assert f"{tmp_path}/missing.toml: cannot be opened: No such file or directory" in refused.stderr
    config = tmp_path / "broken.toml"
    config.write_text("[http\nport = 1\n")
    refused = run(*words, "--config", str(config))
    assert refused.returncode == 2
    assert f"{config}:1:" in refused.stderr


def test_check_finds_what_the_config_points_to(idle):
    assert idle.command("check").stdout == "config is valid\n"
    missing = idle.folder / "tiers.toml"
    idle.settings["quota.tiers_file"] = str(missing)
    idle.write_config()
    refused = idle.command("check", check=False)
    assert refused.returncode == 2
    assert str(missing) in refused.stderr
    missing.write_text("[free]\nevents_per_dya = 1\n")
    refused = idle.command("check", check=False)
    assert refused.returncode == 2
    assert f"{missing}:2" in refused.stderr and "events_per_dya" in refused.stderr


def test_check_prints_a_config_that_means_the_same(idle):
    printed = idle.command("check", "--print").stdout
    assert f"port = {idle.port}\n" in printed
    again = idle.folder / "again.toml"
    again.write_text(printed)
    assert run("check", "--print", "--config", str(again)).stdout == printed
    overridden = run("check", "--print", "--config", str(again), KAVACH_HTTP_PORT="9000").stdout
    assert "port = 9000\n" in overridden


def test_checking_changes_nothing(idle):
    before = sorted(idle.folder.iterdir())
    idle.command("check")
    assert sorted(idle.folder.iterdir()) == before


# --- organizations and keys --------------------------------------------------------------------------------


def test_org_create_prints_what_a_script_needs(idle):
    idle.settings["node.environment"] = "prod"
    idle.write_config()
    name = 'Häuptling "& Sons"\\\n'
    made = json.loads(idle.command("org", "create", "--name", name, "--tier", "pro").stdout)
    assert list(made) == ["org_id", "project_id", "name", "tier", "api_key"]
    assert (made["name"], made["tier"]) == (name, "pro")
    assert re.fullmatch("ak_prod_[0-9a-f]{64}", made["api_key"])
    assert uuid.UUID(made["org_id"]) != uuid.UUID(made["project_id"])
    assert idle.query("SELECT name, tier FROM organizations WHERE id = ?", made["org_id"]) == [(name, "pro")]
    again = json.loads(idle.command("org", "create", "--name", name).stdout)
    assert again["org_id"] != made["org_id"], "a name is no identity"
    assert again["tier"] == "free"


def test_an_unknown_tier_is_refused_with_the_known_ones(idle):
    refused = idle.command("org", "create", "--name", "x", "--tier", "gold", check=False)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert refused.stderr == "kavachd: --tier: there is no tier 'gold' (known: free, pro, max)\n"
    assert not idle.store.exists() or idle.query("SELECT count(*) FROM organizations") == [(0,)]


def test_key_create_and_revoke_print_what_a_script_needs(idle):
    idle.org_id = idle.create_org()["org_id"]
    made = idle.create_key("second")
    assert list(made) == ["key_id", "org_id", "name", "prefix", "api_key"]
    assert made["key_id"].startswith("key_") and uuid.UUID(made["key_id"][4:])
    assert (made["org_id"], made["name"], made["prefix"]) == (idle.org_id, "second", made["api_key"][:16])

    by_id = json.loads(idle.command("key", "revoke", made["key_id"]).stdout)
    assert by_id == {name: made[name] for name in ("key_id", "org_id", "name", "prefix")} | {"is_active": False}
    third = idle.create_key("third")
    assert json.loads(idle.command("key", "revoke", third["prefix"]).stdout)["key_id"] == third["key_id"]
    fourth = idle.create_key("fourth")
    assert json.loads(idle.command("key", "revoke", fourth["key_id"][4:]).stdout)["key_id"] == fourth["key_id"]
    assert idle.query("SELECT name, is_active FROM api_keys ORDER BY name") == [
        ("default", 1), ("fourth", 0), ("second", 0), ("third", 0)
    ]


@pytest.mark.parametrize(
    "words, code, said",
    [
        (
            ["create", "--org", "acme", "--name", "x"], 2,
            "--org: 'acme' is no organization id (a UUID)\nRun with --help for more information.",
        ),
        (["create", "--org", SOME_ID, "--name", "x"], 1, f"there is no organization {SOME_ID}"),
        (["revoke", f"key_{SOME_ID}"], 1, f"API key 'key_{SOME_ID}' was not found"),
        (["revoke", "ak_local_01"], 1, "API key 'ak_local_01' was not found"),
    ],
)
def test_an_unknown_organization_or_key_is_said(idle, words, code, said):
    refused = idle.command("key", *words, check=False)
    assert (refused.returncode, refused.stdout, refused.stderr) == (code, "", f"{'kavachd: ' if code == 1 else ''}{said}\n")


def test_a_key_that_is_revoked_or_shares_its_prefix_is_said(idle):
    idle.org_id = idle.create_org()["org_id"]
    one, other = idle.create_key("one"), idle.create_key("other")
    idle.execute("UPDATE api_keys SET prefix = ? WHERE name = 'other'", one["prefix"])
    refused = idle.command("key", "revoke", one["prefix"], check=False)
    assert refused.returncode == 1
    assert "is ambiguous: 2 active API keys have this prefix" in refused.stderr
    idle.command("key", "revoke", other["key_id"])
    assert json.loads(idle.command("key", "revoke", one["prefix"]).stdout)["key_id"] == one["key_id"]
    refused = idle.command("key", "revoke", one["key_id"], check=False)
    assert (refused.returncode, refused.stderr) == (1, f"kavachd: API key '{one['key_id']}' is already revoked\n")


# --- secrets -----------------------------------------------------------------------------------------------


def test_a_whole_key_on_the_command_line_is_refused_and_not_repeated(idle):
    key = idle.create_org()["api_key"]
    for text in (key, key[:-1], "cg_a_key_of_another_system"):
        refused = idle.command("key", "revoke", text, check=False)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert text[17:] not in refused.stderr and "first 16 characters" in refused.stderr
    assert idle.query("SELECT is_active FROM api_keys") == [(1,)]


def test_no_key_and_no_digest_of_one_is_logged_stored_or_answered(make_node):
    node = make_node({"log.level": "debug", "auth.poll_ms": 20})
    second = node.create_key("second")
    unknown = "ak_prod_" + "5ec2e7" * 10 + "abcd"
    keys = [node.key, second["api_key"], unknown]
    wait_until(lambda: node.post([event()], key=second["api_key"]).status == 202, "the new key to be known")
    node.command("key", "revoke", second["key_id"])
    wait_until(lambda: node.post([event()], key=second["api_key"]).status == 401, "the key to be revoked")
    answers = [node.post([event()]), *(node.post([event()], key=key) for key in keys), node.post(b"{", key=keys[0])]
    answers += [node.request("GET", path) for path in ("/metrics", "/v1/status", "/healthz")]
    assert [a.status for a in answers] == [202, 202, 401, 401, 422, 200, 200, 200]
    assert node.stop() == 0

    secrets = [key.rpartition("_")[2] for key in keys]
    digests = [hashlib.sha256(key.encode()).hexdigest() for key in keys]
    shown = node.log() + "".join(f"{a.headers} {a.body}" for a in answers)
    assert not [text for text in secrets + digests if text in shown]
    files = [path for path in node.folder.rglob("*") if path.is_file() and path != node.config]
    assert {node.store, node.log_file} < set(files) and any(path.suffix == ".kvj" for path in files)
    for path in files:
        content = path.read_bytes()
        assert not [text for text in secrets if text.encode() in content], path
    assert {row[0] for row in node.query("SELECT key_hash FROM api_keys")} == set(digests[:2])


def test_the_store_and_the_journal_are_readable_by_their_owner_only(node):
    assert node.post([event()]).status == 202
    node.wait_for_events(1)
    for path in [node.store, *node.journal.glob("*.kvj")]:
        assert path.stat().st_mode & 0o077 == 0, path


# --- serve and inspect -------------------------------------------------------------------------------------


def test_port_0_is_a_free_one_that_the_log_names_and_all_shards_share(make_node):
    node = make_node({"http.port": 0}, start=False)
    node.start(wait=False)
    line = wait_until(lambda: re.search(r"listens on 127\.0\.0\.1:(\d+) \(2 shards", node.log()), "the log to name it")
    node.port = int(line[1])
    for _ in range(60):
        assert node.request("GET", "/healthz").status == 200
    for shard in range(2):
        assert node.metric("kavach_http_connections_accepted_total", shard=shard) > 0


def test_inspecting_a_running_process_shows_what_is_durable_and_disturbs_nothing(node):
    for _ in range(5):
        assert node.post([event(), event()]).status == 202
    shown = json.loads(node.command("journal", "inspect", "--json").stdout)
    assert list(shown) == ["journal_id", "version", "segments"]
    assert uuid.UUID(shown["journal_id"]).version == 4
    (segment,) = shown["segments"]
    assert (segment["first_seq"], segment["last_seq"], segment["frames"], segment["events"]) == (1, 5, 5, 10)
    assert segment["problem"] is None
    text = node.command("journal", "inspect").stdout
    assert f"journal {shown['journal_id']} (format 1)" in text
    assert f"{segment['file']}  frames 1..5 (5), 10 events" in text
    assert node.post([event()]).status == 202
    node.wait_for_events(11)


def test_a_start_that_fails_says_why_in_one_line_and_exits_1(idle):
    with socket.create_server(("127.0.0.1", 0)) as other:
        idle.settings["http.port"] = other.getsockname()[1]
        idle.write_config()
        refused = idle.command("serve", check=False)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr.splitlines()[-1].startswith("kavachd: cannot listen on 127.0.0.1:")
