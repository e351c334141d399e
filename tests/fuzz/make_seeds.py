#!/usr/bin/env python3
"""Writes the seeds that no editor writes well: gzip, raw HTTP, and the journal's programs of bytes.

The other seeds are made by hand. Run it after a change here, and commit what it wrote.
"""

import gzip
import zlib
from pathlib import Path

SEEDS = Path(__file__).parent / "seeds"
BODY = b'{"events":[{"agent_name":"research-bot","provider":"openai","model":"gpt-4o","input_tokens":1500}]}'


def member(content: bytes, level: int = 9, name: str = "") -> bytes:
    out = gzip.compress(content, level, mtime=0)
    if name:
        out = out[:3] + b"\x08" + out[4:10] + name.encode() + b"\0" + out[10:]
    return out


def deflate(content: bytes, level: int = 9, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy)
    return packer.compress(content) + packer.flush()


GZIP = {
    "empty": member(b""),
    "body": member(BODY),
    "stored": member(BODY, 0),
    "named": member(BODY, 9, "body.json"),
    # Every optional field: extra, name, comment and the header's own checksum.
    "all_fields": b"\x1f\x8b\x08\x1e" + bytes(5) + b"\xff\x04\0abcd" + b"n\0c\0" + b"\x12\x34" + member(BODY)[10:],
    "two_members": member(BODY[:40]) + member(BODY[40:]),
    "padded": member(BODY) + bytes(16),
    "trailing_bytes": member(BODY) + b"more",
    "truncated": member(BODY)[:-9],
    "wrong_crc": member(BODY)[:-8] + bytes(4) + member(BODY)[-4:],
    "wrong_size": member(BODY)[:-4] + b"\xff\xff\xff\xff",
    "bomb": member(bytes(2 << 20)),
    # As DEFLATE data, which the target wraps itself.
    "deflate_dynamic": deflate(BODY * 4),
    "deflate_fixed": deflate(BODY, 9, zlib.Z_FIXED),
    "deflate_huffman": deflate(bytes(range(256)), 9, zlib.Z_HUFFMAN_ONLY),
    "deflate_run": deflate(b"a" * 5000, 9, zlib.Z_RLE),
    "deflate_behind": deflate(BODY) + member(BODY),
}

POST = b"POST /v1/ingest HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer ak_dev_0\r\nContent-Type: application/json\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
HTTP = {
    "get": GET,
    "post": POST + b"Content-Length: 5\r\n\r\nhello",
    "gzip": POST + b"Content-Encoding: gzip\r\nX-API-Key: ak_dev_1\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
    "chunked": CHUNKED + b"5\r\nhello\r\n6;name=value\r\n world\r\n0\r\nTrailer: t\r\n\r\n",
    "chunked_then_get": CHUNKED + b"1\r\nx\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: h\r\n\r\n",
    "chunk_size_bad": CHUNKED + b"5x\r\nhello\r\n0\r\n\r\n",
    "chunk_too_large": CHUNKED + b"ffffffffffffffff\r\n",
    "chunk_unterminated": CHUNKED + b"5\r\nhelloXX",
    "pipelined": (POST + b"Content-Length: 1\r\n\r\nx") * 3,
    "later_and_now": b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab" * 2 + GET,
    "taken": b"PATCH /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab" * 2,
    "taken_chunked": CHUNKED.replace(b"POST", b"PATCH") + b"2\r\nab\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "expect": POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\nok",
    "too_large": POST + b"Content-Length: 99999\r\n\r\n",
    "both_lengths": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two_lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "other_coding": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "folded": b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
    "bare_line_feed": b"GET / HTTP/1.1\nHost: h\n\n",
    "bare_line_feed_and_version": b"GET / HTTP/2.0\nHost: h\r\n\r\n",
    "nul": b"GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n",
    "no_host": b"GET / HTTP/1.1\r\n\r\n",
    "two_hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "http_10": b"GET /x?y HTTP/1.0\r\nConnection: keep-alive\r\n\r\nHEAD /z HTTP/1.0\r\n\r\n",
    "http_20": b"GET / HTTP/2.0\r\nHost: h\r\n\r\n",
    "absolute": b"OPTIONS https://other.example:1/p?q HTTP/1.1\r\nHost: h\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "empty_lines_first": b"\r\n\r\nBREW /pot HTTP/1.1\r\nHost: h\r\n\r\n",
    "long_header": b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 600 + b"\r\n\r\n",
    "long_chunk_extension": CHUNKED + b"1;" + b"x" * 600 + b"\r\nx\r\n0\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00",
}


