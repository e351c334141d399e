#!/usr/bin/env python3
"""Holds the tree to its layers: reads every #include and compiles every header alone.

What is refused:
  - an include that goes up or sideways between folders (MAY_INCLUDE below is the whole rule);
  - an include of ours that is not written from the repository's root, or that does not exist;
  - a library's header where that library must not show (THIRD_PARTY), and a header of no known library;
  - a header without `#pragma once`, or a file that does not say its purpose in its first line;
  - a header that does not compile by itself, with the flags of compile_commands.json.

What compiled is remembered in the build folder by content, so that a second run takes no time.
"""

import argparse
import functools
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Who may include whom. A file belongs to the longest of these names that its path begins with, and it may
# always include its own folder. Down the list is up in the house: engine < quota, sink < http < main.cc.
MAY_INCLUDE = {
    "engine": (),
    "quota": ("engine",),
    "sink": ("engine",),
    # The transport knows a Handler and no organization.
    "http/transport": ("engine",),
    "http/auth": ("http/transport", "sink", "quota", "engine"),
    "http/ops": ("http/transport", "http/auth", "sink", "quota", "engine"),
    "http/ingest": ("http/transport", "http/auth", "sink", "quota", "engine"),
    # What Kavach sends by itself; knows no request and no shard.
    "http/outbound": ("sink", "engine"),
    # From what is stored to who is told; knows no request and no shard.
    "http/alerts": ("http/outbound", "sink", "engine"),
    "http": ("http/transport", "http/auth", "http/ops", "http/ingest", "http/outbound", "http/alerts", "sink", "quota",
             "engine"),
    "main.cc": ("http", "http/transport", "http/auth", "http/ops", "http/ingest", "http/outbound", "http/alerts", "sink",
                "quota", "engine"),
}
# What proves and measures the house may use all of it, and nothing of the house may use them.
MAY_INCLUDE["bench"] = (*MAY_INCLUDE["main.cc"], "tests")
MAY_INCLUDE["tests"] = (*MAY_INCLUDE["main.cc"], "bench")

# Libraries by the beginning of their headers' names, and where they may show: files, or folders ending in
# '/'. In the house itself that means .cc files only, so that a library can be exchanged behind one header.
PROOF = ("bench/", "tests/")
THIRD_PARTY = {
    "simdjson": ("http/ingest/", "http/outbound/", "http/control/stripe_webhook.cc", "sink/kafka/", *PROOF),
    "libdeflate": ("http/ingest/inflate.cc", *PROOF),
    "hiredis/": ("quota/redis/", *PROOF),
    "openssl/": ("engine/", "http/", "quota/redis/", "sink/", *PROOF),
    "curl/": ("http/outbound/", *PROOF),
    "sqlite3": ("sink/store/sqlite/", *PROOF),
    "pwd.h": ("tests/",),
    "grp.h": ("tests/",),
    "libpq-fe": ("sink/store/postgres/", *PROOF),
    "librdkafka/": ("sink/kafka/", "sink/writer/", *PROOF),
    "jwt.h": ("http/control/", *PROOF),
    "date/": ("http/control/", *PROOF),
    "sodium": ("http/control/", *PROOF),
    "toml++/": ("engine/", "quota/", "http/control/pricing.cc", *PROOF),
    "spdlog/": ("engine/log.cc", *PROOF),
    "prometheus/": ("engine/metrics.cc", *PROOF),
    "xxh": ("quota/", *PROOF),
    "CLI/": ("main.cc", *PROOF),
    "doctest/": PROOF,
    "threads.h": ("tests/support/c11_threads.cc",),
    "benchmark/": ("bench/",),
    "zlib": PROOF,
}
# Part of our own interfaces: Asio's and Beast's types, Result, and fmt's formatting.
PUBLIC_LIBRARIES = ("boost/", "fmt/")
# Headers of the system: C++ has no dot and no slash in its names, POSIX and Linux have these.
SYSTEM = re.compile(r"[a-z0-9_]+|(arpa|net|netinet|sys|linux)/[a-z0-9_]+\.h|[a-z0-9]+intrin\.h|"
                    r"(dirent|errno|fcntl|limits|malloc|netdb|poll|pthread|sched|signal|stdlib|string|time|unistd)\.h")

