"""What operators and load balancers ask: /healthz, /readyz, /v1/status and /metrics."""

import gzip
import subprocess
import threading

import pytest

from support import prometheus_text
from support.checks import check_accepted
from support.kavachd import BINARY, event
from support.raw_http import Peer, ingest, request

PATHS = ["/healthz", "/readyz", "/v1/status", "/metrics"]


def scrape(node) -> dict[str, prometheus_text.Family]:
    answer = node.request("GET", "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return prometheus_text.parse(answer.body.decode())


def total(families: dict, family: str, part: str = "", **labels) -> float:
    """The sum of a family's samples with these labels; `part` of a histogram: "_count", for example."""
    samples = families[family].samples.items()
    return sum(v for (name, have), v in samples if name == family + part and set(labels.items()) <= set(have))


def test_a_healthy_node_says_so(shared):
    with Peer(shared) as peer:
        for path, body in (("/healthz", '{"status":"ok"}'), ("/readyz", '{"status":"ready"}')):
            answer = peer.ask(request("GET", path))
            assert (answer.status, answer.body.decode()) == (200, body)
            assert answer.headers["content-type"] == "application/json"


def test_the_status_names_every_part(shared):
    answer = shared.request("GET", "/v1/status")
    assert answer.status == 200
    version = subprocess.run([BINARY, "--version"], capture_output=True, text=True).stdout.split()[-1]
    assert answer.json() == {
        "status": "ok",
        "database": "ok",
        "redis": "not_configured",
        "kafka": "not_configured",
        "journal": "ok",
        "version": version,
        "fleet": None,
        "store_lag": {"events": 0, "bytes": 0, "seconds": 0.0},
    }


@pytest.mark.parametrize("path", PATHS)
def test_nobody_needs_a_credential_and_a_bad_one_does_not_matter(shared, path):
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"X-API-Key": "nonsense"}, {"Content-Type": "x/y"}):
        assert shared.request("GET", path, headers=headers).status == 200
    # A body is not asked for, and not minded.
    with Peer(shared) as peer:
        assert peer.ask(request("GET", path, body=b"ignored")).status == 200
        assert peer.ask(request("GET", path + "?query")).status == 200


def test_the_metrics_are_well_formed_and_well_named(shared):
    check_accepted(shared, [event()])
    families = scrape(shared)
    for name, family in families.items():
        assert name.startswith("kavach_")
        assert (family.kind == "counter") == name.endswith("_total"), name
        assert family.help.endswith("."), family.help
        if family.kind == "histogram":
            assert name.endswith("_seconds"), name
    assert total(families, "kavach_ready") == 1


def test_the_metrics_count_what_happens(shared):
    before = scrape(shared)
    check_accepted(shared, [event() for _ in range(5)])
    for sent, status in (
        (ingest(shared, [event()], {"Authorization": None}), 401),
        (ingest(shared, [event()], {"Content-Encoding": "br"}), 415),
        (ingest(shared, gzip.compress(b" " * 20_000_000), {"Content-Encoding": "gzip"}), 413),
        (ingest(shared, b"{}"), 422),
        (b"GET / HTTP/1.1\n\n", 400),
    ):
        with Peer(shared) as peer:
            assert peer.ask(sent).status == status
    after = scrape(shared)

    def grown(name: str, part: str = "", **labels) -> float:
        return total(after, name, part, **labels) - total(before, name, part, **labels)

    # check_accepted() sends one more batch of one.
    assert grown("kavach_ingest_batches_accepted_total") == 2
    assert grown("kavach_ingest_events_accepted_total") == 6
    assert grown("kavach_ingest_duration_seconds", "_count") == 2
    for reason in ("credential", "encoding", "size", "body"):
        assert grown("kavach_ingest_batches_refused_total", reason=reason) == 1, reason
    for reason in ("backpressure", "journal", "subscription"):
        assert grown("kavach_ingest_batches_refused_total", reason=reason) == 0, reason
    assert grown("kavach_http_protocol_errors_total") == 1
    assert grown("kavach_http_answers_total", **{"class": "4xx"}) == 5
    assert grown("kavach_http_answers_total", **{"class": "5xx"}) == 0


def test_no_answer_gives_away_a_secret(shared):
    check_accepted(shared, [event(agent_name="secret-agent", prompt="secret-prompt", run_id="secret-run")])
    everything = b"".join(shared.request("GET", path).body for path in PATHS)
    secret = shared.key.rpartition("_")[2]
    for word in (secret, secret[:8], shared.org_id, "acme", "secret-", str(shared.folder)):
        assert word.encode() not in everything, word


def test_scrapes_while_events_come_in_are_consistent(shared):
    stop = threading.Event()

    def send() -> None:
        with Peer(shared) as peer:
            while not stop.is_set():
                peer.check_goes_on()

    senders = [threading.Thread(target=send) for _ in range(3)]
    for sender in senders:
        sender.start()
    try:
        seen = [scrape(shared) for _ in range(50)]
    finally:
        stop.set()
        for sender in senders:
            sender.join()
    for name in ("kavach_ingest_events_accepted_total", "kavach_http_requests_total"):
        counts = [total(families, name) for families in seen]
        assert counts == sorted(counts), name
