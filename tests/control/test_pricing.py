"""Prices of models: public, cacheable, equal to the real SDK's own table, read again on SIGHUP (contract/agentkavach.md section 8)."""

import pytest
from agentkavach import pricing

from support.kavachd import Kavachd


@pytest.fixture(scope="module")
def answer(node):
    return node.request("GET", "/v1/pricing")


def ask(node, tag: str):
    return node.request("GET", "/v1/pricing", headers={"If-None-Match": tag})


def test_prices_are_those_of_the_sdk(answer):
    assert answer.status == 200 and answer.headers["cache-control"] == "public, max-age=300"
    body = answer.json()
    assert set(body) == {"pricing", "models", "aliases", "unit", "source", "last_updated"}
    assert (body["unit"], body["source"], body["last_updated"]) == ("usd_per_1k_tokens", "database", "2026-03-01T00:00:00Z")
    assert {name: (row["input"], row["output"]) for name, row in body["pricing"].items()} == {
        name: (price.input_per_1k, price.output_per_1k) for name, price in pricing.PRICE_TABLE.items()}
    assert body["aliases"] == pricing._ALIASES
    assert body["pricing"]["gpt-4o"] == {"input": 0.0025, "output": 0.01, "input_per_1k": 0.0025, "output_per_1k": 0.01,
                                         "provider": "openai"}
    assert {row["provider"] for row in body["models"]} == {"openai", "anthropic", "google", "mistral"}
    assert {row.pop("model"): row for row in body["models"]} == body["pricing"]


def test_an_answer_that_is_there_already_is_not_sent_again(node, answer):
    tag = answer.headers["etag"]
    for sent in (tag, f"W/{tag}", f'"other", {tag}', f'"other" ,W/{tag},"more"', "*"):
        again = ask(node, sent)
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag), sent
        assert again.headers["cache-control"] == "public, max-age=300"
    for sent in ('"other"', tag.strip('"'), "", "W/", f'"x{tag[1:]}'):
        assert ask(node, sent).status == 200, sent
    assert node.request("HEAD", "/v1/pricing").headers["etag"] == tag


def test_a_file_is_read_again_and_a_broken_one_refused(tmp_path):
    file = tmp_path / "pricing.toml"
    file.write_text('updated = 2026-05-01\n[acme]\n"acme-1" = { input = 1, output = 2.5 }\n[aliases]\nacme = "acme-1"\n')
    with Kavachd(tmp_path / "node", {"pricing.file": str(file)}) as node:
        first = node.request("GET", "/v1/pricing")
        assert first.json()["pricing"]["acme-1"]["output"] == 2.5 and first.json()["aliases"] == {"acme": "acme-1"}
        file.write_text(file.read_text().replace("2.5", "3"))
        assert "reload: done" in node.reload_file()
        second = ask(node, first.headers["etag"])
        assert second.status == 200 and second.json()["pricing"]["acme-1"]["output"] == 3
        file.write_text('updated = 2026-05-01\n[acme]\n"acme-1" = { input = -1, output = 2 }\n[aliases]\nx = "gone"\n')
        log = node.reload_file()
        assert "reload: refused" in log
        assert f"{file}:3:22: acme-1: input must be a number in 0..10" in log and f"{file}:5:5: x: there is no such model" in log
        assert node.request("GET", "/v1/pricing").body == second.body