FOLDERS = ("engine", "quota", "sink", "http", "bench", "tests")
INCLUDE = re.compile(r'^\s*#\s*include\s*(<[^>]*>|"[^"]*")')


@functools.cache
def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def includes_of(path: Path) -> list[tuple[int, str, bool]]:
    """Line number, name, and whether it is written in quotes."""
    found = []
    for number, line in enumerate(lines_of(path), 1):
        if match := INCLUDE.match(line):
            found.append((number, match[1][1:-1], match[1][0] == '"'))
    return found


def layer_of(name: str) -> str | None:
    """The layer of a path from the root, None for what is not in the house."""
    return max((layer for layer in MAY_INCLUDE if name == layer or name.startswith(layer + "/")), key=len, default=None)


# Headers that exist to own a library's handles, for the .cc files of its places only.
WRAPPERS = ("sink/kafka/handles.h",)


def may_show(name: str, places: tuple[str, ...]) -> bool:
    if not any(name == place or (place.endswith("/") and name.startswith(place)) for place in places):
        return False
    return name.endswith(".cc") or name.startswith(PROOF) or name in WRAPPERS


def source_files(root: Path) -> list[str]:
    found = [root / "main.cc"] if (root / "main.cc").exists() else []
    for folder in FOLDERS:
        found += [path for path in (root / folder).rglob("*") if path.suffix in (".h", ".cc")]
    return sorted(str(path.relative_to(root)) for path in found)


def problems_of_include(root: Path, name: str, target: str, quoted: bool) -> list[str]:
    if quoted:
        if not (root / target).is_file():
            return [f'"{target}" is no file; ours are included by their path from the root']
        layer, used = layer_of(name), layer_of(target)
        if used is None:
            return [f'"{target}" is outside of the layers']
        if layer != used and used not in MAY_INCLUDE[layer]:
            allowed = ", ".join((layer, *MAY_INCLUDE[layer]))
            return [f'{layer} must not include {used} ("{target}"); it may include {allowed}']
        return []
    if layer_of(target) is not None and (root / target).is_file():
        return [f"<{target}> is ours: write it in quotes"]
    for prefix, places in THIRD_PARTY.items():
        if target.startswith(prefix):
            if may_show(name, places):
                return []
            return [f"<{target}> must not show here, only in the .cc files of {', '.join(places)}"]
    if SYSTEM.fullmatch(target) or target.startswith(PUBLIC_LIBRARIES):
        return []
    return [f"<{target}> is of no known library: say in {Path(__file__).name} where it may show"]


def problems_of_form(name: str, lines: list[str], includes: list[tuple[int, str, bool]]) -> list[str]:
    states_purpose = bool(lines) and re.match(r"// \S", lines[0]) is not None
    if name.endswith(".h"):
        problems = [] if states_purpose else ["a header says its purpose in a comment in its first line"]
        return problems if "#pragma once" in lines else [*problems, "the header has no #pragma once"]
    # What stands behind a header of its own is explained there.
    own_header_first = bool(includes) and includes[0][1] == name.removesuffix(".cc") + ".h"
    if states_purpose or own_header_first:
        return []
    return ["a file without a header of its own says its purpose in a comment in its first line"]


def check_text(root: Path, names: list[str]) -> list[str]:
    problems = []
    for name in names:
        includes = includes_of(root / name)
        problems += [f"{name}:1: {text}" for text in problems_of_form(name, lines_of(root / name), includes)]
        for number, target, quoted in includes:
            problems += [f"{name}:{number}: {text}" for text in problems_of_include(root, name, target, quoted)]
    return problems


def compile_commands(build: Path, root: Path) -> dict[str, list[str]]:
    """The compiler and its flags, without what names the files, for each of our .cc files."""
    found = {}
    for command in json.loads((build / "compile_commands.json").read_text(encoding="utf-8")):
        path = Path(command["file"])
        if path.suffix != ".cc" or not path.is_relative_to(root) or path.is_relative_to(build):
            continue
        words = shlex.split(command["command"])
        if Path(words[0]).name == "ccache":
            words = words[1:]
        for option in ("-o", "-c"):
            at = words.index(option)
            words = words[:at] + words[at + 2 :]
        found[str(path.relative_to(root))] = words
    return found


