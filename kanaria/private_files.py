"""Files and folders that only this user can read: keys, tokens and the state of the stack."""

import os
import stat
from pathlib import Path

from contract.files import write_once

# The token of the person who types a command. Processes of the stack must not act in that person's name.
PERSONAL_TOKEN = "KANARIA_MY_TOKEN"  # noqa: S105 - a name, not a secret


def only_for_the_owner() -> None:
    """Set the umask so that only this user can read what this process and its children write."""
    os.umask(0o077)


def close_folder(path: Path) -> None:
    """Create the folder if it is missing, and let only this user enter it. Raises OSError.

    Another user's folder, or a shared one such as /tmp, stays as it is.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = path.stat()
    is_open = stat.S_IMODE(found.st_mode) != 0o700  # no chmod otherwise: the disk may be read-only
    if found.st_uid == os.getuid() and not found.st_mode & stat.S_ISVTX and is_open:
        path.chmod(0o700)


def keep(path: Path, secret: bytes) -> None:
    """Write `path` once, in a folder that only this user can enter; see `write_once`. Raises OSError."""
    close_folder(path.parent)
    write_once(path, secret)
