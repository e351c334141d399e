"""scripts/check_layers.py against made-up trees: a sound one passes, and each violation is found in its place.

Every tree is built in a folder of its own, with a compile_commands.json that names the real compiler.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHECKER = Path(__file__).resolve().parents[2] / "scripts" / "check_layers.py"

SOUND = {
    "engine/clock.h": "// Clock: the time.\n#pragma once\n#include <cstdint>\nusing Micros = std::int64_t;\n",
    "engine/clock.cc": '#include "engine/clock.h"\n',
    "engine/log.cc": "// Log: the lines.\n#include <spdlog/logger.h>\n",
    "quota/tiers.h": '// Tiers: who may what.\n#pragma once\n#include "engine/clock.h"\ninline Micros day = 1;\n',
    "quota/tiers.cc": '#include "quota/tiers.h"\n\n#include <toml++/toml.h>\n',
    "sink/store/sqlite/connection.h": "// SQLite: a statement.\n#pragma once\nstruct sqlite3;\n",
    "sink/store/sqlite/connection.cc": '#include "sink/store/sqlite/connection.h"\n\n#include <sqlite3.h>\n',
    "http/transport/server.h": '// Server: the sockets.\n#pragma once\n#include "engine/clock.h"\n',
    "http/auth/key.h": '// Keys: who is it.\n#pragma once\n#include "http/transport/server.h"\n',
    "http/ingest/parser.h": '// Parser: a body.\n#pragma once\n#include "http/auth/key.h"\n#include "quota/tiers.h"\n',
    "http/ops/health.h": "// Health: is it well.\n#pragma once\n",
    "http/router.h": '// Router.\n#pragma once\n#include "http/ingest/parser.h"\n#include "http/ops/health.h"\n',
    "main.cc": '// The daemon.\n#include <CLI/CLI.hpp>\n\n#include "http/router.h"\n#include "sink/store/sqlite/connection.h"\n',
    "bench/load.cc": '// Load.\n#include "quota/tiers.h"\n#include "sink/store/sqlite/connection.h"\n',
    "tests/quota/tiers_test.cc": '// Tiers.\n#include <doctest/doctest.h>\n\n#include "quota/tiers.h"\n',
}


class Tree:
    def __init__(self, root: Path):
        self.root = root
        for name, text in SOUND.items():
            self.write(name, text)
        commands = [{"file": str(root / "tests/hook.c"), "command": "gcc -std=c11 -o hook.o -c tests/hook.c"}]
        flags = f"-I{root} -std=c++20 -Wall -Werror"
        commands += [{"file": str(root / name), "command": f"/usr/bin/ccache g++ {flags} -o x.o -c {name}"}
                     for name in SOUND if name.endswith(".cc")]
        self.write("build/release/compile_commands.json", json.dumps(commands))

    def write(self, name: str, text: str):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def check(self, *arguments: str) -> tuple[int, str]:
        command = [sys.executable, CHECKER, "--root", self.root, *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def tree(tmp_path) -> Tree:
    return Tree(tmp_path)


def test_a_sound_tree_passes(tree):
    code, said = tree.check()
    assert code == 0, said
    assert "0 problems" in said


@pytest.mark.parametrize("name, include", [
    ("engine/clock.cc", "quota/tiers.h"),
    ("engine/clock.cc", "sink/store/sqlite/connection.h"),
    ("engine/clock.cc", "http/router.h"),
    ("quota/tiers.cc", "sink/store/sqlite/connection.h"),
    ("sink/store/sqlite/connection.cc", "quota/tiers.h"),
    ("quota/tiers.cc", "http/transport/server.h"),
    ("sink/store/sqlite/connection.cc", "http/auth/key.h"),
    ("http/transport/server.cc", "http/auth/key.h"),
    ("http/transport/server.cc", "http/ingest/parser.h"),
    ("http/transport/server.cc", "http/ops/health.h"),
    ("http/transport/server.cc", "http/router.h"),
    ("http/transport/server.cc", "sink/store/sqlite/connection.h"),
    ("http/auth/key.cc", "http/ingest/parser.h"),
    ("http/auth/key.cc", "http/ops/health.h"),
    ("http/ingest/parser.cc", "http/router.h"),
    ("http/router.cc", "tests/support/fake.h"),
    ("main.cc", "bench/load.h"),
])
def test_an_include_up_or_sideways_is_refused_with_its_line(tree, name, include):
    if not (tree.root / include).exists():
        tree.write(include, "// A header.\n#pragma once\n")
    own = name.removesuffix(".cc") + ".h"
    first = f'#include "{own}"\n' if (tree.root / own).exists() else "// A file.\n"
    tree.write(name, f'{first}\n#include "{include}"\n')
    code, said = tree.check("--no-compile")
    assert code == 1
    assert f"{name}:3: " in said and "must not include" in said and f'("{include}")' in said
    assert "1 problems" in said


@pytest.mark.parametrize("name, library", [
    ("sink/store/sqlite/connection.h", "sqlite3.h"),
    ("http/ingest/parser.h", "simdjson.h"),
    ("http/ingest/parser.h", "libdeflate.h"),
    ("http/transport/server.h", "openssl/ssl.h"),
    ("quota/tiers.h", "toml++/toml.h"),
    ("engine/clock.h", "spdlog/spdlog.h"),
    ("engine/clock.cc", "sqlite3.h"),
    ("quota/tiers.cc", "simdjson.h"),
    ("http/router.cc", "CLI/CLI.hpp"),
    ("main.cc", "doctest/doctest.h"),
])
def test_a_library_shows_only_where_it_is_hidden(tree, name, library):
    tree.write(name, f"// A file.\n#pragma once\n#include <{library}>\n")
    code, said = tree.check("--no-compile")
    assert code == 1
    assert f"{name}:3: <{library}> must not show here" in said
    assert "1 problems" in said


@pytest.mark.parametrize("line, message", [
    ("#include <rapidjson/document.h>", "<rapidjson/document.h> is of no known library"),
    ("#include <engine/clock.h>", "<engine/clock.h> is ours: write it in quotes"),
    ('#include "clock.h"', '"clock.h" is no file; ours are included by their path from the root'),
    ('#include "../engine/clock.h"', '"../engine/clock.h" is '),
    ('#include "build/made.h"', '"build/made.h" is outside of the layers'),
    ('  #  include "http/router.h"', "engine must not include http"),
])
def test_an_include_that_hides_from_the_rule_is_refused(tree, line, message):
    tree.write("build/made.h", "")
    tree.write("engine/clock.cc", f"// A file.\n{line}\n")
    code, said = tree.check("--no-compile")
    assert code == 1
    assert f"engine/clock.cc:2: {message}" in said


@pytest.mark.parametrize("name, text, message", [
    ("engine/clock.h", "#pragma once\n", "a header says its purpose in a comment in its first line"),
    ("engine/clock.h", "//\n#pragma once\n", "a header says its purpose in a comment in its first line"),
    ("engine/clock.h", "", "a header says its purpose in a comment in its first line"),
    ("engine/clock.h", "// Clock.\n", "the header has no #pragma once"),
    ("engine/impl.cc", "#include <vector>\n", "a file without a header of its own says its purpose"),
    ("main.cc", "int main() {}\n", "a file without a header of its own says its purpose"),
])
def test_a_file_that_does_not_say_its_purpose_is_refused(tree, name, text, message):
    tree.write(name, text)
    code, said = tree.check("--no-compile")
    assert code == 1
    assert f"{name}:1: {message}" in said


def test_a_header_that_needs_another_before_it_is_refused(tree):
    tree.write("engine/clock.h", "// Clock: the time.\n#pragma once\nusing Micros = std::int64_t;\n")
    code, said = tree.check()
    assert code == 1
    assert "engine/clock.h:1: does not compile alone" in said
    assert "std" in said


def test_a_second_run_compiles_nothing_and_a_change_only_what_it_reaches(tree):
    assert "8 headers (8 compiled now)" in tree.check()[1]
    assert "8 headers (0 compiled now)" in tree.check()[1]
    tree.write("http/auth/key.h", SOUND["http/auth/key.h"] + "// More.\n")
    # The key's header itself, the parser that includes it, and the router above that.
    assert "(3 compiled now)" in tree.check()[1]


def test_a_header_that_a_change_elsewhere_breaks_is_found_and_stays_found(tree):
    assert tree.check()[0] == 0
    # The tiers, and what includes them, need the type that is gone; the clock's header itself is sound.
    tree.write("engine/clock.h", "// Clock: the time.\n#pragma once\n")
    code, said = tree.check()
    assert code == 1
    assert "quota/tiers.h:1: does not compile alone" in said
    assert "engine/clock.h:1:" not in said
    code, said = tree.check()
    assert code == 1
    assert "(3 compiled now)" in said


def test_without_a_build_it_says_what_to_do(tree):
    code, said = tree.check("--build", "missing")
    assert code == 2
    assert "scripts/setup" in said


def test_it_does_not_read_what_the_build_made(tree):
    tree.write("build/release/sink/made.cc", '#include "nowhere.h"\n')
    assert tree.check("--no-compile")[0] == 0
