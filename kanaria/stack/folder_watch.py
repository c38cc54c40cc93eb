"""Wakes this process when something in a folder changes, where the system can: dnotify, of Linux, sends it SIGIO."""

import fcntl
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path


class FolderWatch:
    """Of one folder, which may come later, or be another one under its name. For the main thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: int | None = None  # the folder that is watched; None: none is

    def is_in_force(self) -> bool:
        """Whether every change since the last call, and from now on, sends SIGIO.

        False also where that begins only with this call: who looked at the folder before may have missed something.
        """
        if sys.platform != "linux":
            return False
        try:
            found = self._folder.stat()
            if self._file is not None and os.path.samestat(found, os.fstat(self._file)):
                return True
            self.close()
            self._file = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            signal.signal(signal.SIGIO, lambda *_: None)  # it would end the process
            changes = fcntl.DN_CREATE | fcntl.DN_DELETE | fcntl.DN_RENAME | fcntl.DN_MODIFY
            fcntl.fcntl(self._file, fcntl.F_NOTIFY, changes | fcntl.DN_MULTISHOT)
        except OSError:  # there is no such folder, or this system was built without it
            self.close()
        return False

    def close(self) -> None:
        """Watch no more."""
        if self._file is not None:
            with suppress(OSError):
                os.close(self._file)
            self._file = None
