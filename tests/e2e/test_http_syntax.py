"""HTTP/1.1 as bytes: what RFC 9112 allows is served, what it forbids ends the connection with a reason."""

import pytest

from support.checks import check_refused, stores
from support.kavachd import batch_body, event
from support.raw_http import CHUNKED, Peer, in_chunks, ingest, request

NOT_FOUND = '{"detail":"Not Found"}'
NOT_ALLOWED = '{"detail":"Method Not Allowed"}'
TOO_LARGE_HEADER = '{"detail":"Request header fields too large"}'
ENDPOINTS = {
    "/v1/ingest": "POST",
    "/healthz": "GET, HEAD",
    "/readyz": "GET, HEAD",
    "/v1/status": "GET, HEAD",
    "/metrics": "GET, HEAD",
}


def malformed(why: str) -> str:
    return f'{{"detail":"Malformed HTTP request: {why}"}}'


BARE_LF = malformed("line feed without carriage return")


def with_head(node, head: str, body: bytes = b"") -> bytes:
    """A valid batch's request with `head` behind its other header lines; the framing is left to `head`."""
    sent = ingest(node, b"", {"Content-Length": None})
    return sent[:-2] + head.encode("latin-1") + b"\r\n" + body


def with_chunks(node, chunks: bytes) -> bytes:
    return ingest(node, b"", CHUNKED) + chunks


# --- the length of a body ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head, why",
    [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "bad Transfer-Encoding"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "bad Content-Length"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", "bad Content-Length"),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", "multiple Content-Length"),
        ("Content-Length: 5, 6\r\n", "multiple Content-Length"),
        ("Content-Length: 5\r\ncontent-length: 05x\r\n", "bad Content-Length"),
        ("Content-Length:\r\n", "bad Content-Length"),
        ("Content-Length: -1\r\n", "bad Content-Length"),
        ("Content-Length: +5\r\n", "bad Content-Length"),
        ("Content-Length: 5.0\r\n", "bad Content-Length"),
        ("Content-Length: 0x5\r\n", "bad Content-Length"),
        ("Content-Length: 5 5\r\n", "bad Content-Length"),
        ("Content-Length: five\r\n", "bad Content-Length"),
        ("Content-Length: 18446744073709551616\r\n", "bad Content-Length"),
        ("Content-Length: 99999999999999999999999999\r\n", "bad Content-Length"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "bad Transfer-Encoding"),
        ("Transfer-Encoding: \x0bchunked\r\n", "bad value"),
        ("Transfer-Encoding : chunked\r\n", "bad field"),
        ("Content-Length : 5\r\n", "bad field"),
    ],
)
def test_a_body_whose_length_is_in_doubt_is_refused(shared, head, why):
    check_refused(shared, with_head(shared, head, b"hello"), 400, malformed(why), ends=True)


@pytest.mark.parametrize(
    "coding", ["gzip", "identity", "gzip, chunked", "chunked, chunked", "chunked;q=1", "chunked, gzip", "x", ""]
)
def test_other_transfer_codings_are_not_implemented(shared, coding):
    sent = with_head(shared, f"Transfer-Encoding: {coding}\r\n", b"0\r\n\r\n")
    check_refused(shared, sent, 501, '{"detail":"Transfer-Encoding is not supported"}', ends=True)


@pytest.mark.parametrize("head", ["Content-Length: {0}, {0}\r\n", "Content-Length: {0}\r\nContent-Length: {0}\r\n"])
def test_the_same_length_twice_is_that_length(shared, head):
    body = batch_body([event()])
    with stores(shared, 2), Peer(shared) as peer:
        assert peer.ask(with_head(shared, head.format(len(body)), body)).status == 202
        peer.check_goes_on()


def test_a_request_without_a_length_has_no_body(shared):
    check_refused(
        shared,
        ingest(shared, b"", {"Content-Length": None}),
        422,
        '{"detail":[{"type":"missing","loc":["body"],"msg":"Field required","input":null}]}',
    )


