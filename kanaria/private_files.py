"""Files and folders of this user alone: keys and tokens, and all that the stack keeps."""

import os
import stat
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

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
    if found.st_uid == os.getuid() and not found.st_mode & stat.S_ISVTX:
        path.chmod(0o700)


def keep(path: Path, secret: bytes) -> None:
    """Write `path` whole or not at all, even on a full disk. An existing file stays as it is. Raises OSError."""
    close_folder(path.parent)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.") as file:  # made with rights for its owner alone
        file.write(secret)
        file.flush()
        with suppress(FileExistsError):  # another command was quicker
            path.hardlink_to(file.name)
