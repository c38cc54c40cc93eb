"""The logs of the processes: files that a process writes itself, and that do not grow for ever."""

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
        """The log of `name`, to be appended to; where no file can be made, what is written to it is lost."""
        try:
            self._folder.mkdir(exist_ok=True)
            return (self._folder / f"{name}.log").open("ab")
        except OSError:
            return Path(os.devnull).open("ab")

    def rotate(self, droppable: Callable[[], Iterable[str]] = tuple) -> None:
        """Copy each log that is too large, and begin it anew. Its process goes on writing to the same file.

        Lines that are written in between are lost. So is the log itself where there is no room for a copy. A folder
        that cannot be read, as on a disk that is gone, is left for the next time.

        Args:
            droppable: gives the paths of files of which no copy is made; asked only when it is time to look.
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
