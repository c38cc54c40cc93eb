"""Disk space that is reserved for the ledger, and released when a write needs it."""

from pathlib import Path

from rollout.errors import LedgerError
from rollout.ledger.ledger import Ledger
from rollout.room import Ballast

# The write-ahead log grows to 4 MiB before it is reused, and a tick takes 4 KB: this is enough for both, for three
# hours with windows of five seconds.
RESERVE_BYTES = 16 * 2**20


def reserve_of(ledger: Path, size: int = RESERVE_BYTES) -> Ballast:
    """The reserve of the ledger at that path; `size` in bytes."""
    return Ballast(ledger.with_suffix(".reserve"), size)


def open_ledger(path: Path) -> Ledger:
    """Open the ledger for writing; if the disk is full, release the reserved space. Raises LedgerError."""
    try:
        return Ledger(path)
    except LedgerError as error:
        if not (needs_room(error) and reserve_of(path).throw_off()):
            raise
    return Ledger(path)


def needs_room(error: LedgerError) -> bool:
    """Whether the disk may be full, by SQLite's name of the error: on a full disk it also cannot map or open files."""
    name: str = getattr(error.__cause__, "sqlite_errorname", "")
    return name.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN"))
