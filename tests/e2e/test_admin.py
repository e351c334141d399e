"""An administrator's commands: what they print, what they refuse, and that a running node hears of them."""

import json

import pytest
from support.kavachd import event, wait_until

NOBODY = "00000000-0000-7000-8000-000000000000"


@pytest.fixture
def admin(make_node):
    """A store with one organization, and no process: admin("org show") is the printed JSON."""
    node = make_node({"quota.tiers_file": ""}, start=False)
    node.folder.mkdir()
    node.write_config()
    org = node.create_org("acme", "pro")

    def run(words: str, *more: str, org_id: str = org["org_id"]) -> dict:
        return json.loads(node.command(*words.split(), "--org", org_id, *more).stdout)

    def refused(words: str, *more: str, org_id: str = org["org_id"]) -> tuple[int, str]:
        done = node.command(*words.split(), "--org", org_id, *more, check=False)
        assert done.stdout == ""
        return done.returncode, done.stderr

    run.refused, run.node, run.org = refused, node, org
    return run


def test_an_organization_is_shown_with_what_is_in_force(admin):
    assert admin("org show") == {
        "org_id": admin.org["org_id"],
        "project_id": admin.org["project_id"],
        "name": "acme",
        "tier": "pro",
        "subscription_status": "active",
        "limits": {"events_per_day": 10_000, "max_agents": 100, "burst_per_minute": 5_000},
        "own_limits": {"events_per_day": "tier", "max_agents": "tier", "burst_per_minute": "tier"},
        "budgets": [],
        "killed_agents": [],
    }


def test_a_change_keeps_what_it_does_not_name(admin):
    changed = admin("org set --tier max --status paused --events-per-day unlimited --max-agents 5")
    assert changed == admin("org show")
    assert (changed["tier"], changed["subscription_status"]) == ("max", "paused")
    assert changed["limits"] == {"events_per_day": None, "max_agents": 5, "burst_per_minute": 20_000}
    assert changed["own_limits"] == {"events_per_day": "unlimited", "max_agents": 5, "burst_per_minute": "tier"}
    changed = admin("org set --events-per-day tier --burst-per-minute 0")
    assert changed["limits"] == {"events_per_day": 1_000_000, "max_agents": 5, "burst_per_minute": 0}
    assert changed["subscription_status"] == "paused"


def test_budgets_are_set_listed_and_deleted(admin):
    made = admin("budget set --type cost --period daily --limit 50")
    assert made.pop("budget_id").startswith("budget_")
    assert made == {"budget_type": "cost", "period": "daily", "limit_value": 50, "unit": "usd"}
    again = admin("budget set --type cost --period daily --limit 0.1")
    tokens = admin("budget set --type tokens_total --period total --limit 1e22")
    assert tokens["limit_value"] == 1e22
    assert admin("budget list") == {"org_id": admin.org["org_id"], "budgets": [again, tokens]}
    assert admin("budget delete --type cost --period daily") == again
    assert admin("org show")["budgets"] == [tokens]


def test_an_agent_is_killed_and_reactivated_whatever_its_name(admin):
    name = 'a "b" \\ ✓\n--org'
    killed = admin("agent kill", f"--name={name}", "--reason", 'too "dear"')
    assert killed.pop("killed_at").endswith("Z")
    org_id = admin.org["org_id"]
    assert killed == {"org_id": org_id, "agent_name": name, "status": "killed", "kill_reason": 'too "dear"'}
    assert admin("org show")["killed_agents"] == [name]
    alive = {"org_id": org_id, "agent_name": name, "status": "active", "killed_at": None, "kill_reason": None}
    assert admin("agent reactivate", f"--name={name}") == alive
    assert admin("org show")["killed_agents"] == []


@pytest.mark.parametrize(
    "words, reason",
    [
        ("org set", "nothing to change"),
        ("org set --tier gold", "there is no tier 'gold' (known: free, pro, max)"),
        ("org set --status over", "over not in {active,paused,cancelled}"),
        ("org set --events-per-day -1", "--events-per-day: '-1' is no number in 0..1000000000000, nor 'unlimited'"),
        ("org set --max-agents 1x", "--max-agents: '1x' is no number"),
        ("org set --burst-per-minute 1000000000001", "is no number in 0..1000000000000"),
        ("budget set --type loops --period daily --limit 1", "loops not in {cost,"),
        ("budget set --type cost --period per_run --limit 1", "per_run not in {daily,monthly,total}"),
        ("budget set --type cost --period daily --limit 0", "--limit: 0 is no finite number above 0"),
        ("budget set --type cost --period daily --limit inf", "--limit: inf is no finite number above 0"),
        ("budget set --type cost --period daily --limit x", "--limit"),
        ("budget delete --type cost", "--period is required"),
        ("agent kill", "--name is required"),
        ("agent kill --name " + "x" * 256, "--name: must be UTF-8 of 1 to 255 characters"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_says_why(admin, words, reason):
    before = admin("org show")
    code, said = admin.refused(words)
    assert (code, reason in said) == (2, True), said
    assert admin("org show") == before


def test_an_id_that_is_no_uuid_ends_with_2(admin):
    for words in ("org show", "budget list", "agent kill --name a", "key create --name a"):
        code, said = admin.refused(words, org_id="acme")
        assert (code, "'acme' is no organization id" in said) == (2, True), said


def test_what_is_not_there_ends_with_1(admin):
    for words in ("org show", "org set --tier pro", "budget list", "budget set --type cost --period daily --limit 1",
                  "budget delete --type cost --period daily", "agent kill --name a", "agent reactivate --name a"):
        assert admin.refused(words, org_id=NOBODY) == (1, f"kavachd: there is no organization {NOBODY}\n")
    code, said = admin.refused("budget delete --type cost --period daily")
    assert (code, "has no budget of type 'cost' and period 'daily'" in said) == (1, True), said
    code, said = admin.refused("agent reactivate --name nobody")
    assert (code, "has no agent 'nobody'" in said) == (1, True), said


def test_a_running_node_hears_of_a_change(node):
    assert node.post([event()]).status == 202
    node.command("org", "set", "--org", node.org_id, "--status", "cancelled")
    wait_until(lambda: node.post([event()]).status == 403, "the subscription's end is heard of")
    node.command("org", "set", "--org", node.org_id, "--status", "active")
    wait_until(lambda: node.post([event()]).status == 202, "the subscription's return is heard of")


def test_an_unknown_tier_is_warned_of_once(make_node, tmp_path):
    tiers = tmp_path / "tiers.toml"
    tiers.write_text("[free]\n[max]\n[gold]\n")
    node = make_node({"quota.tiers_file": str(tiers)})
    org_id = node.create_org("acme", "gold")["org_id"]
    assert node.stop() == 0
    tiers.write_text("[free]\n[max]\n")
    node.start()
    for name in ("a", "b"):
        loads = node.log().count("directory: ")
        node.command("agent", "kill", "--org", org_id, "--name", name)
        wait_until(lambda: node.log().count("directory: ") > loads, "the directory is loaded again")
    assert node.log().count("tier 'gold' is not in the table of tiers (free, max)") == 1
