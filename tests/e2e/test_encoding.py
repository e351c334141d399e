"""Content-Encoding: gzip in every shape, broken gzip, bombs, and the encodings that are not served."""

import gzip
import io
import zlib

import pytest

from support.checks import check_accepted, check_refused, check_unprocessable, problem, shown, stores
from support.kavachd import SANITIZED, batch_body, event
from support.raw_http import CHUNKED, Peer, in_chunks, ingest

GZIP = {"Content-Encoding": "gzip"}
BAD_GZIP = '{"detail":"Invalid gzip body"}'
TOO_LARGE = '{"detail":"Request body too large"}'
UNREADABLE = '{"detail":"There was an error parsing the body"}'
LIMIT = 10 << 20  # http.body_bytes_max

PLAIN = batch_body([event(idempotency_key=...)])
MIB = 1 << 20


def check_bad_gzip(node, body: bytes) -> None:
    check_refused(node, ingest(node, body, GZIP), 400, BAD_GZIP)


def with_header_fields() -> bytes:
    """gzip with everything that its header may hold: extra field, name, comment, checksum (RFC 1952 2.3)."""
    header = b"\x1f\x8b\x08\x1f\0\0\0\0\0\xff" + b"\x04\0extr" + b"name\0" + b"comment\0"
    header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little")
    return header + gzip.compress(PLAIN)[10:]


def named() -> bytes:
    out = io.BytesIO()
    with gzip.GzipFile("batch.json", "wb", fileobj=out) as file:
        file.write(PLAIN)
    return out.getvalue()


# --- gzip that is taken --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gzip", "GZIP", "x-gzip", "\tgzip "])
def test_gzip_is_known_by_its_names(shared, name):
    check_accepted(shared, gzip.compress(PLAIN), 1, headers={"Content-Encoding": name})


@pytest.mark.parametrize("name", [None, "", "identity", "Identity"])
def test_a_body_may_be_plain(shared, name):
    check_accepted(shared, PLAIN, 1, headers={"Content-Encoding": name})


@pytest.mark.parametrize("level", [0, 1, 9])
def test_gzip_of_every_level_is_taken(shared, level):
    check_accepted(shared, gzip.compress(PLAIN, level), 1, headers=GZIP)


@pytest.mark.parametrize("body", [named(), with_header_fields()], ids=["name", "all"])
def test_a_gzip_header_may_have_optional_fields(shared, body):
    check_accepted(shared, body, 1, headers=GZIP)


def test_several_members_are_one_body(shared):
    for pieces in (2, 3, 50):
        size = len(PLAIN) // pieces + 1
        members = [gzip.compress(PLAIN[at : at + size]) for at in range(0, len(PLAIN), size)]
        check_accepted(shared, b"".join(members), 1, headers=GZIP)
    check_accepted(shared, gzip.compress(b"") + gzip.compress(PLAIN) + gzip.compress(b""), 1, headers=GZIP)


def test_zeros_behind_gzip_are_padding(shared):
    check_accepted(shared, gzip.compress(PLAIN) + b"\0" * 1000, 1, headers=GZIP)


def test_gzip_arrives_in_chunks_too(shared):
    body = gzip.compress(PLAIN)
    with stores(shared, 2), Peer(shared) as peer:
        assert peer.ask(ingest(shared, b"", GZIP | CHUNKED) + in_chunks(body, 7)).status == 202
        peer.check_goes_on()


# --- broken gzip ---------------------------------------------------------------------------------------------


def test_gzip_cut_off_anywhere_is_refused(shared):
    body = gzip.compress(PLAIN)
    with stores(shared, 1), Peer(shared) as peer:
        for length in range(len(body)):
            answer = peer.ask(ingest(shared, body[:length], GZIP))
            assert (answer.status, answer.body.decode()) == (400, BAD_GZIP), length
        peer.check_goes_on()


def test_gzip_with_any_bit_flipped_is_refused(shared):
    body = gzip.compress(PLAIN)
    with stores(shared, 1), Peer(shared) as peer:
        # Bytes 3 to 9 are flags, time and system: not all of their bits matter to anyone.
        for at in [*range(3), *range(10, len(body))]:
            flipped = bytearray(body)
            flipped[at] ^= 1 << at % 8
            answer = peer.ask(ingest(shared, bytes(flipped), GZIP))
            assert (answer.status, answer.body.decode()) == (400, BAD_GZIP), at
        peer.check_goes_on()


