"""Copies of a ledger, made while its controller writes; each copy is checked before it gets its name."""

import os
import shutil
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rollout.errors import LedgerDamaged, LedgerError, NotALedger
from rollout.ledger import places
from rollout.ledger.check import Contents, check
from rollout.ledger.ledger import Ledger

_LEFT_FREE_BYTES = 64 * 2**20  # stay free for the controller, the gateway and their logs


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy that was checked and is whole."""

    path: Path
    contents: Contents
    is_new: bool  # False: an earlier copy already holds everything
    removed: tuple[Path, ...] = ()  # older copies that were removed


def scheduled_copy(ledger: Path, *, keep: int, now_s: float) -> Copy:
    """Make a copy in the folder of copies; once it is checked, remove all older copies but `keep` - 1.

    If the newest copy is whole and already holds every event, no new one is made. Raises LedgerError, OSError.
    """
    newest = places.newest_copy(ledger)
    if newest and (found := _holds_all(newest, ledger)):
        return Copy(newest, found, is_new=False)
    target = places.dated(places.copies_folder(ledger) / ledger.name, now_s)
    target.parent.mkdir(parents=True, exist_ok=True)
    _check_room(ledger)
    contents = copy(ledger, target)
    others = [one for one in places.copies(ledger) if one != target]
    removed = tuple(others[max(keep - 1, 0) :])
    for one in removed:
        one.unlink()
    return Copy(target, contents, is_new=True, removed=removed)


def copy(ledger: Path, target: Path) -> Contents:
    """Copy a ledger to the file `target`, whole or not at all; on disk when this returns. Raises LedgerError, OSError.

    An existing file that is not a ledger is never overwritten.
    """
    if target.exists() and (target.samefile(ledger) or places.identity_of(target) is None):
        raise NotALedger(
            "the copy would overwrite a file", saw=f"{target} is not a copy of a ledger", do="name another file"
        )
    with closing(Ledger(ledger, read_only=True)) as source:
        return write_copy(source, target)


def write_copy(source: Ledger, target: Path) -> Contents:
    """Copy an open ledger to `target`, as `copy` does. Raises LedgerError, OSError."""
    incoming = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        source.copy_to(incoming)
        contents = _checked(source, incoming)
        _sync(incoming)
        incoming.replace(target)
        _sync(target.parent)
    finally:
        incoming.unlink(missing_ok=True)
    return contents


def _checked(source: Ledger, incoming: Path) -> Contents:
    try:
        return check(incoming)
    except LedgerDamaged as error:
        saw = error.saw.replace(str(incoming), str(source.path))
        raise LedgerDamaged(
            "the ledger is damaged, and no copy was made", saw=saw, do=places.restore(source.path)
        ) from error


def _check_room(ledger: Path) -> None:
    """Raise LedgerError if a copy would take the space that the controller needs to write decisions."""
    size = sum(file.stat().st_size for file in (ledger, *places.companions(ledger)) if file.exists())
    free = shutil.disk_usage(ledger.parent).free
    if free < size + _LEFT_FREE_BYTES:
        raise LedgerError(
            "there is no room for a copy of the ledger",
            saw=f"{free / 2**20:,.0f} MiB free, the copy takes {size / 2**20:,.1f}",
            do="make room on the disk, or name a file on another one: `kanaria ledger backup FILE`",
        )


def _holds_all(copied: Path, ledger: Path) -> Contents | None:
    """The contents of the copy if it is whole and holds every event of the ledger; else None."""
    try:
        found = check(copied)
        with closing(Ledger(ledger, read_only=True)) as source:
            is_all = source.identity() == found.identity and source.count() == found.events
    except LedgerError:
        return None
    return found if is_all else None


def _sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
