"""What is written about the configuration is what the program does."""

import re
import subprocess

from support.kavachd import BINARY, ROOT


def table_of_settings() -> str:
    return subprocess.run([BINARY, "check", "--settings"], capture_output=True, text=True, check=True).stdout


def test_the_table_of_settings_is_the_programs_own():
    readme = (ROOT / "configs/README.md").read_text()
    written = re.search("<!-- settings -->\n(.*)<!-- end of settings -->\n", readme, re.DOTALL)
    assert written is not None, "configs/README.md has lost its marks"
    assert written[1] == table_of_settings(), "put the output of `kavachd check --settings` into configs/README.md"


def test_every_setting_that_another_readme_names_exists():
    known = set(re.findall(r"^\| `([a-z]+\.[a-z_]+)` \|", table_of_settings(), re.MULTILINE))
    tables = {key.split(".")[0] for key in known}
    for readme in (ROOT / "README.md", *ROOT.glob("*/README.md")):
        for table, name in re.findall(r"`([a-z]+)\.([a-z_]+)`", readme.read_text()):
            # `journal.h` and the like are files.
            if table in tables and name not in ("h", "cc", "md", "py", "toml"):
                assert f"{table}.{name}" in known, f"{readme}: there is no setting {table}.{name}"


def test_the_shipped_configs_are_right():
    for config in (path for path in (ROOT / "configs").glob("*.toml") if path.name not in ("tiers.toml", "pricing.toml")):
        done = subprocess.run([BINARY, "check", "--config", config], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
