"""Puts an open ledger's file back where it was: SQLite reads a file that was deleted after it was opened.

Whatever somebody put in its place gets another name, so nothing is deleted, and nothing that was decided is lost.
"""

from pathlib import Path

from rollout.ledger import places
from rollout.ledger.copies import write_copy
from rollout.ledger.ledger import Ledger


def put_back(ledger: Ledger, *, now_s: float) -> Path | None:
    """Write all that `ledger` holds to its path, and go on there; gives the new name of what was found in its place.

    Args:
        now_s: Unix seconds.

    Raises: LedgerError, OSError; then the ledger is as open as before.
    """
    path = ledger.path
    incoming = path.with_name(f".{path.name}.put-back")
    incoming.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_copy(ledger, incoming)
    aside = places.set_aside(path, "replaced", now_s) if path.exists() else None
    ledger.go_on_with(incoming)
    return aside
