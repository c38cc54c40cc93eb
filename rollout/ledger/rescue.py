"""Puts an open ledger's file back in its place: SQLite can still read a file that was deleted after it was opened.

A file found in its place gets another name, so nothing is deleted and no decision is lost.
"""

from pathlib import Path

from rollout.ledger import places
from rollout.ledger.copies import write_copy
from rollout.ledger.ledger import Ledger


def put_back(ledger: Ledger, *, now_s: float) -> Path | None:
    """Write the whole content of `ledger` to its path, and continue there.

    Args:
        ledger: an open ledger.
        now_s: Unix seconds.

    Returns: the new name of a file that was found in its place; None: there was none.
    Raises: LedgerError, OSError; then the ledger is still open as before.
    """
    path = ledger.path
    incoming = path.with_name(f".{path.name}.put-back")
    incoming.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_copy(ledger, incoming)
    aside = places.set_aside(path, "replaced", now_s) if path.exists() else None
    ledger.go_on_with(incoming)
    return aside