# --- chunks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chunks, why",
    [
        (b"zz\r\n", "bad chunk"),
        (b"\r\n", "bad chunk"),
        (b" 5\r\nhello\r\n0\r\n\r\n", "bad chunk"),
        (b"-5\r\nhello\r\n0\r\n\r\n", "bad chunk"),
        (b"+5\r\nhello\r\n0\r\n\r\n", "bad chunk"),
        (b"5 \r\nhello\r\n0\r\n\r\n", "bad chunk extension"),
        (b"0x5\r\nhello\r\n0\r\n\r\n", "bad chunk extension"),
        (b"5_0\r\nhello\r\n0\r\n\r\n", "bad chunk extension"),
        (b"5,5\r\nhello\r\n0\r\n\r\n", "bad chunk extension"),
        (b"10000000000000000\r\nhello\r\n0\r\n\r\n", "bad chunk"),
        (b"fffffffffffffffffffff\r\nhello\r\n0\r\n\r\n", "bad chunk"),
        (b"5\r\nhello0\r\n\r\n", "bad chunk"),
        (b"5\r\nhello, world\r\n0\r\n\r\n", "bad chunk"),
        (b"4\r\nhello\r\n0\r\n\r\n", "bad chunk"),
        (b"5\r\nhello\r\nxyz\r\n\r\n", "bad chunk"),
        (b"5\r\rhello\r\n0\r\n\r\n", "bad line ending"),
        (b"5;\r\nhello\r\n0\r\n\r\n", "bad chunk extension"),
        (b'5;a="\nb"\r\nhello\r\n0\r\n\r\n', "bad chunk extension"),
        (b'5;a="\0"\r\nhello\r\n0\r\n\r\n', "bad chunk extension"),
        (b'0;a="\nb"\r\n\r\n', "bad chunk extension"),
        (b"5\nhello\n0\n\n", "line feed without carriage return"),
        (b"5\r\nhello\r\n0\n\n", "line feed without carriage return"),
        (b"0\r\nTrailer: a\nb\r\n", "line feed without carriage return"),
        (b"0\r\nno trailer\r\n\r\n", "bad field"),
        (b"0\r\nX: a\0b\r\n\r\n", "bad value"),
        (b"0\r\nContent-Length: 5\r\n\r\n", "bad Content-Length"),
        (b"5;" + b"x" * 100_000 + b"\r\nhello\r\n0\r\n\r\n", "chunk framing too long"),
        (b"0\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", "chunk framing too long"),
    ],
)
def test_bad_chunks_are_refused(shared, chunks, why):
    check_refused(shared, with_chunks(shared, chunks), 400, malformed(why), ends=True)


@pytest.mark.parametrize("size", [1, 2, 7, 16, 1000, 1 << 20])
def test_chunks_of_every_size_make_the_same_body(shared, size):
    with stores(shared, 2), Peer(shared) as peer:
        assert peer.ask(with_chunks(shared, in_chunks(batch_body([event()]), size))).status == 202
        peer.check_goes_on()


@pytest.mark.parametrize(
    "first, last",
    [
        ("", "0\r\n\r\n"),
        ("0000000000000000000", "0000000000000000000\r\n\r\n"),
        ("", "0;x=y\r\n\r\n"),
        ("", "0\r\nContent-Type: text/plain\r\nAuthorization: Bearer x\r\n\r\n"),
    ],
)
def test_extensions_trailers_and_leading_zeros_are_ignored(shared, first, last):
    body = batch_body([event()]).decode()
    chunks = f'{first}{len(body):X};name=value;quoted="a; \\" b";flag\r\n{body}\r\n{last}'
    with stores(shared, 2), Peer(shared) as peer:
        assert peer.ask(with_chunks(shared, chunks.encode())).status == 202
        peer.check_goes_on()


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_request_may_arrive_split_at_every_byte(shared, framing):
    body = batch_body([event()])
    sent = ingest(shared, body) if framing == "length" else with_chunks(shared, in_chunks(body, 40))
    # It is the same event each time, so it is stored once.
    with stores(shared, 2), Peer(shared) as peer:
        for split in range(1, len(sent)):
            peer.send(sent[:split])
            assert peer.ask(sent[split:]).status == 202, split
        for byte in sent:
            peer.send(bytes([byte]))
        assert peer.answer().status == 202
        peer.check_goes_on()


