"""The bodies that Kavach and the reference are asked: kinds of values, faults of syntax, random mutations.

Values are JSON texts, so that what no JSON library writes can be sent too.
"""

import json
import random

from app import PROMPT_CHARS_MAX
from support.kavachd import event

# --- kinds of values -----------------------------------------------------------------------------------------

NUMBERS = """
0 1 -1 -0 5 123456789012345678 1234567890123456789 9223372036854775807 9223372036854775808 -9223372036854775808
-9223372036854775809 18446744073709551616 9000000000 9000000001 100000000000000000000000000000000000000000
0.0 -0.0 5.0 1.5 -1.5 1e2 1E+2 1e-2 0e0 0e999 0e-999 1e400 -1e400 1e-400 1e99999999999999999999
1e-99999999999999999999 9007199254740993.0 9223372036854774784.0 9223372036854775807.0 9223372036854775808.0
-9223372036854775808.0 9000000000.0 9000000000.1 9000000000.0000001 9000000000.0000001e0 0.1 0.30000000000000004
1e15 1e16 1e22 1e23 123456789.123456789123 12345678901234567890.5 0.0001 0.00001 1e-5 1.7976931348623157e308
1.7976931348623159e308 4.9e-324 0.0000000005 0.0000000015 0.00000000149999999999 2.5e-9 123e-11
0.000000000000000000000000000000000000000001e42
""".split()

# Strings without their quotes; none has a space.
WORDS = r"""
a 5 -5 +5 +-5 -+5 --5 0 -0 00 007 -007 -00 +0 0_7 0_ 0_0 _0 1_000 _1 1_ 1__0 -1_0 -_1 1.0 1.50 1. .5 -.5 . 1.0.0
1_0.0 1_0.5 1_0.0_0 1.0_0 1._0 0x10 0b1 1e3 1E3 1e 1e+ e5 1.e5 .e5 1e5_0 1_e5 1e1_0 00.0 0.00 -0.0 -0.5 +0.5 +.5 + -
0. 00. 01.0 1e400 -1e400 1e-400 0e999
\t1\n \u00a01 \u20031\u2003 \u200b1 \u2028-1 \u00851 \u30001.5 \u001f1 \u0000 5\u0000 5\u000b 0.5\u0000 \ufeff1
\u0661\u0662 \uff15 ١٢ ５ inf +inf -inf Infinity -INFINITY nan NaN -nan +nan infin in_f infinit_y 1n
9223372036854775807 9223372036854775808 -9223372036854775808 9223372036854775807.0 9223372036854775808.0 9000000001
18446744073709551616
true TRUE True tRuE false FALSE t f T F yes YES y n no on On off OFF 1 1.00 tru success error Success succ\u0065ss
err\u006fr
\ud800 a\ud800b \udc00 \ud83d\ude00 \ud83d \ude00\ud83d \ud83d\ud83d\ude00 \ud800\u0061 \u0061 \"\\\/\b\f\n\r\t
\u001f\u007f\u0080\u2028 é€😀 1\ud800
2026-05-25T14:30:00Z 2026-05-25T14:30:00 2026-05-25t14:30z 2026-05-25T14:30Z 2026-05-25T14:30:00.123456789+00:00
2026-05-25T14:30:00.1Z 2026-05-25T14:30:00.1234567890Z 2026-05-25T14:30:00,5-0330 2026-05-25T14:30:00+14
2026-05-25T14:30:00+24:00 2026-05-25T14:30:00+00:60 2026-05-25T14:30:00+05: 2026-05-25T14:30:00+5
2026-05-25T14:30:00+053 2026-05-25T14:30.5Z 2026-05-25T14Z 2026-05-25 20260525T143000Z 2026-W21-1
2026-02-29T00:00:00Z 2024-02-29T00:00:00Z 2100-02-29T00:00:00Z 2000-02-29T00:00:00Z 2026-02-30T00:00:00Z
2026-13-01T00:00:00Z 2026-00-01T00:00:00Z 2026-12-31T23:59:60Z 2026-12-31T23:59:60.9Z 2026-12-31T23:59:61Z
2026-12-31T24:00:00Z 2026-12-31T23:60:00Z 0000-01-01T00:00:00Z 0001-01-01T00:00:00Z 0001-01-01T00:00:00+00:01
9999-12-31T23:59:59.999999Z 9999-12-31T23:59:60Z 9999-12-31T23:59:59-00:01 10000-01-01T00:00:00Z
-001-01-01T00:00:00Z +2026-05-25T14:30:00Z 2026-5-25T14:30:00Z 2026-05-25T14:30:00.Z 2026-05-25T14:30:00ZZ
2026-05-25T14:30:00\u005a 2026-05-25_14:30:00Z 2026-05-25T14:30:00\u0000 2026-05-25T14:30:00\ud800
２０26-05-25T14:30:00Z 1779719400 now
""".split()

