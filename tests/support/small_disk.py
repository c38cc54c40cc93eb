"""A file system of a few MiB that a test can fill to the last byte: a tmpfs, which only root may mount."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.absence import leave_out

_FILLING = "filling"
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A mounted file system."""

    folder: Path

    def fill(self) -> None:
        """Leave no byte free."""
        with suppress(OSError), (self.folder / _FILLING).open("ab", buffering=0) as filling:
            for size in (_MIB, 4096, 1):
                with suppress(OSError):
                    while filling.write(b"x" * size):
                        pass

    def free(self) -> None:
        """Give back what `fill` took."""
        (self.folder / _FILLING).unlink(missing_ok=True)

    def remount(self, options: str) -> None:
        """Change how it is mounted, as `ro`."""
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.folder)], check=True)


@contextmanager
def mounted(folder: Path, *, mib: int, options: str = "") -> Iterator[SmallDisk]:
    """Mount a file system of `mib` MiB at `folder`, which is made; where this is not permitted, leave the test out."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = ",".join(filter(None, (f"size={mib}m", options)))
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", wanted, "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        leave_out(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