def flags_for(header: str, commands: dict[str, list[str]]) -> list[str]:
    """Those of its own layer, else of one that may use it (a folder may hold headers only), else of any."""
    layer = layer_of(header)
    by_layer = {layer_of(name): words for name, words in commands.items()}
    users = [other for other in by_layer if layer in MAY_INCLUDE[other]]
    return next(by_layer[one] for one in (layer, *users, *by_layer) if one in by_layer)


@functools.cache
def version_of(program: str) -> str:
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout


def content_key(root: Path, name: str, *more: str) -> str:
    """A hash of a file, of all our headers that it reaches, and of `more`."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        one = waiting.pop()
        if one in seen or not (root / one).is_file():
            continue
        seen.add(one)
        waiting += [target for _, target, quoted in includes_of(root / one) if quoted]
    digest = hashlib.sha256("\0".join(more).encode())
    for one in sorted(seen):
        digest.update(one.encode() + b"\0" + "\n".join(lines_of(root / one)).encode() + b"\0")
    return digest.hexdigest()


def run_on_changed(memory: Path, keys: dict[str, str], jobs: int, run) -> tuple[dict[str, str], int]:
    """Calls run(name) for each name whose key is not the one that `memory` (a JSON file) holds as sound.

    run() says what is wrong, or nothing. Returns what was wrong by name, and for how many names it was called.
    """
    known = json.loads(memory.read_text(encoding="utf-8")) if memory.exists() else {}
    changed = [name for name, key in keys.items() if known.get(name) != key]
    wrong = {}
    with ThreadPoolExecutor(jobs) as pool:
        for name, said in zip(changed, pool.map(run, changed)):
            if said:
                wrong[name] = said
                known.pop(name, None)
            else:
                known[name] = keys[name]
    # Two runs at a time must not see half a file.
    written = memory.with_suffix(f".{os.getpid()}")
    written.write_text(json.dumps(known, indent=1), encoding="utf-8")
    written.replace(memory)
    return wrong, len(changed)


def check_headers(root: Path, build: Path, headers: list[str], jobs: int) -> tuple[list[str], int]:
    """The problems, and how many headers had to be compiled."""
    commands = compile_commands(build, root)
    flags = {name: flags_for(name, commands) for name in headers}
    keys = {name: content_key(root, name, *words, version_of(words[0])) for name, words in flags.items()}

    def compile_alone(name: str) -> str:
        # A file that holds nothing but the header, twice.
        done = subprocess.run([*flags[name], "-fsyntax-only", "-x", "c++", "-"], cwd=root, text=True,
                              input=f'#include "{name}"\n' * 2, capture_output=True, check=False)
        return "" if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"

    wrong, compiled = run_on_changed(build / "headers_alone.json", keys, jobs, compile_alone)
    return [f"{name}:1: does not compile alone:\n{said}" for name, said in wrong.items()], compiled


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("--root", type=Path, default=here, help="the tree to check (default: this repository)")
    parser.add_argument("--build", type=Path,
                        help="a configured build with compile_commands.json (default: build/release in the tree)")
    parser.add_argument("--no-compile", action="store_true", help="read the includes only")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="compilers at a time (default: one a core)")
    options = parser.parse_args()
    root = options.root.resolve()
    build = (options.build or root / "build/release").resolve()

    names = source_files(root)
    headers = [name for name in names if name.endswith(".h")]
    problems = check_text(root, names)
    compiled = 0
    if not options.no_compile:
        if not (build / "compile_commands.json").exists():
            parser.error(f"{build} has no compile_commands.json: run scripts/setup, or give --build or --no-compile")
        header_problems, compiled = check_headers(root, build, headers, options.jobs)
        problems += header_problems
    for problem in problems:
        print(problem)
    print(f"check_layers: {len(names)} files, {len(headers)} headers ({compiled} compiled now), "
          f"{len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
