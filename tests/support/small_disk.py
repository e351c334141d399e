"""SmallDisk: a tmpfs of a few MiB that can really be full, in a mount namespace of its own.

Nobody else sees the mount, and it is gone with the process that holds the namespace, however the test ends.
"""

import os
import subprocess
from pathlib import Path

import pytest

from support.kavachd import Kavachd


class SmallDisk:
    """Mounted over `folder` for the node, whose commands all run in the namespace."""

    def __init__(self, node: Kavachd, folder: Path, size_bytes: int):
        folder.mkdir(parents=True, exist_ok=True)
        mount = f"mount -t tmpfs -o size={size_bytes} tmpfs '{folder}' && echo mounted && exec cat"
        namespaces = ["--mount"] if os.geteuid() == 0 else ["--mount", "--user", "--map-root-user"]
        self._folder = folder
        self._holder = subprocess.Popen(
            ["unshare", *namespaces, "sh", "-c", mount],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        if self._holder.stdout.readline() != "mounted\n":
            reason = self._holder.communicate()[1].strip()
            pytest.skip(f"a tmpfs cannot be mounted here, not even in a namespace: {reason}")
        enter = ["--mount"] if os.geteuid() == 0 else ["--mount", "--user", "--preserve-credentials"]
        self._enter = node.wrapper = ["nsenter", f"--target={self._holder.pid}", *enter, "--"]
        # The disk as seen from here.
        self.inside = Path(f"/proc/{self._holder.pid}/root{folder}")

    def __enter__(self) -> "SmallDisk":
        return self

    def __exit__(self, *_):
        self._holder.communicate()  # its input ends, and with it the holder

    def fill(self) -> None:
        """Until not one more byte fits."""
        with open(self._filler, "ab", buffering=0) as filler:
            for size in (1 << 16, 1 << 12, 1):
                while self._fits(filler, size):
                    pass

    def free(self) -> None:
        self._filler.unlink()

    def make_read_only(self) -> None:
        subprocess.run([*self._enter, "mount", "-o", "remount,bind,ro", self._folder], check=True)

    @property
    def _filler(self) -> Path:
        return self.inside / "filler"

    @staticmethod
    def _fits(filler, size: int) -> bool:
        try:
            return filler.write(bytes(size)) == size
        except OSError:
            return False
