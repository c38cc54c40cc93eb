"""Which versions failed and must not come back: kept by this replica, and shared with the others where rights allow."""

from typing import Any

import structlog

from rollout.errors import LedgerError
from rollout.judge import Verdict
from rollout.server.annotations import Annotations, ClusterSilent, Shared
from rollout.server.kept import Attempt, Failure, Kept

log = structlog.get_logger()

_NOBODY = -1.0  # Unix seconds, before anything
_LONGEST_NOTE = 300


class Quarantine:
    """What one replica keeps, and what all share. A verdict never waits for the cluster's answer to be a good one.

    Args:
        kept: this replica's.
        shared: None: each replica finds everything by itself.
    """

    def __init__(self, kept: Kept, shared: Annotations | None = None) -> None:
        self._kept, self._shared = kept, shared

    def failure(self, attempt: Attempt, report: str) -> tuple[Failure | None, list[str]]:
        """The failure that keeps an attempt in quarantine, and what a person should know. Raises LedgerError.

        Args:
            report: URL of the page about it.
        """
        own = self._kept.failure(attempt)
        if self._shared is None:
            return own, []
        try:
            return self._agreed(self._shared, attempt, own, report), []
        except ClusterSilent as error:
            return own, [_note(error)]

    def keep(self, failure: Failure) -> list[str]:
        """A FAIL is answered even where it cannot be kept: then it rests on the samples alone."""
        try:
            self._kept.keep(failure)
        except LedgerError as error:
            log.critical("failure_not_kept", error=error.what, saw=error.saw, do=error.do)
        if self._shared is None:
            return []
        try:
            self._tell(self._shared, failure)
        except ClusterSilent as error:
            return [_note(error)]
        return []

    def lift(self, attempt: Attempt, at_s: float) -> tuple[int, list[str]]:
        """See `Kept.lift`; with it what a person should know."""
        lifted = self._kept.lift(attempt, at_s)
        if self._shared is None:
            return lifted, []
        try:
            self._shared.change(attempt, lambda _: Shared(lifted_s=at_s), every_try=True)
        except ClusterSilent as error:
            return lifted, [_note(error)]
        return lifted, []

    def give_first_weight(self, attempt: Attempt, at_s: float) -> bool:
        """See `Kept.give_first_weight`; no replica gives it after another."""
        if not self._kept.give_first_weight(attempt, at_s):
            return False
        if self._shared is None:
            return True

        def given(known: Shared) -> Shared:
            return known if known.first_weight_s else known.model_copy(update={"first_weight_s": at_s})

        try:
            return self._shared.change(attempt, given)
        except ClusterSilent as error:
            _note(error)
            return True

    def failures(self) -> list[Failure]:
        """Those that this replica knows, the newest first."""
        return self._kept.failures()

    def start(self, attempt: Attempt, at_s: float) -> None:
        """See `Kept`."""
        self._kept.start(attempt, at_s)

    def started_s(self, attempt: Attempt) -> float | None:
        """See `Kept`."""
        return self._kept.started_s(attempt)

    def _agreed(self, shared: Annotations, attempt: Attempt, own: Failure | None, report: str) -> Failure | None:
        """Take over what another replica found or was told, and share what it does not know."""
        known = shared.read(attempt)
        began_s = self._kept.started_s(attempt) or _NOBODY
        if known.lifted_s and began_s < known.lifted_s:
            self._kept.lift(attempt, known.lifted_s)
            own, began_s = None, known.lifted_s
        if known.failed_s and known.failed_s <= began_s and not own:  # lifted here while the cluster was silent
            shared.change(attempt, lambda _: Shared(lifted_s=began_s), every_try=True)
        elif known.failed_s and not own:
            own = Failure(attempt, known.failed_s, _answer(known, report))
            self._kept.keep(own)
        elif own and not known.failed_s:
            self._tell(shared, own)
        return own

    @staticmethod
    def _tell(shared: Annotations, failure: Failure) -> None:
        said = failure.answer

        def failed(known: Shared) -> Shared:
            if known.failed_s:
                return known
            found = {"failed_s": failure.at_s, "reason": said["reason"], "since": said["since"]}
            return known.model_copy(update=found)

        shared.change(failure.attempt, failed)


def _answer(known: Shared, report: str) -> dict[str, Any]:
    """The answer that another replica gave, without its evidence."""
    return {
        "verdict": Verdict.FAIL.value,
        "reason": known.reason,
        "since": known.since,
        "signals": {},
        "next": None,
        "report": report,
        "notes": ["another replica found this, and has the evidence"],
    }


def _note(error: ClusterSilent) -> str:
    log.warning("not_shared", error=error.what, saw=error.saw, do=error.do)
    return f"{error.what}: {error.saw}; {error.do}"[:_LONGEST_NOTE]