# --- header lines --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line, why",
    [
        ("X: a\r\n b\r\n", "bad obs-fold"),
        ("X: a\r\n\tb\r\n", "bad obs-fold"),
        ("X:\r\n b\r\n", "bad obs-fold"),
        ("X: a\r\n \r\n", "bad obs-fold"),
        ("Content-Length:\r\n 0\r\n", "bad obs-fold"),
        ("X: a\nY: b\r\n", "line feed without carriage return"),
        ("X: a\n", "line feed without carriage return"),
        ("X: a\n\n", "line feed without carriage return"),
        ("X: a\rY: b\r\n", "bad line ending"),
        ("X: a\r\r\n", "bad line ending"),
        ("X: a\0b\r\n", "bad value"),
        ("X\0: a\r\n", "bad field"),
        ("X: \x01\r\n", "bad value"),
        ("X: \x7f\r\n", "bad value"),
        ("X Y: a\r\n", "bad field"),
        ("X : a\r\n", "bad field"),
        ("X(comment): a\r\n", "bad field"),
        ("Ключ: a\r\n", "bad field"),
        (": a\r\n", "bad field"),
        ("no colon\r\n", "bad field"),
    ],
)
def test_a_bad_header_line_is_refused(shared, line, why):
    line = line.encode().decode("latin-1")
    check_refused(shared, with_head(shared, "Content-Length: 0\r\n" + line), 400, malformed(why), ends=True)


@pytest.mark.parametrize(
    "sent",
    [
        "GET /healthz HTTP/1.1\nHost: h\n\n",
        "\nGET /healthz HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST /v1/ingest HTTP/1.1\r\nHost: h\n",
    ],
)
def test_lines_that_end_in_a_bare_line_feed_are_refused_at_once(shared, sent):
    check_refused(shared, sent.encode(), 400, BARE_LF, ends=True)


@pytest.mark.parametrize("hosts", [[], ["a", "a"], ["a", "b"], ["a b"], ["a/b"], ["user@a"], ["a,b c"]])
def test_a_request_names_exactly_one_host(shared, hosts):
    lines = "".join(f"Host: {host}\r\n" for host in hosts)
    sent = f"GET /healthz HTTP/1.1\r\n{lines}\r\n".encode()
    check_refused(shared, sent, 400, malformed("no Host, several, or a bad one"), ends=True)


@pytest.mark.parametrize("host", ["", "kavach", "kavach.example:8000", "127.0.0.1:80", "[::1]:8000", "a_b"])
def test_every_form_of_a_host_is_taken(shared, host):
    with Peer(shared) as peer:
        assert peer.ask(f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()).status == 200


def test_100_kb_of_headers_are_refused(shared):
    one_field = ingest(shared, [], {"X": "x" * 100_000})
    many_fields = ingest(shared, [], {f"X-{i}": "x" * 90 for i in range(1000)})
    long_target = request("GET", "/" + "x" * 100_000)
    long_method = b"X" * 100_000
    for sent in (one_field, many_fields, long_target, long_method):
        check_refused(shared, sent, 431, TOO_LARGE_HEADER, ends=True)


