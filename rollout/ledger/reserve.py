"""Room on the disk that is taken beforehand for the ledger, and given back when a write needs it."""

from pathlib import Path

from rollout.errors import LedgerError
from rollout.ledger.ledger import Ledger
from rollout.room import Ballast

# The write-ahead log grows to 4 MiB before it is used again, and a tick takes 4 KB: this is room for both, for three
# hours of windows of five seconds.
RESERVE_BYTES = 16 * 2**20


def reserve_of(ledger: Path, size: int = RESERVE_BYTES) -> Ballast:
    """The reserve of the ledger at that path; `size` in bytes."""
    return Ballast(ledger.with_suffix(".reserve"), size)


def open_ledger(path: Path) -> Ledger:
    """Open it for writing, in the reserved room where the disk is full. Raises LedgerError."""
    try:
        return Ledger(path)
    except LedgerError as error:
        if not (needs_room(error) and reserve_of(path).throw_off()):
            raise
    return Ledger(path)


def needs_room(error: LedgerError) -> bool:
    """Whether the disk may be full, by what SQLite names the error: a full disk also cannot map or open a file."""
    name: str = getattr(error.__cause__, "sqlite_errorname", "")
    return name.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN"))
