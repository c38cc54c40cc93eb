"""Files and folders of this user alone: keys and tokens, and all that the stack keeps."""

import os
import stat
from pathlib import Path

from contract.files import write_once

# The variable of whoever types a command: no process of the stack acts in his name.
PERSONAL_TOKEN = "KANARIA_MY_TOKEN"  # noqa: S105 - a name, not a secret


def only_for_the_owner() -> None:
    """From now on, what this process and those that it starts write is readable by this user alone."""
    os.umask(0o077)


def close_folder(path: Path) -> None:
    """Make the folder where it is missing, and let only this user in, which hides all that is in it. Raises OSError.

    A folder of somebody else's, or one that all may write to, such as /tmp, stays as it is.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = path.stat()
    is_open = stat.S_IMODE(found.st_mode) != 0o700  # one that is closed may lie on a disk that can only be read
    if found.st_uid == os.getuid() and not found.st_mode & stat.S_ISVTX and is_open:
        path.chmod(0o700)


def keep(path: Path, secret: bytes) -> None:
    """Make `path` in a folder for this user alone, see `write_once`. Raises OSError."""
    close_folder(path.parent)
    write_once(path, secret)
