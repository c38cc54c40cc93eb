"""Files that are looked at again and again, and hardly ever change: where each is, and what is in it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

ReadT = TypeVar("ReadT")

# A system notes the time of a change to some milliseconds, some file systems to two seconds: a change that follows at
# once on the one before may look the same.
_SETTLED_NS = 3 * 10**9


class Notes(dict[str, Path]):
    """The path of each note of a folder by its name. To put one together takes longer than to look at its file."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __missing__(self, name: str) -> Path:
        path = self[name] = self.folder / f"{name}.json"
        return path


class KnownFiles(Generic[ReadT]):
    """Reads a file where it is another one than at the last look, or was changed a moment ago.

    Args:
        read: gives what is at a path, a file or the names in a folder; None, of what could not be read, is not kept.
    """

    def __init__(self, read: Callable[[Path], ReadT]) -> None:
        self._read = read
        self._known: dict[Path, tuple[tuple[int, ...], ReadT]] = {}  # by path: what tells a file from a later one

    def at(self, path: Path) -> ReadT:
        """What is at `path` now. Raises what `read` raises."""
        try:
            found = path.stat()
        except OSError:
            self._known.pop(path, None)
            return self._read(path)
        file = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
        known = self._known.get(path)
        # A clock that was set back makes every change one of a moment ago.
        is_settled = time.time_ns() - found.st_ctime_ns >= _SETTLED_NS
        if is_settled and known is not None and known[0] == file:
            return known[1]
        content = self._read(path)
        if content is None:
            self._known.pop(path, None)
        else:
            self._known[path] = file, content
        return content