def payload(*events: bytes) -> bytes:
    """A frame's payload (sink/JOURNAL.md), behind the byte that chooses the decoder."""
    ids = bytes(range(16)) * 3
    return b"\0" + b"\x01\x00" + ids + b"\x80\x80\x01" + bytes([len(events)]) + b"".join(events)


FIRST = b"\x00\x00" + b"\x02\x01\x02\x03\x04" + b"\x05agent\x06openai\x05model\x03run"
JOURNAL = {
    "payload_one": payload(FIRST),
    "payload_repeats": payload(FIRST, b"\x0f\x00" + bytes(5), b"\x0f\x00" + bytes(5)),
    "payload_uuids": payload(FIRST, b"\xcf\x01" + b"\x01\x01\x01\x01\x01" + bytes(16) + b"\x02hi"),
    "payload_bad_flags": payload(b"\xff\xff" + bytes(5)),
    "payload_cut": payload(FIRST)[:-4],
    # First segment, header, first number; then frames: length, payload, numbers, tail.
    "frames_plain": b"\x01\x00\x01\x00\x02\x04abcd\x01\x00\x01\x00\x00\x04efgh\x01\x01\x01\x01\x00\x00",
    "frames_far": b"\x01\x00\x04\x05\x01\x02ab\x04\x05\x04\x05\x00\x00\x01\x01\x01",
    "frames_junk": b"\x01\x00\x01\x00\x01\x02ab\x01\x00\x01\x00\x00\x03\x0812345678",
    # Goes on writing or not, first number, segments and their groups; then the damage.
    "sound": b"\x02\x00\x01\x02\x02\x01\x10\x20\x01\x30\x00\x01\x02\x40\x10\x01\x08",
    "sound_goes_on": b"\x02\x04\x01\x00\x00\x00\x05\x00\x00\x00",
    "stale_tail": b"\x02\x00\x01\x00\x01\x01\x10\x11\x00\x12\x02\x00",
    "bit_flipped": b"\x02\x00\x01\x00\x02\x01\x10\x11\x01\x12\x13\x00\x14\x00\x01\x00\x05\x50\x00",
    "header_lost": b"\x02\x00\x01\x00\x00\x00\x10\x00\x01\x00\x02\x00\x00\x3f",
    "truncated": b"\x02\x00\x01\x01\x00\x01\x10\x11\x00\x00\x01\x20\x21\x00\x01\x01\x00\x70\x00",
    # Found by the fuzzer: what recovery once cut off was what proved the frames before it.
    "last_segment_torn": b"\x0a7\x0a70&6\x004;0&6FRM1\x004\x0a7\x0a70&6\x004;0&6FRM1\x004;;",
    "proof_behind_the_cut": b"'=\x04" + b"%" * 28 + b"$%%\x01\xf7\xff\xfe\xff",
    "length_beyond_the_file": b"\x01\x00\x00\x00\x10\x00\x00\x00\x00:'",
    "segment_lost": b"\x02\x00\x01\x02\x00\x00\x10\x00\x00\x00\x10\x00\x00\x00\x10\x00\x01\x01\x01\x00\x00",
}


def main() -> None:
    for target, seeds in {"gzip": GZIP, "http": HTTP, "journal": JOURNAL}.items():
        folder = SEEDS / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in seeds.items():
            (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