def test_a_header_up_to_the_limit_is_taken(shared):
    limit = 16 << 10  # http.header_bytes_max
    for size, status in ((limit, 202), (limit + 1, 431)):
        body = batch_body([event()])
        spare = size - len(ingest(shared, body, {"X": ""})) + len(body)
        sent = ingest(shared, body, {"X": "x" * spare})
        assert len(sent) - len(body) == size
        if status == 202:
            with stores(shared, 2), Peer(shared) as peer:
                assert peer.ask(sent).status == 202
                peer.check_goes_on()
        else:
            check_refused(shared, sent, 431, TOO_LARGE_HEADER, ends=True)


def test_names_in_any_case_and_values_with_space_around_are_taken(shared):
    body = batch_body([event()])
    head = (
        f"aUTHORIZATION:Bearer {shared.key}\r\ncONTENT-tYPE: \t application/json\t \r\ncontent-LENGTH:{len(body)}  \r\n"
    )
    sent = f"POST /v1/ingest HTTP/1.1\r\nhOST:h\r\nX-Empty:\r\nX-Latin: \xe9\r\n{head}\r\n".encode("latin-1") + body
    with stores(shared, 2), Peer(shared) as peer:
        assert peer.ask(sent).status == 202
        peer.check_goes_on()


# --- the request line ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line, why",
    [
        ("GET  /healthz HTTP/1.1", "bad target"),
        ("GET\t/healthz HTTP/1.1", "bad method"),
        (" GET /healthz HTTP/1.1", None),
        ("GET /healthz", "bad target"),
        ("GET", "bad method"),
        ("GET /healthz HTTP/1.1 ", "bad version"),
        ("GET /healthz http/1.1", "bad version"),
        ("GET /healthz HTTP/11", "bad version"),
        ("GET /healthz HTTP/1.1.1", "bad version"),
        ("GET /healthz HTTPS/1.1", "bad version"),
        ("GET /health z HTTP/1.1", "bad version"),
        ("GET /heal\0thz HTTP/1.1", "bad target"),
        ("GET healthz HTTP/1.1", "bad target"),
        ("GET ?query HTTP/1.1", "bad target"),
        ("GET ftp://host/healthz HTTP/1.1", "bad target"),
        ("GET http:///healthz HTTP/1.1", "bad target"),
        ("GET http:/healthz HTTP/1.1", "bad target"),
        ("CONNECT host:80 HTTP/1.1", "bad target"),
        ("G@T /healthz HTTP/1.1", "bad method"),
        ("{}", None),
        ("\x16\x03\x01\x02", None),
    ],
)
def test_a_bad_request_line_is_refused(shared, line, why):
    sent = f"{line}\r\nHost: h\r\n\r\n".encode("latin-1")
    check_refused(shared, sent, 400, malformed(why) if why else None, ends=True)


@pytest.mark.parametrize("version", ["HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/3.0", "HTTP/9.9"])
def test_other_versions_are_not_supported(shared, version):
    sent = ingest(shared, [event()], version=version)
    check_refused(shared, sent, 505, '{"detail":"HTTP version not supported"}', ends=True)


def test_the_preface_of_http_2_is_told_that_it_is_not_supported(shared):
    check_refused(shared, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, ends=True)


@pytest.mark.parametrize(
    "target",
    [
        "/v1/ingest",
        "/v1/ingest?",
        "/v1/ingest?a=b&c=%20#",
        "/v1/%69ngest",
        "/%76%31/%69%6e%67%65%73%74",
        "http://kavach.example/v1/ingest",
        "HTTPS://kavach.example:443/v1/ingest?a=b",
    ],
)
def test_every_spelling_of_a_path_is_that_path(shared, target):
    with stores(shared, 2), Peer(shared) as peer:
        assert peer.ask(ingest(shared, [event()], target=target)).status == 202
        peer.check_goes_on()


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/v1",
        "/v1/",
        "/v1/ingest/",
        "/v1//ingest",
        "//v1/ingest",
        "/V1/ingest",
        "/v1/ingest;x=y",
        "/v1/ingest%00",
        "/v1/ingest%0d%0aX:%20y",
        "/v1/ingest%",
        "/v1/ingest%zz",
        "/v1/%2569ngest",
        "/v1/../v1/ingest",
        "/favicon.ico",
        "/%ff",
        "http://kavach.example",
        "*",
    ],
)
def test_other_paths_are_not_found(shared, target):
    for method in ("GET", "POST", "OPTIONS", "BREW"):
        with Peer(shared) as peer:
            answer = peer.ask(request(method, target))
            assert (answer.status, answer.body.decode()) == (404, NOT_FOUND)
    check_refused(shared, ingest(shared, [event()], target=target), 404, NOT_FOUND)


