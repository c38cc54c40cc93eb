"""Stores decisions that could not be written to the ledger yet, in a file beside it with reserved disk space.

A controller that dies before they are written must not put a bad version back into traffic. Only decisions that end or
hold a release are stored; everything else will happen again.
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
        """Reserve the file's space; if there is none now, this is tried again when the file is written.

        Args:
            ledger: the path of the ledger.
            identity: returns the ledger's identity; decisions for another ledger are not read. Raises LedgerError.
        """
        self._path, self._identity = ledger.with_name("decisions.pending"), identity
        self._lines = self._stored()
        try:
            room.reserve(self._path)
        except OSError as error:
            log.critical("no_room_for_decisions", saw=str(error))

    def keep(self, events: Iterable[Event]) -> None:
        """Add the decisions among `events`. They are on disk when this returns, unless nothing can be written."""
        decisions = [event for event in events if isinstance(event, _DECISIONS)]
        lines = [_line(decision, self._ledger()) for decision in decisions]
        new = [line for line in lines if line not in self._lines]
        if new:
            self._lines += new
            self._store()

    def clear(self) -> None:
        """Delete the decisions, which are in the ledger now."""
        if self._lines:
            self._lines = []
            self._store()

    def read(self) -> tuple[Event, ...]:
        """The waiting decisions, including an earlier controller's; some may be in the ledger. Skips damaged lines."""
        about = self._ledger()
        return tuple(event for line in self._lines if (event := _event(line, about)) is not None)

    def missing(self, release: Release, written: Collection[Event]) -> tuple[Event, ...]:
        """Waiting decisions about `release` that are not among its `written` events; none if it is already decided."""
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
    if isinstance(decision, RolledBack):  # without its evidence, which might need more space than is reserved
        decision = decision.model_copy(update={"evidence": None})
    return json.dumps({"ledger": ledger, "schema": NUMBER, "event": decision.stored()})


def _event(line: str, ledger: str | None) -> Event | None:
    """The event of a line; None: the line is damaged, or belongs to another ledger (if both ledgers are known)."""
    try:
        found = json.loads(line)
        if None not in (ledger, found["ledger"]) and ledger != found["ledger"]:
            return None
        return read_event(found["event"], found["schema"])
    except (ValueError, KeyError, TypeError):
        log.critical("kept_decision_damaged", line=line[:200])
        return None
