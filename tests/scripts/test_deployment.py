"""The deployment files are right, as far as that shows without a deployment."""

import subprocess

from support.kavachd import ROOT

SERVICE = ROOT / "configs/kavachd.service"


def test_the_unit_is_one_that_systemd_takes(tmp_path):
    # The program is not installed here: its place is taken by one that is.
    unit = tmp_path / SERVICE.name
    unit.write_text(SERVICE.read_text().replace("/usr/local/bin/kavachd", "/bin/true"))
    verified = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert verified.returncode == 0 and unit.name not in verified.stderr, verified.stderr
