"""Clients that are slow, stop in the middle, vanish, never read, or just sit there: nobody else notices."""

import socket
import time
from contextlib import ExitStack

import pytest

from support.checks import check_accepted, stores
from support.kavachd import batch_body, event, wait_until
from support.raw_http import CHUNKED, Peer, idle_connections, in_chunks, ingest, request

SETTINGS = {"http.header_timeout_ms": 400, "http.body_timeout_ms": 400, "http.write_timeout_ms": 400}

TIMEOUT = '{"detail":"Request timeout"}'


def connections(node) -> int:
    return int(node.metric("kavach_http_connections")) - 1  # the one that asks


@pytest.fixture(autouse=True)
def leaves_no_connection_behind(shared):
    yield
    wait_until(lambda: connections(shared) == 0, "every connection to be gone")


def check_timed_out(node, *stalled: bytes) -> None:
    """Each of these beginnings of a request is answered 408 when nothing comes any more, and nothing is stored."""
    with stores(node, 1), ExitStack() as open_ones:
        peers = [open_ones.enter_context(Peer(node)) for _ in stalled]
        for peer, sent in zip(peers, stalled):
            peer.send(sent)
        for peer, sent in zip(peers, stalled):
            answer = peer.answer()
            assert (answer.status, answer.body.decode()) == (408, TIMEOUT), sent
            assert peer.ended()
        assert node.post([event()]).status == 202


def test_a_header_that_does_not_end_is_given_up(shared):
    header = ingest(shared, b"")
    assert header.endswith(b"\r\n\r\n")
    check_timed_out(shared, *(header[:length] for length in (1, 4, 20, len(header) // 2, -4, -3, -2, -1)))


@pytest.mark.parametrize("size", [1000, 1_000_000])
def test_a_body_that_does_not_end_is_given_up(shared, size):
    body = batch_body([event(prompt="x" * size)])
    sent = ingest(shared, body)
    check_timed_out(shared, *(sent[:-kept_back] for kept_back in (len(body), len(body) // 2, 1)))


def test_chunks_that_do_not_end_are_given_up(shared):
    sent = ingest(shared, b"", CHUNKED) + in_chunks(batch_body([event()]), 100)
    assert sent.endswith(b"}\r\n0\r\n\r\n")
    check_timed_out(shared, *(sent[:-kept_back] for kept_back in range(1, 9)))


def test_a_client_that_waits_for_100_continue_and_then_sends_nothing_is_given_up(shared):
    with Peer(shared) as peer:
        peer.send(ingest(shared, b"", {"Expect": "100-continue", "Content-Length": "100"}))
        assert peer.answer().status == 100
        assert peer.answer().status == 408
        assert peer.ended()


@pytest.mark.parametrize("part", ["header", "body", "chunks"])
def test_a_byte_now_and_then_does_not_renew_the_patience(shared, part):
    """Trickled like this the request would take minutes; the answer comes while it is far from complete."""
    if part == "header":
        head, rest = b"GET /healthz HTTP/1.1\r\nHost: h\r\nX: ", b"x" * 10_000
    elif part == "body":
        head, rest = ingest(shared, b"", {"Content-Length": "10000"}), b" " * 10_000
    else:
        head, rest = ingest(shared, b"", CHUNKED), b"1\r\n \r\n" * 10_000
    with Peer(shared) as peer:
        peer.send(head)
        peer.socket.setblocking(False)
        answered = False
        for byte in rest:
            try:
                answered = peer.socket.recv(1, socket.MSG_PEEK) != b""
                break
            except BlockingIOError:
                peer.send(bytes([byte]))
                time.sleep(0.02)
        assert answered
        peer.socket.setblocking(True)
        assert peer.answer().status == 408
        assert peer.ended()


def test_many_stalled_requests_are_in_nobodys_way(shared):
    body = batch_body([event()])
    stalls = [b"POST /v1/ing", ingest(shared, body)[:-1], (ingest(shared, b"", CHUNKED) + in_chunks(body, 9))[:-30]]
    peers = [Peer(shared) for _ in range(300)]
    for i, peer in enumerate(peers):
        peer.send(stalls[i % len(stalls)])
    check_accepted(shared, [event()])
    for peer in peers:
        assert peer.answer().status == 408
        peer.socket.close()


# --- clients that stop in the middle -------------------------------------------------------------------------


def test_a_client_that_has_finished_sending_still_gets_all_its_answers(shared):
    with stores(shared, 11), Peer(shared) as peer:
        peer.send(b"".join(ingest(shared, [event()]) for _ in range(10)))
        peer.finish_sending()
        for _ in range(10):
            assert peer.answer().status == 202
        assert peer.ended()
        assert shared.post([event()]).status == 202


def test_a_request_that_was_cut_off_is_not_served(shared):
    complete = ingest(shared, [event()])
    in_pieces = ingest(shared, b"", CHUNKED) + in_chunks(batch_body([event()]), 100)
    with stores(shared, 1):
        for sent in (complete, in_pieces):
            for length in (0, 1, 50, len(sent) // 2, len(sent) - 1):
                with Peer(shared) as peer:
                    peer.send(sent[:length])
                    peer.finish_sending()
                    assert peer.ended()
        assert shared.post([event()]).status == 202


@pytest.mark.parametrize("size", [1000, 1_000_000])
def test_a_reset_in_the_middle_of_a_body_leaves_nothing_behind(shared, size):
    sent = ingest(shared, [event(prompt="x" * size)])
    chunks = ingest(shared, b"", CHUNKED) + in_chunks(batch_body([event(prompt="x" * size)]), 1000)
    with stores(shared, 1):
        for data in (sent, chunks):
            for length in (1, 100, len(data) // 2, len(data) - 1):
                peer = Peer(shared)
                peer.send(data[:length])
                peer.reset()
        assert shared.post([event()]).status == 202


def test_a_client_that_does_not_wait_for_its_answer_harms_nobody(shared):
    """What it sent may be stored or not: it was never told. Sent again it is stored once."""
    with stores(shared, 20):
        for _ in range(20):
            sent = ingest(shared, [event()])
            peer = Peer(shared)
            peer.send(sent)
            peer.reset()
            with Peer(shared) as again:
                assert again.ask(sent).status == 202


def test_a_client_that_never_reads_is_given_up(shared):
    timeouts = shared.metric("kavach_http_timeouts_total")
    with Peer(shared) as peer:
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.socket.setblocking(False)
        asked = request("GET", "/metrics") * 5000  # far more answers than fit into the sockets' buffers
        try:
            while asked:
                asked = asked[peer.socket.send(asked) :]
        except (BlockingIOError, ConnectionResetError, BrokenPipeError):
            pass
        wait_until(lambda: shared.metric("kavach_http_timeouts_total") > timeouts, "its patience to end")
        check_accepted(shared, [event()])


# --- clients that just sit there -----------------------------------------------------------------------------


def test_an_idle_connection_is_closed_without_a_word(make_node):
    node = make_node({"http.idle_timeout_ms": 300})
    with Peer(node) as fresh, Peer(node) as used:
        assert used.post([event()]).status == 202
        assert fresh.ended()
        assert used.ended()
    # Empty lines are no request.
    with Peer(node) as peer:
        peer.send(b"\r\n")
        assert peer.ended()
    assert node.metric("kavach_http_timeouts_total") == 3


def test_10_000_idle_connections_keep_nobody_from_being_served(shared):
    with idle_connections(shared, 10_000) as peers:
        check_accepted(shared, [event()])
        with stores(shared, 100):
            for peer in peers[::100]:
                assert peer.post([event()]).status == 202
