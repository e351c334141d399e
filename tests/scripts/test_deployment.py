"""The deployment files agree with the program and with each other, as far as that shows without a container."""

import os
import re
import subprocess

import pytest
import yaml

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
    assert set(installed) - {"ca-certificates", "tzdata"} == packages - ALWAYS_THERE


def test_the_unit_is_one_that_systemd_takes(tmp_path):
    # The program is not installed here: its place is taken by one that is.
    unit = tmp_path / SERVICE.name
    unit.write_text(SERVICE.read_text().replace("/usr/local/bin/kavachd", "/bin/true"))
    verified = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert verified.returncode == 0 and unit.name not in verified.stderr, verified.stderr


def test_what_compose_starts_is_commands_and_settings_of_the_program():
    text = (ROOT / "configs/compose.yaml").read_text()
    services = yaml.safe_load(re.sub(r"\$\{POSTGRES_PASSWORD[^}]*\}", "s3cret", text))["services"]
    ours = {name: service for name, service in services.items() if service["image"] == "kavach"}
    assert set(ours) == {"kavach-1", "kavach-2", "writer", "topics"}
    for service in ours.values():
        *command, option, config = service["command"]
        assert option == "--config"
        # With the environment that the container has; a name that is no setting is refused.
        checked = subprocess.run([BINARY, "check", "--config", config, "--print"], cwd=ROOT, capture_output=True,
                                 text=True, env=os.environ | service["environment"])
        assert checked.returncode == 0, checked.stderr
        for address in ("redis://redis:6379", "kafka:9092", "@timescaledb:5432/kavach"):
            assert address in checked.stdout
        helped = subprocess.run([BINARY, *command, "--help"], capture_output=True, text=True)
        assert helped.returncode == 0, helped.stderr
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (ROOT / "configs" / source).exists()
        assert set(service.get("depends_on", [])) <= set(services)


def test_the_pipelines_addresses_are_those_of_the_services_script():
    script = (ROOT / "scripts/services").read_text()
    config = (ROOT / "configs/production.toml").read_text()
    for name in ("redis", "postgres", "kafka"):
        port = re.search(rf"\[{name}\]=(\d+)", script)[1]
        assert f"127.0.0.1:{port}" in config
