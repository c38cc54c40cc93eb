"""Decisions that the ledger could not take yet, beside it, in a file whose room was reserved.

A controller that dies before they are written must not put a bad version back into traffic. Only what ends a release or
holds it is kept; whatever else happens meanwhile happens again.
"""

import json
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import structlog

from rollout import room
from rollout.errors import LedgerError
from rollout.ledger.events import Aborted, Event, Paused, RolledBack
from rollout.ledger.migrations import NUMBER, read_event
from rollout.ledger.state import Phase, Release

log = structlog.get_logger()

_DECISIONS = (RolledBack, Aborted, Paused)


class KeptDecisions:
    """The file of one ledger."""

    def __init__(self, ledger: Path, identity: Callable[[], str | None] = lambda: None) -> None:
        """Reserve its room; where there is none, it is tried again when it is needed.

        Args:
            ledger: the path of the ledger.
            identity: of the ledger; decisions that were kept for another one are not read. Raises LedgerError.
        """
        self._path, self._identity = ledger.with_name("decisions.pending"), identity
        self._lines = self._stored()
        try:
            room.reserve(self._path)
        except OSError as error:
            log.critical("no_room_for_decisions", saw=str(error))

    def keep(self, events: Iterable[Event]) -> None:
        """Add the decisions among `events`. On disk when this returns, unless nothing at all can be written."""
        decisions = [event for event in events if isinstance(event, _DECISIONS)]
        lines = [_line(decision, self._ledger()) for decision in decisions]
        new = [line for line in lines if line not in self._lines]
        if new:
            self._lines += new
            self._store()

    def clear(self) -> None:
        """They are in the ledger now."""
        if self._lines:
            self._lines = []
            self._store()

    def read(self) -> tuple[Event, ...]:
        """What waits, also from an earlier controller; it may be in the ledger already. A damaged line is skipped."""
        about = self._ledger()
        return tuple(event for line in self._lines if (event := _event(line, about)) is not None)

    def missing(self, release: Release, written: Collection[Event]) -> tuple[Event, ...]:
        """Those about `release` that its `written` events lack, unless it is decided already."""
        if release.phase is Phase.LEAVING:
            return ()
        known = {(event.kind, event.at_s) for event in written}
        own = (event for event in self.read() if event.release == release.number)
        return tuple(event for event in own if (event.kind, event.at_s) not in known)

    def _stored(self) -> list[str]:
        try:
            return [line for line in self._path.read_text().splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError):
            return []

    def _ledger(self) -> str | None:
        try:
            return self._identity()
        except LedgerError:
            return None

    def _store(self) -> None:
        try:
            room.overwrite(self._path, "".join(f"{line}\n" for line in self._lines))
        except OSError as error:
            log.critical("decision_not_kept", saw=str(error))


def _line(decision: RolledBack | Aborted | Paused, ledger: str | None) -> str:
    if isinstance(decision, RolledBack):  # with its evidence it might need more room than there is
        decision = decision.model_copy(update={"evidence": None})
    return json.dumps({"ledger": ledger, "schema": NUMBER, "event": decision.stored()})


def _event(line: str, ledger: str | None) -> Event | None:
    """The event of a line; None where it is damaged, or about another ledger than `ledger`, where both are known."""
    try:
        found = json.loads(line)
        if None not in (ledger, found["ledger"]) and ledger != found["ledger"]:
            return None
        return read_event(found["event"], found["schema"])
    except (ValueError, KeyError, TypeError):
        log.critical("kept_decision_damaged", line=line[:200])
        return None