SPACED = [
    *["", " ", "  5", "5 ", " 1.5 ", "1 2", "+ 5", "- 5", " 1_0 ", " 1_0.0 ", " 1_0.5 ", " +1", " -1", " true", "true "],
    *[" inf ", "error ", "2026-05-25 14:30", "2026-05-25  14:30", "2026-05-25T14:30:00 Z"],
    *[" 2026-05-25T14:30:00Z", "2026-05-25T14:30:00Z "],
]  # fmt: skip

# Around every limit of a length, in characters of 1, 2, 3 and 4 bytes, and as escapes.
LONG = [
    char * count
    for count in (63, 64, 65, 255, 256, PROMPT_CHARS_MAX, PROMPT_CHARS_MAX + 1, 5000)
    for char in ("x", "é", "€", "😀", r"\u20ac", r"\ud83d\ude00")
]
LONG_NUMBERS = [
    *["9" * 4300, "9" * 4301, "0" * 5000 + "1", "1" + "_0" * 3000, "0." + "0" * 5000 + "1", "1." + "0" * 5000],
]

NESTED = [
    *["[]", "[1]", "[[]]", "{}", '{"a":1}', '{"a":1,"a":2,"b":{"c":[],"c":1}}', '[ 1 , "x" ,null,{ "y" : 1.50 }]'],
    *['[1e400,"\\ud800"]', '{"1":1e16,"\\u0031":-0}', '["\\/\\u0041\\u001f"]'],
]  # fmt: skip

KINDS = [
    *["null", "true", "false"],
    *NUMBERS,
    *(f'"{text}"' for text in [*WORDS, *SPACED, *LONG, *LONG_NUMBERS]),
    *NESTED,
]
# Beyond any float, and around json.loads' limit of digits.
HUGE_INTEGERS = ["1" + "0" * 400, "-" + "9" * 4300, "9" * 4301]

FIELDS = [*event(), "prompt", "status", "partial", "unknown"]


def plain(**changes: str) -> dict[str, str]:
    """A valid event's members as JSON texts."""
    return {name: json.dumps(value) for name, value in event(idempotency_key="k").items()} | changes


def body_of(*events: dict[str, str]) -> bytes:
    rendered = ("{" + ",".join(f'"{name}":{text}' for name, text in e.items()) + "}" for e in events)
    return ('{"events":[' + ",".join(rendered) + "]}").encode()


def oddly_membered() -> list[bytes]:
    """Members that are missing, repeated, or named almost right."""
    full = plain(prompt='"p"', status='"error"', partial="true")
    bodies = [body_of({n: t for n, t in full.items() if n != left_out}) for left_out in full]
    bodies += [body_of({}), body_of({}, {}, plain()), body_of({"model": "5"}, plain(), {"cost": '"x"'})]
    text = body_of(full).decode()
    for name in full:
        first = text.index(f'"{name}":')
        for again in ("null", "5", '"x"'):
            bodies.append(text.replace("}]}", f',"{name}":{again}}}]}}').encode())  # the last one wins
            bodies.append((text[:first] + f'"{name}":{again},' + text[first:]).encode())
        escaped = f"\\u{ord(name[0]):04x}{name[1:]}"
        bodies.append(text.replace(f'"{name}"', f'"{escaped}"').encode())
        bodies.append(text.replace("}]}", f',"{escaped}":null}}]}}').encode())
        for almost in (f"{name} ", name.upper(), f"{name}s", name[:-1], f"{name}\\u0000", f"\\ud800{name}"):
            bodies.append(text.replace(f'"{name}"', f'"{almost}"').encode())
    one = body_of(plain()).decode()
    for member in ('"events":[],', '"\\u0065vents":[],', '"event":[],', '"":0,', '"x":[[[{"y":[1,{}]}]]],'):
        bodies += [one.replace("{", "{" + member, 1).encode(), (one[:-1] + "," + member[:-1] + "}").encode()]
    return bodies


