"""What an ordinary client sees of POST /v1/ingest, and what the store holds afterwards."""

import gzip

from support.checks import check_accepted, shown
from support.kavachd import batch_body, event


def check_gzip_accepted(node, events: list, new: int | None = None) -> None:
    check_accepted(node, gzip.compress(batch_body(events)), len(events), new, {"Content-Encoding": "gzip"})


def test_a_batch_is_stored_once_it_is_accepted(node):
    check_accepted(node, [event()])
    node.check_roll_ups()


def test_the_answer_is_the_documented_one_to_the_byte(node):
    answer = node.post([event(), event()])
    assert answer.body == b'{"accepted":2,"rejected":0,"mode":"direct","rejected_agents":[]}'
    assert answer.headers["content-type"] == "application/json"


def test_every_field_arrives_in_the_store_as_it_was_sent(shared):
    sent = event(
        agent_name="research-bot",
        provider="anthropic",
        model="claude-sonnet-4-0",
        input_tokens=1234,
        output_tokens=567,
        cost=0.012345678,
        timestamp="2026-05-25T14:30:00.123456+00:00",
        duration_ms=890,
        run_id="run_all_fields",
        prompt="What is the weather?",
        status="error",
        partial=True,
    )
    check_accepted(shared, [sent])
    columns = (
        "org_id, ingest_system, agent_name, provider, model, input_tokens, output_tokens, cost_nano, cost_source,"
        " ts_us, duration_ms, dedup_key, run_id, prompt, is_error, metadata"
    )
    assert shared.query(f"SELECT {columns} FROM events WHERE run_id = 'run_all_fields'") == [
        (
            shared.org_id, "ak", "research-bot", "anthropic", "claude-sonnet-4-0", 1234, 567, 12_345_678,
            "client", 1_779_719_400_123_456, 890, sent["idempotency_key"], "run_all_fields", "What is the weather?", 1,
            '{"partial":true}',
        )
    ]


def test_what_is_left_out_has_its_default(shared):
    optional = ("duration_ms", "idempotency_key", "run_id", "prompt", "status", "partial")
    check_accepted(shared, [event(agent_name="minimal", **{field: ... for field in optional})])
    columns = "duration_ms, dedup_key, run_id, prompt, is_error, metadata"
    assert shared.query(f"SELECT {columns} FROM events WHERE agent_name = 'minimal'") == [
        (0, None, None, None, 0, None)
    ]


def test_gzip_is_taken_like_plain_text(shared):
    check_gzip_accepted(shared, [event() for _ in range(512)])
    shared.check_roll_ups()


def test_a_batch_may_mix_agents(shared):
    agents = [f"agent-{i % 7}" for i in range(100)]
    check_accepted(shared, [event(agent_name=agent) for agent in agents])
    rows = shared.query("SELECT name, total_events FROM agents WHERE name LIKE 'agent-%' ORDER BY name")
    assert rows == [(f"agent-{i}", agents.count(f"agent-{i}")) for i in range(7)]


def test_the_order_of_a_batch_is_kept(shared):
    check_accepted(shared, [event(run_id="ordered", input_tokens=i) for i in range(50)])
    rows = shared.query("SELECT input_tokens FROM events WHERE run_id = 'ordered' ORDER BY id")
    assert rows == [(i,) for i in range(50)]


def test_unknown_members_are_ignored_at_both_levels(shared):
    extra = {"sdk": "0.1.0", "nested": {"list": [1, {"deep": None}]}, "agent": "x", "agent_name2": 5, "": 0}
    body = shown({"first": extra, "events": [extra | event(), event() | extra], "last": [extra]}).encode()
    check_accepted(shared, body, count=2)


def test_names_may_be_in_any_script(shared):
    names = [
        "Köln",
        "研究ボット",
        "باحث",
        "🦉🦉",
        "e\u0301",
        "tab\tand\nline",
        'quote"and\\',
        "../etc/passwd",
        "'; DROP TABLE events; --",
    ]
    check_accepted(shared, [event(agent_name=name, model=name, run_id=name) for name in names])
    for name in names:
        rows = shared.query("SELECT model, run_id FROM events WHERE agent_name = ?", name)
        assert rows == [(name, name)]


def test_a_character_of_no_bits_is_a_character(shared):
    check_accepted(shared, [event(agent_name="a\0b")])
    assert shared.query("SELECT count(*) FROM agents WHERE name = ?", "a\0b") == [(1,)]


def test_a_long_prompt_is_cut_to_2048_characters_with_its_suffix(shared):
    suffix = "... [truncated]"
    for letter in ("x", "é", "語", "🦉"):
        kept = letter * 2048
        cut = letter * (2048 - len(suffix)) + suffix
        prompts = [(kept[:-1], kept[:-1]), (kept, kept), (kept + "!", cut), (kept * 3, cut)]
        check_accepted(shared, [event(run_id=f"prompt {letter} {i}", prompt=p) for i, (p, _) in enumerate(prompts)])
        for i, (_, expected) in enumerate(prompts):
            rows = shared.query("SELECT prompt FROM events WHERE run_id = ?", f"prompt {letter} {i}")
            assert rows == [(expected,)]


def test_errors_are_counted_as_errors(shared):
    statuses = ["error", "success", None, "error", ...]
    check_accepted(shared, [event(agent_name="failing", status=status) for status in statuses])
    assert shared.query("SELECT total_events, total_errors FROM agents WHERE name = 'failing'") == [(5, 2)]


def test_no_cent_is_lost_over_many_events(shared):
    # As floats these would add up to 299.99999999999...
    check_accepted(shared, [event(agent_name="cheap", cost=0.3) for _ in range(1000)])
    assert shared.query("SELECT total_cost_nano FROM agents WHERE name = 'cheap'") == [(300_000_000_000,)]
    shared.check_roll_ups()


# --- sent twice (more of it: test_duplicates.py) -------------------------------------------------------------


def test_a_batch_sent_again_is_accepted_again_and_stored_once(shared):
    batch = [event() for _ in range(10)]
    check_accepted(shared, batch)
    for again in (batch, batch[::-1], batch[:3]):
        check_accepted(shared, again, new=0)
    check_accepted(shared, batch + [event()], new=1)
    check_gzip_accepted(shared, batch, new=0)
    shared.check_roll_ups()


def test_keys_that_look_alike_are_different_keys(shared):
    keys = ["key", "Key", "key ", " key", "kéy", "ke\u0301y", "key\0", "key\0x", "k" * 255, "k" * 254]
    check_accepted(shared, [event(idempotency_key=key) for key in keys])
    check_accepted(shared, [event(idempotency_key=key) for key in keys], new=0)


def test_a_refused_batch_claims_no_keys(shared):
    good = event()
    assert shared.post([good, event(cost=-1)]).status == 422
    check_accepted(shared, [good])


def test_a_gzip_body_of_several_megabytes_is_a_batch(shared):
    batch = [event(prompt="0123456789 " * 800) for _ in range(1000)]
    assert len(batch_body(batch)) > 8_000_000
    assert len(gzip.compress(batch_body(batch))) < 300_000
    check_gzip_accepted(shared, batch)