@pytest.mark.parametrize("path, allowed", ENDPOINTS.items())
def test_other_methods_are_not_allowed_and_those_that_are_get_listed(shared, path, allowed):
    every = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", "BREW", "X" * 1000}
    for method in sorted(every - {"HEAD"} - set(allowed.split(", "))):
        answer = check_refused(shared, request(method, path, body=b"ignored"), 405, NOT_ALLOWED)
        assert answer.headers["allow"] == allowed


# --- one connection, many requests ---------------------------------------------------------------------------


def test_head_is_get_without_the_body(shared):
    with stores(shared, 1), Peer(shared) as peer:
        for path in ("/healthz", "/readyz", "/v1/status", "/metrics", "/nowhere", "/v1/ingest"):
            head, get = peer.ask(request("HEAD", path)), peer.ask(request("GET", path))
            assert head.status == get.status
            assert head.body == b"" and get.body != b""
            if path != "/metrics":
                assert head.headers["content-length"] == str(len(get.body))
            assert head.headers.get("allow") == get.headers.get("allow")
        peer.check_goes_on()


@pytest.mark.parametrize("bad", [b"GET / HTTP/1.1\nHost: h\n\n", b"X" * 20_000, b"\x16\x03\x01\r\n\r\n"])
def test_a_bad_request_behind_head_is_answered_with_a_body(shared, bad):
    with Peer(shared) as peer:
        peer.send(request("HEAD", "/healthz"))
        assert peer.answer(to_head=True).status == 200
        answer = peer.ask(bad)
        assert answer.status in (400, 431)
        assert answer.json()["detail"]
        assert peer.ended()


def test_100_pipelined_requests_are_answered_in_order(shared):
    sent, expected = b"", []
    for i in range(100):
        of_agent = event(agent_name=f"pipelined-{i}")
        choices = [
            (ingest(shared, [of_agent]), 202),
            (with_chunks(shared, in_chunks(batch_body([of_agent]), 50)), 202),
            (ingest(shared, [event(cost=-1)]), 422),
            (request("GET", "/healthz"), 200),
            (request("GET", f"/nowhere/{i}"), 404),
        ]
        data, status = choices[i % len(choices)]
        sent += data
        expected.append(status)
    with stores(shared, expected.count(202) + 1), Peer(shared) as peer:
        peer.send(sent)
        assert [peer.answer().status for _ in expected] == expected
        peer.check_goes_on()


def test_pipelined_batches_are_stored_in_order(shared):
    sent = b"".join(ingest(shared, [event(run_id="in order", input_tokens=i)]) for i in range(100))
    with stores(shared, 101), Peer(shared) as peer:
        # In pieces that end in the middle of requests.
        for at in range(0, len(sent), 1777):
            peer.send(sent[at : at + 1777])
        assert [peer.answer().status for _ in range(100)] == [202] * 100
        peer.check_goes_on()
    rows = shared.query("SELECT input_tokens FROM events WHERE run_id = 'in order' ORDER BY rowid")
    assert rows == [(i,) for i in range(100)]


