"""Wakes this process when a folder changes: Linux's dnotify sends SIGIO. Other systems do not do this."""

import fcntl
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path


class FolderWatch:
    """Watches one path, which may appear later or be replaced. Use it in the main thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: int | None = None  # the watched folder; None: none

    def is_in_force(self) -> bool:
        """Whether every change since the last call, and from now on, sends SIGIO.

        False also if the watch starts with this call: an earlier look at the folder may have missed a change.
        """
        if sys.platform != "linux":
            return False
        try:
            found = self._folder.stat()
            if self._file is not None and os.path.samestat(found, os.fstat(self._file)):
                return True
            self.close()
            self._file = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            signal.signal(signal.SIGIO, lambda *_: None)  # by default SIGIO ends the process
            changes = fcntl.DN_CREATE | fcntl.DN_DELETE | fcntl.DN_RENAME | fcntl.DN_MODIFY
            fcntl.fcntl(self._file, fcntl.F_NOTIFY, changes | fcntl.DN_MULTISHOT)
        except OSError:  # there is no such folder, or this system was built without it
            self.close()
        return False

    def close(self) -> None:
        """Stop the watch."""
        if self._file is not None:
            with suppress(OSError):
                os.close(self._file)
            self._file = None
