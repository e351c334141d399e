"""Services: servers of a suite's own (Kafka, Postgres), by scripts/services, and a kavachd that passes on to Kafka."""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import ROOT, Harness, Node
from support.kavachd import hold_port, wait_until


class Services:
    """Servers of the run's own, on free ports, by scripts/services; they and their data go with it."""

    def __init__(self, bench: Harness, *names: str):
        self.names = names
        self.rows: dict[str, Path] = {}  # files with the rows of a table
        self.folder = Path(tempfile.mkdtemp(dir=bench.options.directory, prefix="services-"))
        self.folder.chmod(0o755)  # PostgreSQL may run as another user
        with contextlib.ExitStack() as held:
            self.ports = {name: held.enter_context(hold_port()).getsockname()[1]
                          for name in ("postgres", "kafka", "controller")}

    def run(self, verb: str) -> None:
        ports = [word for name, port in self.ports.items() for word in (f"--{name}-port", str(port))]
        done = subprocess.run([ROOT / "scripts" / "services", verb, "--dir", self.folder, *ports, *self.names],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            sys.exit(f"scripts/bench: services: {done.stdout}")

    def __enter__(self) -> "Services":
        try:
            self.run("start")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception) -> None:
        try:
            self.run("stop")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def pid(self, name: str) -> int:
        return int((self.folder / name / "pid").read_text().split()[0])

    @property
    def brokers(self) -> str:
        return f"127.0.0.1:{self.ports['kafka']}"

    def url(self, database: str) -> str:
        return f"postgresql://kavach@127.0.0.1:{self.ports['postgres']}/{database}"

    def psql(self, database: str, *commands: str) -> str:
        words = [word for command in commands for word in ("-c", command)]
        done = subprocess.run(["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", self.url(database), *words],
                              capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"scripts/bench: psql: {done.stderr}")
        return done.stdout.strip()


def kafka_node(bench: Harness, services: Services, topic: str, node_class: type[Node] = Node, **settings) -> Node:
    """One that is yet to be started, with its topics made."""
    node = node_class(bench, settings={
        "kafka.brokers": services.brokers, "kafka.topic": topic, "kafka.dlq_topic": f"{topic}-dlq",
        "kafka.alerts_topic": f"{topic}-alerts"} | settings)
    node.write_config()
    node.command("topics", "create")
    return node


def check_receipts(node: Node, wanted: str) -> None:
    others = {"broker": "journal", "journal": "broker"}[wanted]
    count = {name: node.metric("kavach_ingest_receipts_total", **{"class": name}) for name in (wanted, others)}
    if count[others] > count[wanted] / 100:
        sys.exit(f"scripts/bench: not all receipts were {wanted}: the figures mean nothing")


def wait_for_kafka(node: Node) -> None:
    wait_until(lambda: node.request("GET", "/v1/status").json()["kafka_lag"]["events"] == 0, "Kafka has everything")
