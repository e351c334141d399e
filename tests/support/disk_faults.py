"""DiskFaults: makes one kavachd's disk slow, stuck, broken or full on command (tests/fault/disk_faults.c)."""

import os
from pathlib import Path

from support.kavachd import BUILD, Kavachd, wait_until

SHIM = BUILD / "tests/fault/libdisk_faults.so"


class DiskFaults:
    """Attach it to a node before its start; rules then take effect at the next call, also of a running process."""

    def __init__(self, node: Kavachd):
        assert SHIM.exists(), f"{SHIM} is not built"
        node.folder.mkdir(parents=True, exist_ok=True)
        self._rules = node.folder / "faults"
        node.environment |= {
            "KAVACH_TEST_FAULTS": str(self._rules),
            "LD_PRELOAD": str(SHIM),
            # The shim comes before the sanitizer's library, which only matters to whom intercepts the same calls.
            "ASAN_OPTIONS": ":".join(filter(None, [os.environ.get("ASAN_OPTIONS"), "verify_asan_link_order=0"])),
        }

    def set(self, *rules: str) -> None:
        """Replaces all rules, for example set("fdatasync /journal/ hold"). The hits before are forgotten."""
        self._hits.unlink(missing_ok=True)
        new = self._rules.with_suffix(".new")
        new.write_text("".join(rule + "\n" for rule in rules))
        new.rename(self._rules)  # never read half written

    def clear(self) -> None:
        self.set()

    def wait_for_hit(self, count: int = 1) -> None:
        """Until rules were applied `count` times since they were set."""
        wait_until(lambda: self._hit_count() >= count, f"{count} calls that a rule applies to")

    def _hit_count(self) -> int:
        return len(self._hits.read_text().splitlines()) if self._hits.exists() else 0

    @property
    def _hits(self) -> Path:
        return self._rules.with_name("faults.hits")