@pytest.mark.parametrize("behind", [b"x", b"{}", b"\0\0x", b"\x1f\x8b", gzip.compress(b" ", mtime=0)[:-1]])
def test_gzip_followed_by_anything_else_is_refused(shared, behind):
    check_bad_gzip(shared, gzip.compress(PLAIN) + behind)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0",
        b"\0" * 100,
        PLAIN,
        zlib.compress(PLAIN),
        zlib.compress(PLAIN)[2:-4],
        b"\x1f\x8b\x08\xe0" + gzip.compress(PLAIN)[4:],  # reserved flags
        gzip.compress(PLAIN)[:-4] + b"\xff\xff\xff\xff",  # claims 4 GiB
        gzip.compress(PLAIN)[:-4] + b"\1\0\0\0",  # claims one byte
    ],
    ids=["nothing", "zero", "zeros", "plain", "zlib", "deflate", "reserved flags", "claims 4 GiB", "claims 1 byte"],
)
def test_what_is_no_gzip_is_refused(shared, body):
    check_bad_gzip(shared, body)


def test_gzip_of_nothing_is_an_empty_body(shared):
    check_unprocessable(
        shared, gzip.compress(b""), problem("missing", ["body"], "Field required", "null"), headers=GZIP
    )


def test_gzip_that_nobody_announced_is_no_text(shared):
    check_refused(shared, ingest(shared, gzip.compress(PLAIN)), 400, UNREADABLE)
    check_refused(shared, ingest(shared, gzip.compress(gzip.compress(PLAIN)), GZIP), 400, UNREADABLE)


# --- sizes ---------------------------------------------------------------------------------------------------


def padded(size: int) -> bytes:
    return PLAIN + b" " * (size - len(PLAIN))


def test_the_limit_counts_what_is_inflated(shared):
    check_accepted(shared, gzip.compress(padded(LIMIT)), 1, headers=GZIP)
    check_refused(shared, ingest(shared, gzip.compress(padded(LIMIT + 1)), GZIP), 413, TOO_LARGE)


def test_the_limit_counts_all_members_together(shared):
    half = gzip.compress(b" " * (LIMIT // 2))
    check_refused(shared, ingest(shared, half + half + gzip.compress(PLAIN), GZIP), 413, TOO_LARGE)


PIECE = 16_000_000
PIECES = {"16 MB": 1, "112 MB": 7, "1 GB": 63, "10 GB": 625}


def many_members(pieces: int) -> bytes:
    return gzip.compress(b" " * PIECE, 9) * pieces


def one_member(pieces: int) -> bytes:
    """The same compressed block again and again. The checksum is wrong, which nobody should live to see."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = deflate.compress(b" " * PIECE) + deflate.flush(zlib.Z_FULL_FLUSH)
    header, trailer = b"\x1f\x8b\x08\0\0\0\0\0\0\xff", b"\0\0\0\0" + (pieces * PIECE % 2**32).to_bytes(4, "little")
    return header + block * pieces + deflate.flush() + trailer


@pytest.mark.parametrize("bomb", [many_members, one_member])
@pytest.mark.parametrize("size", PIECES)
def test_a_bomb_is_refused_in_bounded_memory(shared, bomb, size):
    body = bomb(PIECES[size])
    assert len(body) < LIMIT
    check_accepted(shared, [event()])
    memory_before = shared.memory_bytes()
    shared.forget_peak()
    check_refused(shared, ingest(shared, body, GZIP), 413, TOO_LARGE)
    # The body and what is inflated of it, 10 MiB each, and both once more while their buffers grow.
    if not SANITIZED:
        assert shared.memory_bytes("VmHWM") - memory_before < 40 * MIB


def test_a_bomb_below_the_limit_is_an_ordinary_body(shared):
    spaces = b" " * 1_000_000
    expected = problem("json_invalid", ["body", 1_000_000], "JSON decode error", "{}", '{"error":"Expecting value"}')
    check_unprocessable(shared, gzip.compress(spaces), expected, headers=GZIP)
    expected = problem("missing", ["body", "events"], "Field required", shown({"a": "x" * 1_000_000}))
    check_unprocessable(shared, gzip.compress(shown({"a": "x" * 1_000_000}).encode()), expected, headers=GZIP)
    check_accepted(shared, gzip.compress(spaces + PLAIN + spaces), 1, headers=GZIP)


# --- other encodings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["br", "deflate", "zstd", "compress", "gzip, gzip", "gzip, br", "gzip;q=1", "gzipped", "*", "aws-chunked"]
)
def test_other_encodings_are_refused_with_what_is_taken(shared, name):
    body = '{"detail":"Unsupported Content-Encoding: use gzip or none"}'
    sent = ingest(shared, gzip.compress(PLAIN), {"Content-Encoding": name})
    assert check_refused(shared, sent, 415, body).headers["accept-encoding"] == "gzip"