def test_nothing_behind_a_request_that_ends_the_connection_is_served(shared):
    with stores(shared, 2), Peer(shared) as peer:
        last = ingest(shared, [event()], {"Connection": "close"})
        assert peer.ask(last + ingest(shared, [event()])).status == 202
        assert peer.ended()
        assert shared.post([event()]).status == 202
    smuggled = ingest(shared, b"0\r\n\r\n" + ingest(shared, [event()]), {"Transfer-Encoding": "chunked"})
    check_refused(shared, smuggled, 400, malformed("bad Transfer-Encoding"), ends=True)


def test_empty_lines_between_requests_are_skipped(shared):
    with stores(shared, 3), Peer(shared) as peer:
        assert peer.ask(b"\r\n\r\n" + ingest(shared, [event()]) + b"\r\n").status == 202
        assert peer.ask(b"\r\n" * 1000 + ingest(shared, [event()])).status == 202
        peer.check_goes_on()


def test_connection_close_is_kept_and_announced(shared):
    for name in ("close", "Close", "keep-alive, close", "close, TE"):
        with Peer(shared) as peer:
            assert peer.ask(request("GET", "/healthz", {"Connection": name})).headers["connection"] == "close"
            assert peer.ended()


def test_http_1_0_ends_after_its_answer_unless_it_asks_to_stay(shared):
    with stores(shared, 2):
        with Peer(shared) as peer:
            answer = peer.ask(ingest(shared, [event()], {"Host": None}, version="HTTP/1.0"))
            assert (answer.status, answer.headers["connection"]) == (202, "close")
            assert peer.ended()
        with Peer(shared) as peer:
            answer = peer.ask(request("GET", "/healthz", {"Connection": "keep-alive"}, version="HTTP/1.0"))
            assert answer.headers["connection"] == "keep-alive"
            peer.check_goes_on()


def test_http_1_0_knows_no_chunks(shared):
    sent = ingest(shared, b"", CHUNKED, version="HTTP/1.0") + in_chunks(batch_body([event()]), 10)
    check_refused(shared, sent, 400, malformed("bad Transfer-Encoding"), ends=True)


# --- Expect: 100-continue ------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_body_that_waits_for_100_continue_is_asked_for(shared, framing):
    body = batch_body([event()])
    headers = {"Expect": "100-continue"}
    headers |= CHUNKED if framing == "chunks" else {"Content-Length": str(len(body))}
    with stores(shared, 2), Peer(shared) as peer:
        peer.send(ingest(shared, b"", headers))
        assert peer.answer().status == 100
        assert peer.ask(in_chunks(body, 100) if framing == "chunks" else body).status == 202
        peer.check_goes_on()


def test_a_body_that_does_not_wait_is_just_taken(shared):
    # It arrives with its header, so nobody needs to be asked.
    with stores(shared, 2), Peer(shared) as peer:
        assert peer.ask(ingest(shared, [event()], {"Expect": "100-Continue"})).status == 202
        peer.check_goes_on()


@pytest.mark.parametrize(
    "method, target, headers, status",
    [
        ("POST", "/nowhere", {}, 404),
        ("PUT", "/v1/ingest", {}, 405),
        ("POST", "/v1/ingest", {"Authorization": None}, 401),
        ("POST", "/v1/ingest", {"Content-Encoding": "br"}, 415),
        ("POST", "/v1/ingest", {"Content-Length": "99999999"}, 413),
    ],
)
def test_a_body_that_would_be_refused_is_not_asked_for(shared, method, target, headers, status):
    fields = {"Authorization": f"Bearer {shared.key}", "Content-Length": "100", "Expect": "100-continue"} | headers
    check_refused(shared, request(method, target, fields), status, ends=True)


def test_an_old_client_is_never_sent_100_continue(shared):
    body = batch_body([event()])
    headers = {"Expect": "100-continue", "Content-Length": str(len(body))}
    with stores(shared, 2), Peer(shared) as peer:
        peer.send(ingest(shared, b"", headers, version="HTTP/1.0"))
        assert peer.ask(body).status == 202
        assert shared.post([event()]).status == 202
