"""Which versions failed and must not come back: kept by this replica, and shared with the others where rights allow."""

import math
from collections.abc import Callable
from typing import Any

import structlog

from rollout.errors import LedgerError
from rollout.format import span
from rollout.judge import Verdict
from rollout.server.kept import Attempt, Failure, Kept
from rollout.server.shared import AHEAD_S, Shared, Tries
from rollout.server.shared_map import CONFIG_MAP, ClusterSilent, SharedMap

log = structlog.get_logger()

_LONGEST_NOTE = 300


class Quarantine:
    """What one replica keeps, and what all share. A verdict never waits for the cluster's answer to be a good one.

    Args:
        kept: this replica's.
        shared: None: each replica finds everything by itself.
        now_s: the metric store's clock, Unix seconds; raises nothing.
    """

    def __init__(self, kept: Kept, shared: SharedMap | None = None, *, now_s: Callable[[], float]) -> None:
        self._kept, self._shared, self._now_s = kept, shared, now_s

    def failure(self, attempt: Attempt, report: str) -> tuple[Failure | None, list[str]]:
        """The failure that keeps an attempt in quarantine, and what a person should know. Raises LedgerError.

        Args:
            report: URL of the page about it.
        """
        own = self._kept.failure(attempt)
        if self._shared is None:
            return own, []
        try:
            return self._agreed(self._shared, attempt, own, report)
        except ClusterSilent as error:
            return own, _notes(error)

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
            return _notes(error)
        return []

    def lift(self, attempt: Attempt, at_s: float) -> tuple[int, list[str]]:
        """See `Kept.lift`; with it what a person should know. It holds for all failures that are known by now."""
        until_s = max([at_s, *(each.at_s for each in self._kept.failures() if each.attempt.names == attempt.names)])
        lifted = self._kept.lift(attempt, until_s)
        if self._shared is None:
            return lifted, []
        try:
            self._shared.change(attempt, lambda known: known.with_lift(attempt, until_s, up_to_s=math.inf))
        except ClusterSilent as error:
            return lifted, _notes(error)
        return lifted, []

    def give_first_weight(self, attempt: Attempt, at_s: float) -> bool:
        """See `Kept.give_first_weight`; no replica gives it after another."""
        if not self._kept.give_first_weight(attempt, at_s):
            return False
        if self._shared is None:
            return True
        try:
            return self._shared.change(attempt, lambda known: known.with_first_weight(attempt, at_s))[1]
        except ClusterSilent as error:
            _notes(error)
            return True

    @property
    def is_shared(self) -> bool:
        """Whether one lift holds for all replicas."""
        return self._shared is not None

    def check(self) -> None:
        """See `Kept`."""
        self._kept.check()

    def failures(self) -> list[Failure]:
        """Those that this replica knows, the newest first."""
        return self._kept.failures()

    def start(self, attempt: Attempt, clock: Callable[[], float]) -> None:
        """A try is under way. Its evidence begins now, or when another replica first heard of it. Raises LedgerError.

        Args:
            clock: the metric store's; what it raises is raised.
        """
        began_s = self._begun(self._shared, attempt, clock) if self._shared else None
        if began_s is not None:
            if not self._kept.is_newest(attempt) or (self._kept.started_s(attempt) or -math.inf) < began_s:
                self._kept.begin(attempt, began_s)
        elif not self._kept.is_newest(attempt):
            self._kept.start(attempt, clock())

    def started_s(self, attempt: Attempt) -> float | None:
        """See `Kept`."""
        return self._kept.started_s(attempt)

    def _begun(self, shared: SharedMap, attempt: Attempt, clock: Callable[[], float]) -> float | None:
        """When all replicas take a try to have begun; None: they cannot be asked."""
        try:
            known, now_s = shared.read(attempt), self._now_s()
            if (began_s := known.began_s(attempt, now_s=now_s)) is not None:
                return began_s
            is_first = self._kept.is_newest(attempt) and not known.has_starts(attempt, now_s=now_s)
            own_s = self._kept.started_s(attempt) if is_first else None
            told_s = clock() if own_s is None else own_s
            known, _ = shared.change(attempt, lambda tries: tries.with_start(attempt, told_s))
            return known.began_s(attempt, now_s=max(now_s, told_s))
        except ClusterSilent as error:
            _notes(error)
            return None

    def _agreed(
        self, shared: SharedMap, attempt: Attempt, own: Failure | None, report: str
    ) -> tuple[Failure | None, list[str]]:
        """Take over what another replica found or was told, and share what it does not know.

        Only a lift that was written down lifts: when a try began says nothing about who let it.
        """
        known, notes = shared.read(attempt), []
        lifted_s, shared_s = self._kept.lifted_s(attempt), known.lifted_s(attempt)
        if shared_s > lifted_s:
            notes += self._ahead(shared_s, "lifted")
            if not notes:
                self._kept.lift(attempt, shared_s)
                lifted_s, own = shared_s, self._kept.failure(attempt)
        elif lifted_s > shared_s:  # lifted here while the cluster was silent
            shared.change(attempt, lambda tries: tries.with_lift(attempt, lifted_s, up_to_s=lifted_s))
        failed = known.failure(attempt, after_s=lifted_s)
        if failed and failed.failed_s is not None and not own:
            if ahead := self._ahead(failed.failed_s, "failed"):
                return None, [*notes, *ahead]
            own = Failure(attempt, failed.failed_s, _answer(failed, report))
            self._kept.keep(own)
        elif own and not failed:
            self._tell(shared, own)
        return own, notes

    def _ahead(self, at_s: float, what: str) -> list[str]:
        """Why a time in the ConfigMap is not believed; nothing: it is past."""
        if at_s <= (now_s := self._now_s()) + AHEAD_S:
            return []
        log.warning("time_ahead", what=what, at_s=at_s, now_s=now_s)
        far = span(at_s - now_s)
        what_is = f"the ConfigMap {CONFIG_MAP} says that the version is {what} at {at_s:.0f}"
        return [f"{what_is}, {far} ahead of Prometheus's clock: it is not believed; lift the version"]

    def _tell(self, shared: SharedMap, failure: Failure) -> None:
        said, lifted_s = failure.answer, self._kept.lifted_s(failure.attempt)
        found = Shared(failed_s=failure.at_s, reason=said["reason"], since=said["since"])

        def told(known: Tries) -> Tries:
            return known.with_failure(failure.attempt, found, after_s=lifted_s)

        shared.change(failure.attempt, told)


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


def _notes(error: ClusterSilent) -> list[str]:
    log.warning("not_shared", error=error.what, saw=error.saw, do=error.do)
    return [f"{error.what}: {error.saw}; {error.do}"[:_LONGEST_NOTE]]
