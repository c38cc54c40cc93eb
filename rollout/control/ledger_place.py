"""Checks at every beat that the ledger's file is still in its place, and puts it back if not.

Deleting or replacing the file under a running controller loses no decision: the controller still has it open.
"""

import structlog

from rollout.control.clock import Instant
from rollout.errors import LedgerError
from rollout.ledger.ledger import Ledger
from rollout.ledger.rescue import put_back

log = structlog.get_logger()

_AGAIN_AFTER_S = 10.0  # between two tries, because each writes a whole copy


class LedgerPlace:
    """Watches the place of one open ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._tried_s: float | None = None  # on the steady clock
        self.trouble: str | None = None  # in words; None: the file is in its place

    def keep(self, now: Instant) -> str | None:
        """Put the file back if it is gone. Returns what was done, in words. Never raises for a disk or a ledger."""
        if self._ledger.is_in_place:
            self._tried_s = self.trouble = None
            return None
        if self._tried_s is not None and now.steady_s - self._tried_s < _AGAIN_AFTER_S:
            return None
        self._tried_s = now.steady_s
        try:
            aside = put_back(self._ledger, now_s=now.wall_s)
        except (LedgerError, OSError) as error:
            saw = error.saw if isinstance(error, LedgerError) else str(error)
            self.trouble = (
                f"the ledger's file was deleted or replaced and cannot be put back: {saw}; do not stop the controller"
            )
            log.critical("ledger_gone", path=str(self._ledger.path), saw=saw)
            return None
        self.trouble = None
        found = f"replaced; the file found in its place is kept as {aside.name}" if aside else "deleted"
        return f"the ledger's file was put back with its whole content, because it had been {found}"
