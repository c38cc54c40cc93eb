"""Files that only this user may read: keys and tokens."""

from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile


def keep(path: Path, secret: bytes) -> None:
    """Write `path` whole or not at all, even on a full disk. An existing file stays as it is. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.") as file:  # made with rights for its owner alone
        file.write(secret)
        file.flush()
        with suppress(FileExistsError):  # another command was quicker
            path.hardlink_to(file.name)
