"""Caches files that are read again and again and hardly ever change: their paths and their content."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

ReadT = TypeVar("ReadT")

# A system records the time of a change with a precision of some milliseconds, some file systems of two seconds: two
# changes in quick succession may have the same time.
_SETTLED_NS = 3 * 10**9


class Notes(dict[str, Path]):
    """The path of each file of a folder by its name. Building a path takes longer than checking the file."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __missing__(self, name: str) -> Path:
        path = self[name] = self.folder / f"{name}.json"
        return path


class KnownFiles(Generic[ReadT]):
    """Reads a file again only if it changed since the last read, or was changed a moment ago.

    Args:
        read: reads a path: a file's content or the names in a folder. None (could not be read) is not kept.
    """

    def __init__(self, read: Callable[[Path], ReadT]) -> None:
        self._read = read
        self._known: dict[Path, tuple[tuple[int, ...], ReadT]] = {}  # by path: the file's identity, and what was read

    def at(self, path: Path) -> ReadT:
        """What is at `path` now. Raises what `read` raises."""
        try:
            found = path.stat()
        except OSError:
            self._known.pop(path, None)
            return self._read(path)
        file = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
        known = self._known.get(path)
        # If the clock was set back, every change counts as recent, and the file is read again.
        is_settled = time.time_ns() - found.st_ctime_ns >= _SETTLED_NS
        if is_settled and known is not None and known[0] == file:
            return known[1]
        content = self._read(path)
        if content is None:
            self._known.pop(path, None)
        else:
            self._known[path] = file, content
        return content
