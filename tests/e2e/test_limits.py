"""Limits: what is too large or too much is refused as documented, and the last that fits is taken."""

import gzip
import os

import pytest

from support.checks import check_accepted, check_refused, check_unprocessable, problem, stores
from support.kavachd import batch_body, event, wait_until
from support.raw_http import CHUNKED, Peer, in_chunks, ingest, request

LIMIT = 4096
SETTINGS = {"http.body_bytes_max": LIMIT, "http.header_bytes_max": 2048, "ingest.batch_events_max": 5}

TOO_LARGE = '{"detail":"Request body too large"}'
TOO_LARGE_HEADER = '{"detail":"Request header fields too large"}'
BUSY = '{"detail":"Server is busy, retry later","reason":"backpressure"}'


def body_of(size: int) -> bytes:
    body = batch_body([event()])
    return body + b" " * (size - len(body))


def test_the_largest_body_is_taken_and_one_byte_more_is_not(shared):
    check_accepted(shared, body_of(LIMIT), 1)
    check_refused(shared, ingest(shared, body_of(LIMIT + 1)), 413, TOO_LARGE, ends=True)


@pytest.mark.parametrize("size", [1, 1000, LIMIT, LIMIT + 1])
def test_the_same_goes_for_chunks_whatever_their_size(shared, size):
    header = ingest(shared, b"", CHUNKED)
    with stores(shared, 2), Peer(shared) as peer:
        assert peer.ask(header + in_chunks(body_of(LIMIT), size)).status == 202
        peer.check_goes_on()
    check_refused(shared, header + in_chunks(body_of(LIMIT + 1), size), 413, TOO_LARGE, ends=True)


def test_a_body_is_refused_before_it_is_sent(shared):
    for size in (LIMIT + 1, 10**9, 2**63, 2**64 - 1):
        check_refused(shared, ingest(shared, b"", {"Content-Length": str(size)}), 413, TOO_LARGE, ends=True)
    for chunk in (b"1001\r\n", b"7fffffffffffffff\r\n", b"ffffffffffffffff\r\n"):
        check_refused(shared, ingest(shared, b"", CHUNKED) + chunk, 413, TOO_LARGE, ends=True)


def test_a_client_that_sends_on_can_still_read_why_it_was_refused(shared):
    body = b" " * 5_000_000
    check_refused(shared, ingest(shared, body), 413, TOO_LARGE, ends=True)
    check_refused(shared, ingest(shared, b"", CHUNKED) + in_chunks(body, 1000), 413, TOO_LARGE, ends=True)
    check_refused(shared, request("POST", "/nowhere", body=body), 404, '{"detail":"Not Found"}', ends=True)
    check_refused(shared, ingest(shared, body, {"Authorization": None}), 401, ends=True)
    check_refused(shared, b"X" * 5_000_000, 431, TOO_LARGE_HEADER, ends=True)


def test_the_limit_counts_before_and_after_inflating(shared):
    gzip_header = {"Content-Encoding": "gzip"}
    too_large_already = gzip.compress(os.urandom(LIMIT))
    check_refused(shared, ingest(shared, too_large_already, gzip_header), 413, TOO_LARGE, ends=True)
    too_large_inside = gzip.compress(body_of(LIMIT + 1))
    check_refused(shared, ingest(shared, too_large_inside, gzip_header), 413, TOO_LARGE)
    check_accepted(shared, gzip.compress(body_of(LIMIT)), 1, headers=gzip_header)


def test_as_many_events_as_configured_are_a_batch(shared):
    check_accepted(shared, [event(run_id=...) for _ in range(5)])
    message = "List should have at most 5 items after validation, not 6"
    ctx = '{"field_type":"List","max_length":5,"actual_length":6}'
    expected = problem("too_long", ["body", "events"], message, "[]", ctx)
    check_unprocessable(shared, batch_body([event(run_id=...) for _ in range(6)]), expected)


def test_a_header_is_as_long_as_configured(shared):
    check_accepted(shared, [event()], headers={"X": "x" * 1500})
    check_refused(shared, ingest(shared, [event()], {"X": "x" * 2048}), 431, TOO_LARGE_HEADER, ends=True)


def test_connections_over_the_limit_are_told_to_come_back(make_node):
    node = make_node({"http.connections_max": 3})
    # Whoever asked last whether the node is ready keeps a place until its end has been seen.
    taken = [wait_until(lambda: admitted(node), "a place to be free") for _ in range(3)]
    for _ in range(20):
        with Peer(node) as peer:
            answer = peer.answer()
            assert (answer.status, answer.body.decode()) == (429, BUSY)
            assert answer.headers["retry-after"] == "1"
            assert answer.headers["connection"] == "close"
            assert peer.ended()
    for peer in taken:
        peer.check_goes_on()
    taken.pop().socket.close()
    wait_until(lambda: admitted(node), "a place to be free").socket.close()
    # The metrics are asked for over a connection that has to find a place as well.
    wait_until(lambda: node.metric("kavach_http_connections_refused_total") >= 20, "the refusals to be counted")
    for peer in taken:
        peer.check_goes_on()


def admitted(node) -> Peer | None:
    """A connection that has got a place and keeps it; None when there is none."""
    peer = Peer(node)
    if peer.ask(request("GET", "/healthz")).status == 200:
        return peer
    peer.socket.close()
    return None
