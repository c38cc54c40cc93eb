"""Writes to the ledger in order, including events that could not be written for a while.

A full disk or a locked file must neither keep a bad version in traffic nor lose a decision. So events that may take
effect unwritten wait here and are written before anything else; meanwhile their decisions are also kept on disk.
"""

import structlog

from rollout.errors import LedgerDamaged, LedgerError
from rollout.ledger.events import Event, Noted
from rollout.ledger.kept import KeptDecisions
from rollout.ledger.ledger import Ledger
from rollout.ledger.reserve import needs_room
from rollout.room import Ballast
from rollout.signals.counters import Reading
from rollout.signals.sticky_users import Progress

log = structlog.get_logger()

_USED = "the disk is full: this was written into the space reserved for it"


class Writer:
    """The only writer of `ledger`."""

    def __init__(self, ledger: Ledger, kept: KeptDecisions, reserve: Ballast) -> None:
        """
        Args:
            ledger: an open ledger.
            kept: stores decisions on disk while the ledger cannot be written.
            reserve: disk space that is released when the disk is full, and taken again when there is room.
        """
        self._ledger, self._kept, self._reserve = ledger, kept, reserve
        self._reserve.take()
        self._waiting: list[Event] = []
        self._cursor: Reading | None = None
        self._affected: Progress | None = None
        self.why: LedgerError | None = None  # why the last write failed; None: it succeeded

    @property
    def trouble(self) -> str | None:
        """The problem with the ledger, in words; None: everything is written."""
        if not self._waiting:
            return None
        why = f": {self.why.saw}" if self.why else ""
        do = f"; stop the stack, then {self.why.do}" if isinstance(self.why, LedgerDamaged) else ""
        return f"{len(self._waiting)} events wait for the ledger, which cannot be written{why}{do}"

    @property
    def waiting(self) -> tuple[Event, ...]:
        """Events that are not in the ledger yet, oldest first."""
        return tuple(self._waiting)

    def write(self, *events: Event, cursor: Reading | None = None, affected: Progress | None = None) -> None:
        """Write now, after all waiting events, in one transaction. See `Ledger.append`.

        Raises: LedgerError, LedgerTaken; then `events` are not kept.
        """
        cursor, affected = cursor or self._cursor, affected or self._affected
        try:
            self._append(*self._waiting, *events, cursor=cursor, affected=affected)
        except LedgerError as error:
            self.why = error
            raise
        if self._waiting:
            log.warning("ledger_written_again", events=len(self._waiting))
            self._waiting.clear()
        self._kept.clear()
        self._cursor = self._affected = self.why = None

    def keep(self, *events: Event, cursor: Reading | None = None, affected: Progress | None = None) -> None:
        """Write, or keep until it can be written. Raises LedgerTaken."""
        if not self._waiting:  # else `flush` tries: each try may wait for a lock
            try:
                self.write(*events, cursor=cursor, affected=affected)
            except LedgerError:
                pass
            else:
                return
        self.put_off(*events, cursor=cursor, affected=affected)

    def put_off(self, *events: Event, cursor: Reading | None = None, affected: Progress | None = None) -> None:
        """Keep until it can be written."""
        if not self._waiting and self.why:
            log.critical("ledger_not_written", error=self.why.what, saw=self.why.saw)
        self._waiting.extend(events)
        # Only the newest of these two matter: they are written together with all events before them.
        self._cursor, self._affected = cursor or self._cursor, affected or self._affected
        self._kept.keep(events)

    def flush(self) -> bool:
        """Try again to write the waiting events. Returns whether something was written."""
        self._reserve.take()
        if not self._waiting:
            return False
        try:
            self.write()
        except LedgerError:
            return False
        return True

    def _append(self, *events: Event, cursor: Reading | None, affected: Progress | None) -> None:
        try:
            self._ledger.append(*events, cursor=cursor, affected=affected)
        except LedgerError as error:
            if not (needs_room(error) and self._reserve.throw_off()):
                raise
            log.critical("disk_full", saw=error.saw, did="the reserved room is used")
            last = events[-1]
            noted = Noted(at_s=last.at_s, release=last.release, topic="disk_full", text=_USED)
            self._ledger.append(*events, noted, cursor=cursor, affected=affected)
