"""scripts/services starts real servers of its own, finds them again, and ends those only."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from support.kavachd import ROOT, hold_port, wait_until

NAMES = ("redis", "postgres", "kafka")


@pytest.fixture(scope="module")
def place():
    """A folder that the user postgres can reach, unlike pytest's, and the options that keep to it."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="kavach-services-"))
    folder.chmod(0o755)
    held = {name: hold_port() for name in (*NAMES, "controller")}
    options = ["--dir", str(folder)]
    for name, holder in held.items():
        options += [f"--{name}-port", str(holder.getsockname()[1])]
    yield folder, options
    services("stop", *options)
    for holder in held.values():
        holder.close()
    shutil.rmtree(folder)


def services(*words) -> subprocess.CompletedProcess:
    return subprocess.run([ROOT / "scripts/services", *words], capture_output=True, text=True, timeout=300)


def done(*words) -> str:
    result = services(*words)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def process(folder: Path, name: str) -> int:
    return int((folder / name / "pid").read_text().split()[0])


def is_running(pid: int) -> bool:
    """A dead one may still wait for its parent to take notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] not in "ZX"
    except OSError:
        return False


def sql(address: str, statement: str) -> str:
    return subprocess.run(["psql", "-XAt", "-c", statement, address], capture_output=True, text=True, check=True).stdout


def test_started_twice_stopped_and_started_again_with_the_data_kept(place):
    folder, options = place
    assert services("status", *options).returncode == 3
    printed = done("start", *options)
    addresses = {line.split()[0]: line.split()[2] for line in printed.splitlines() if " running " in line}
    assert set(addresses) == set(NAMES)
    assert addresses["redis"].startswith("redis://127.0.0.1:")

    processes = {name: process(folder, name) for name in NAMES}
    sql(addresses["postgres"], "CREATE TABLE kept AS SELECT 4711 AS number")
    assert done("start", *options) == printed, "what runs stays"
    assert done("status", *options) == printed
    assert {name: process(folder, name) for name in NAMES} == processes

    assert done("stop", *options).count("stopped") == 3
    for pid in processes.values():
        assert not is_running(pid)
    assert services("status", *options).returncode == 3
    assert done("stop", *options).count("not running") == 3

    done("start", *options, "postgres")
    assert sql(addresses["postgres"], "SELECT number FROM kept") == "4711\n"
    assert services("status", *options, "redis").returncode == 3, "only what was named is started"
    done("stop", *options, "postgres")


def test_a_stale_pid_file_ends_nobody(place):
    folder, options = place
    with subprocess.Popen(["sleep", "600"]) as innocent:
        try:
            # The pid of a process that began at another moment than the server.
            (folder / "redis").mkdir(exist_ok=True)
            (folder / "redis/pid").write_text(f"{innocent.pid} 1\n")
            assert "not running" in services("status", *options, "redis").stdout
            assert "not running" in done("stop", *options, "redis")
            assert innocent.poll() is None
        finally:
            innocent.kill()


def test_one_that_was_killed_is_started_again_and_one_that_is_frozen_is_stopped(place):
    folder, options = place
    done("start", *options, "redis")
    first = process(folder, "redis")
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: services("status", *options, "redis").returncode == 3, "its end is seen")
    done("start", *options, "redis")
    second = process(folder, "redis")
    assert second != first
    os.kill(second, signal.SIGSTOP)
    assert "stopped" in done("stop", *options, "redis")
    assert not is_running(second)


def test_a_port_that_is_taken_is_an_error_that_says_so(place):
    folder, options = place
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = str(other.getsockname()[1])
        failed = services("start", *options, "--redis-port", taken, "redis")
        assert failed.returncode == 1
        assert f"port {taken} is taken" in failed.stderr
        assert "--redis-port" in done("--help")


@pytest.mark.parametrize("words", [(), ("begin",), ("start", "mysql"), ("start", "--redis-port", "x"), ("start", "stop")])
def test_a_wrong_command_line_is_refused(words):
    assert services(*words).returncode == 2
