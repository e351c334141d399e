"""TLS: the same service over it, new certificates without a restart, and peers that do not speak it."""

import gzip
import signal
import socket
import ssl

import pytest

from support.checks import check_accepted, check_refused, stores
from support.kavachd import Kavachd, batch_body, event, wait_until
from support.raw_http import CHUNKED, Peer, in_chunks, ingest, request
from support.tls import make_certificate, make_tls_node, trust


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    with make_tls_node(tmp_path_factory.mktemp("tls")) as node:
        yield node


# --- the same service ----------------------------------------------------------------------------------------


def test_batches_are_accepted_plain_and_gzip_in_lengths_and_chunks(secure):
    check_accepted(secure, [event()])
    check_accepted(secure, gzip.compress(batch_body([event()])), 1, headers={"Content-Encoding": "gzip"})
    with stores(secure, 2), Peer(secure) as peer:
        assert peer.ask(ingest(secure, b"", CHUNKED) + in_chunks(batch_body([event()]), 7)).status == 202
        peer.check_goes_on()


def test_a_body_of_many_records_is_accepted(secure):
    # A TLS record holds 16 KiB at most.
    check_accepted(secure, [event(prompt="0123456789" * 600) for _ in range(1000)])


def test_a_bad_batch_is_refused(secure):
    check_refused(secure, ingest(secure, b"no JSON"), 422)
    check_refused(secure, ingest(secure, [event()], {"Authorization": None}), 401)
    check_refused(secure, ingest(secure, b"", {"Content-Length": "99999999"}), 413, ends=True)
    check_refused(secure, b"GET / HTTP/1.1\nHost: h\n\n", 400, ends=True)


def test_pipelined_requests_in_few_records_are_answered_in_order(secure):
    with stores(secure, 51), Peer(secure) as peer:
        peer.send(b"".join(ingest(secure, [event()]) + request("GET", "/healthz") for _ in range(50)))
        assert [peer.answer().status for _ in range(100)] == [202, 200] * 50
        peer.check_goes_on()


def test_a_request_may_arrive_in_records_of_one_byte(secure):
    with stores(secure, 2), Peer(secure) as peer:
        for byte in ingest(secure, [event()]):
            peer.send(bytes([byte]))
        assert peer.answer().status == 202
        peer.check_goes_on()


def test_a_client_that_has_finished_sending_gets_its_answer_and_a_proper_end(secure):
    with Peer(secure) as peer:
        assert peer.ask(request("GET", "/healthz", {"Connection": "close"})).status == 200
        assert peer.ended()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken(secure, version):
    only = ssl.create_default_context(cafile=secure.settings["http.tls_certificate_file"])
    only.minimum_version = only.maximum_version = version
    with only.wrap_socket(secure.connect(), server_hostname="localhost") as connection:
        assert connection.version() == version.name.replace("_", ".")
        connection.sendall(request("GET", "/healthz"))
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_older_versions_are_not(secure):
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):  # the server's own words
        old.wrap_socket(secure.connect(), server_hostname="localhost")


# --- peers that do not speak it ------------------------------------------------------------------------------


def everything_from(connection: socket.socket) -> bytes:
    received = b""
    try:
        while data := connection.recv(1 << 16):
            received += data
    except ConnectionResetError:
        pass
    return received


@pytest.mark.parametrize(
    "sent",
    [request("GET", "/healthz"), b"\0" * 1000, b"\x16\x03\x01\xff\xff" + b"x" * 70_000, b"\x16\x03\x01\0\5hello"],
)
def test_what_is_not_tls_is_closed_without_being_served(secure, sent):
    with secure.connect() as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # closed while we were sending
        answer = everything_from(connection)
    # A TLS alert or nothing.
    assert answer == b"" or answer[0] == 21
    check_accepted(secure, [event()])


def test_a_batch_in_plain_text_is_not_taken(secure):
    with stores(secure, 1):
        with secure.connect() as connection:
            connection.sendall(ingest(secure, [event()]))
            assert b"HTTP" not in everything_from(connection)
        assert secure.post([event()]).status == 202


def test_a_handshake_that_stops_is_in_nobodys_way(secure):
    stalled = [secure.connect() for _ in range(50)]
    for i, connection in enumerate(stalled):
        connection.sendall(b"\x16\x03\x01\x02\0\x01\0"[: i % 7])
    check_accepted(secure, [event()])
    for connection in stalled:
        connection.close()


def test_tls_spoken_to_a_plain_port_is_no_request(make_node, secure):
    node = make_node()
    with pytest.raises(OSError):
        secure.tls.wrap_socket(node.connect(), server_hostname="localhost")
    check_accepted(node, [event()])


# --- certificates --------------------------------------------------------------------------------------------


def common_name(peer: Peer) -> str:
    return dict(pair[0] for pair in peer.socket.getpeercert()["subject"])["commonName"]


def reload(node: Kavachd, outcome: str) -> None:
    before = node.log().count(outcome)
    node.process.send_signal(signal.SIGHUP)
    wait_until(lambda: node.log().count(outcome) > before, f"the log to say: {outcome}")


def test_a_new_certificate_is_used_from_sighup_on_and_open_connections_stay(tmp_path):
    with make_tls_node(tmp_path) as node, Peer(node) as old:
        assert common_name(old) == "first"
        make_certificate(tmp_path, "second")
        with Peer(node) as peer:
            assert common_name(peer) == "first"  # nobody has said a word yet
        reload(node, "reload: done")
        node.tls = trust(tmp_path)
        with Peer(node) as new:
            assert common_name(new) == "second"
            new.check_goes_on()
        old.check_goes_on()


def test_a_certificate_that_cannot_be_used_is_refused_and_the_old_one_stays(tmp_path):
    with make_tls_node(tmp_path) as node:
        certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
        good = certificate.read_bytes(), key.read_bytes()
        other = tmp_path / "other"
        other.mkdir()
        make_certificate(other, "other")
        for broken in (
            (b"", good[1]),
            (good[0], b""),
            (good[0], (other / "key.pem").read_bytes()),
            (good[0][:100], good[1]),
        ):
            certificate.write_bytes(broken[0])
            key.write_bytes(broken[1])
            reload(node, "reload: refused, the old settings stay")
            with Peer(node) as peer:
                assert common_name(peer) == "first"
                peer.check_goes_on()
            # What would not be reloaded would not start either, and check says so.
            check = node.command("check", check=False)
            assert check.returncode == 2
            assert "http.tls_" in check.stderr and str(tmp_path) in check.stderr
        certificate.unlink()
        reload(node, "reload: refused, the old settings stay")


def test_the_private_key_is_in_no_log_and_in_no_answer(secure):
    body = open(secure.settings["http.tls_key_file"]).read().splitlines()[1]
    assert body not in secure.log()
    for path in ("/metrics", "/v1/status"):
        assert body.encode() not in secure.request("GET", path).body
