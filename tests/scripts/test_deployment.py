"""The deployment files agree with the program and with each other, as far as that shows without a container."""

import re
import subprocess

import pytest

from support.kavachd import BINARY, ROOT, SANITIZED

ALWAYS_THERE = {"libc6", "libgcc-s1"}  # in Debian's smallest image
SERVICE = ROOT / "configs/kavachd.service"


@pytest.mark.skipif(SANITIZED, reason="a sanitized build links its sanitizer, too")
def test_the_image_has_the_libraries_that_the_program_links_and_no_others():
    dynamic = subprocess.run(["objdump", "-p", BINARY], capture_output=True, text=True, check=True).stdout
    loaded = subprocess.run(["ldd", BINARY], capture_output=True, text=True, check=True).stdout
    paths = dict(re.findall(r"(\S+) => (\S+)", loaded))
    # As packages have them, whether or not /lib is /usr/lib.
    patterns = [f"*{paths[name]}" for name in re.findall(r"NEEDED +(\S+)", dynamic)]
    found = subprocess.run(["dpkg", "-S", *patterns], capture_output=True, text=True, check=True)
    packages = {line.split(":")[0] for line in found.stdout.splitlines()}
    dockerfile = (ROOT / "configs/Dockerfile").read_text()
    installed = re.search(r"--no-install-recommends \\\n(.*?)&&", dockerfile, re.DOTALL)[1].replace("\\", " ").split()
    assert set(installed) - {"ca-certificates"} == packages - ALWAYS_THERE


def test_the_unit_is_one_that_systemd_takes(tmp_path):
    # The program is not installed here: its place is taken by one that is.
    unit = tmp_path / SERVICE.name
    unit.write_text(SERVICE.read_text().replace("/usr/local/bin/kavachd", "/bin/true"))
    verified = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert verified.returncode == 0 and unit.name not in verified.stderr, verified.stderr
