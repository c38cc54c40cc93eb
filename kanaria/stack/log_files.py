"""The logs of the processes: files that each process writes itself, with limited size."""

import os
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

LARGEST_BYTES = 20_000_000
COPIES = 2
_EVERY_S = 5.0


class LogFiles:
    """The logs of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._due_s = 0.0

    def open(self, name: str) -> BinaryIO:
        """The log of `name`, opened for appending; /dev/null if the file cannot be created."""
        try:
            self._folder.mkdir(exist_ok=True)
            return (self._folder / f"{name}.log").open("ab")
        except OSError:
            return Path(os.devnull).open("ab")

    def rotate(self, droppable: Callable[[], Iterable[str]] = tuple) -> None:
        """Copy each log that is too large, then empty it. Its process goes on writing to the same file.

        Lines that are written between copy and emptying are lost. On a full disk the log itself is lost. A folder that
        cannot be read, such as on an unmounted disk, is skipped until the next call.

        Args:
            droppable: returns the paths of files that are emptied without a copy; called only when a look is due.
        """
        if time.monotonic() < self._due_s:
            return
        self._due_s = time.monotonic() + _EVERY_S
        with suppress(OSError):
            for path in self._folder.glob("*.log"):
                with suppress(OSError):
                    if path.stat().st_size > LARGEST_BYTES:
                        _rotate(path)
        with suppress(OSError):
            for path in map(Path, droppable()):
                with suppress(OSError):
                    if path.stat().st_size > LARGEST_BYTES:
                        os.truncate(path, 0)


def _rotate(path: Path) -> None:
    copies = [path.with_name(f"{path.name}.{number}") for number in range(1, COPIES + 1)]
    for older, newer in zip(reversed(copies), [*reversed(copies[:-1])], strict=False):
        with suppress(FileNotFoundError):
            newer.replace(older)
    try:
        shutil.copyfile(path, copies[0])
    except OSError:
        copies[0].unlink(missing_ok=True)
    os.truncate(path, 0)