# --- faults of syntax ----------------------------------------------------------------------------------------

# Every kind of token, some whitespace, an escape and characters of several bytes. Valid, so that Kavach's fast
# pass, which takes it, sees the faults as well.
VICTIM = (
    '{"events": [{"agent_name":"\\u00e9€", "provider":"p","model":"m\\n","input_tokens":10,"output_tokens":0,'
    '"cost":1.5e-3,"timestamp":"2026-05-25T14:30:00Z","status":"error","prompt":null,"x":[true,{}] }]\n}'
).encode()
# What is inserted anywhere into it, or put instead of a byte.
FAULTS = [
    *[b"", b",", b":", b"]", b"}", b"[", b"{", b'"', b"\\", b"x", b"0", b"-", b".", b"e", b"null"],
    *[b':"x"', b',"x"', b":1", b'"x":1,'],
    *[b"\x00", b"\x01", b"\n", b"\xc3", b"\xff", b"\xed\xa0\x80", "é".encode()],
]  # fmt: skip

ESCAPES = [
    *[r"\u", r"\u0", r"\u00e", r"\u00e9", r"\u00g9", r"\u+123", r"\u 123", r"\U0041", r"\x41", r"\'", r"\a", "\\", "\\\\"],
    *["\t", "\x7f", r"\ud83d\u", r"\ud83d\ude0", r"\ud83d\x"],
]  # fmt: skip
AROUND_AN_ESCAPE = ['{"events":["%s"]}', '{"events":["%s', '"%s"', '"%s', '{"%s":1}', '{"%s', '{"events":["%s1234567"]}']

HEADS = ["x", " ", "\t\r\n", "\x0b", "\x0c", "\xa0", "\ufeff", "\ufeff\ufeff", ",", "/**/", "'", "\0"]
TAILS = ["", "x", "}", "]", " ", "\n\n", "\0", ",", "{}", "null", "\ufeff", "//", "\x0b"]
WHOLE = [
    *["", body_of(plain()).decode(), body_of({}).decode(), "5", '"x"', "[]", "nul", "tru", "falsely", "nullx"],
    *["-", "+1", "01", "1.", ".5", "1e", "1.e5", "--1", "1_0", "0x1"],
]


# --- random mutations ----------------------------------------------------------------------------------------


def mutated(rng: random.Random) -> bytes:
    """A valid body of one to three events after one to four changes to members, layout or bytes."""
    events = [list(plain(prompt='"p"', partial="false").items()) for _ in range(rng.randint(1, 3))]
    for _ in range(rng.randint(1, 4)):
        members = rng.choice(events)
        match rng.choice(["change", "change", "repeat", "drop", "rename", "shuffle"]):
            case "change" if members:
                at = rng.randrange(len(members))
                members[at] = (members[at][0], rng.choice(KINDS))
            case "repeat" if members:
                members.insert(rng.randrange(len(members) + 1), (rng.choice(members)[0], rng.choice(KINDS)))
            case "drop" if members:
                members.pop(rng.randrange(len(members)))
            case "rename" if members:
                at = rng.randrange(len(members))
                members[at] = (rng.choice([r"\u0063ost", "x", "", "events", r"\ud800", *FIELDS]), members[at][1])
            case "shuffle":
                rng.shuffle(members)
    space = rng.choice(["", "", " ", "\n\t"])
    rendered = ("{" + f",{space}".join(f'"{name}"{space}:{text}{space}' for name, text in e) + "}" for e in events)
    body = bytearray(f'{{{space}"events":[{f"{space},".join(rendered)}{space}]}}{space}'.encode())
    if rng.random() < 0.3:
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(body))
            match rng.choice(["flip", "delete", "insert", "cut"]):
                case "flip":
                    body[at] ^= 1 << rng.randrange(8)
                case "delete":
                    del body[at : at + rng.randint(1, 4)]
                case "insert":
                    body[at:at] = rng.choice(FAULTS)
                case "cut" if at > 0:
                    del body[at:]
            if not body:
                break
    return bytes(body)
