"""Harness: what scripts/bench lends to the suites that have a file of their own."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Harness:
    options: object  # the arguments of scripts/bench
    tools: Path  # folder of the programs
    say: Callable
    on_core: Callable
    load: Callable
    run_tool: Callable
    node: type  # one kavachd on the server's core
    null_server: Callable
    check_counts: Callable
