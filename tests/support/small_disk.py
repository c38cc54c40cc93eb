"""File systems of a few MiB that a test can fill to the last byte or cut off from power. Only root may mount them."""

import shutil
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
        """Delete what `fill` wrote."""
        (self.folder / _FILLING).unlink(missing_ok=True)

    def remount(self, options: str) -> None:
        """Change how it is mounted, for example `ro`."""
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.folder)], check=True)


@contextmanager
def mounted(folder: Path, *, mib: int, options: str = "") -> Iterator[SmallDisk]:
    """Mount a file system of `mib` MiB at the new folder `folder`; skip the test where this is not permitted."""
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


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nobody open, create or remove a file in `folder`, although it is in use; open files can still be written."""
    done = subprocess.run(["mount", "--bind", str(folder), str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        leave_out(f"a folder cannot be mounted here: {done.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@dataclass(frozen=True, slots=True)
class UnsafeDisk:
    """A mounted file system that lies in a file."""

    folder: Path
    image: Path

    def lose_power(self) -> None:
        """Forget everything that was written and is not on the disk yet, then mount it again.

        None of its files may be open.
        """
        subprocess.run(["mount", "-o", "remount,abort", str(self.folder)], check=True)
        subprocess.run(["umount", str(self.folder)], check=True)
        left = self.image.rename(self.image.with_name("cut-off.img"))
        shutil.copy(left, self.image)  # the kernel may still cache unwritten data of the original file
        subprocess.run(["e2fsck", "-fy", str(self.image)], check=False, capture_output=True)
        subprocess.run(["mount", "-o", "loop", str(self.image), str(self.folder)], check=True)


@contextmanager
def in_a_file(folder: Path) -> Iterator[UnsafeDisk]:
    """Mount a file system that lies in a file at the new folder `folder`; skip the test where this is not permitted."""
    folder.mkdir(parents=True)
    image = folder.with_name("disk.img")
    with image.open("wb") as file:
        file.truncate(16 * _MIB)
    for command in (["mkfs.ext4", "-q", str(image)], ["mount", "-o", "loop", str(image), str(folder)]):
        if shutil.which(command[0]) is None:
            leave_out(f"there is no {command[0]}")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            leave_out(f"a file system in a file cannot be mounted here: {done.stderr.strip()}")
    try:
        yield UnsafeDisk(folder, image)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
