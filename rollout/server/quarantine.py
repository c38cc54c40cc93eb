"""The versions that failed and must not return: stored by this replica, and shared with others if its rights allow."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from rollout.errors import LedgerError
from rollout.format import span
from rollout.judge import Verdict
from rollout.server.kept import Attempt, Failure, Kept
from rollout.server.shared import AHEAD_S, Shared, Tries
from rollout.server.shared_map import CONFIG_MAP, ClusterSilent, SharedMap, Told

log = structlog.get_logger()

_LONGEST_NOTE = 300
_FAR_S = 10 * 365.25 * 86400.0  # no clock is that wrong: a person must have written such a time
_NO_ROOM = (
    f"the other replicas do not know this: the ConfigMap {CONFIG_MAP} has no room for it, because others wrote too "
    "much into it, or newer entries fill it"
)


@dataclass(slots=True)
class Seen:
    """What replicas share about a release, read once per answer so that all its parts use the same state."""

    known: Tries | None  # None: nothing is shared, or the cluster did not answer
    notes: tuple[str, ...] = ()  # information about that for a person


class Quarantine:
    """What one replica stores, and what all share. A verdict never depends on the cluster's answer.

    Args:
        kept: this replica's store.
        shared: the shared store; None: each replica finds everything by itself.
        now_s: the metric store's clock, Unix seconds; raises nothing.
    """

    def __init__(self, kept: Kept, shared: SharedMap | None = None, *, now_s: Callable[[], float]) -> None:
        self._kept, self._shared, self._now_s = kept, shared, now_s

    def look(self, attempt: Attempt) -> Seen:
        """Read the shared state."""
        if self._shared is None:
            return Seen(None)
        try:
            return Seen(self._shared.read(attempt))
        except ClusterSilent as error:
            return Seen(None, tuple(_notes(error)))

    def failure(self, attempt: Attempt, report: str, seen: Seen | None = None) -> tuple[Failure | None, list[str]]:
        """The failure that keeps an attempt in quarantine, and notes for a person. Raises LedgerError.

        Args:
            report: URL of the page about it.
            seen: the shared state that this answer has read; None: not read yet.
        """
        own, seen = self._kept.failure(attempt), seen or self.look(attempt)
        if self._shared is None or seen.known is None:
            return own, [*seen.notes]
        found, notes = self._agreed(seen.known, attempt, own, report)
        try:
            return found, notes + self._catch_up(self._shared, seen, attempt, found)
        except ClusterSilent as error:
            return found, notes + _notes(error)

    def keep(self, failure: Failure) -> list[str]:
        """Store a failure, and return notes. A FAIL is answered even if it cannot be stored, from the samples alone."""
        try:
            self._kept.keep(failure)
        except LedgerError as error:
            _not_kept(error)
        if self._shared is None:
            return []
        try:
            return self._tell(self._shared, failure, self._kept.lifted_s(failure.attempt))
        except ClusterSilent as error:
            return _notes(error)

    def lift(self, attempt: Attempt, at_s: float) -> tuple[int, list[str]]:
        """As `Kept.lift`, with notes for a person. It lifts all failures that are known now."""
        until_s = max([at_s, *(each.at_s for each in self._kept.failures_of(attempt.names))])
        lifted = self._kept.lift(attempt, until_s)
        if self._shared is None:
            return lifted, []
        try:
            _, told = self._shared.change(attempt, lambda known: known.with_lift(attempt, until_s, up_to_s=math.inf))
        except ClusterSilent as error:
            return lifted, _notes(error)
        return lifted, _room(told)

    def give_first_weight(self, attempt: Attempt, at_s: float) -> bool:
        """As `Kept.give_first_weight`. If replicas can share, only one of them gives it."""
        if not self._kept.give_first_weight(attempt, at_s):
            return False
        if self._shared is None:
            return True
        try:
            _, told = self._shared.change(attempt, lambda known: known.with_first_weight(attempt, at_s))
        except ClusterSilent as error:
            _notes(error)
            return True
        if told is Told.KNOWN:
            self._kept.take_first_weight_back(attempt)  # another replica gave it, so this one must not take it back
            return False
        _room(told)
        return True

    def take_first_weight_back(self, attempt: Attempt) -> None:
        """Undo this replica's permission, because it was not received: any replica may give it. Raises LedgerError."""
        self._kept.take_first_weight_back(attempt)
        if self._shared is None:
            return
        try:
            self._shared.change(attempt, lambda known: known.without_first_weight(attempt))
        except ClusterSilent as error:
            _notes(error)

    @property
    def is_shared(self) -> bool:
        """Whether one lift holds for all replicas."""
        return self._shared is not None

    def check(self) -> None:
        """See `Kept`."""
        self._kept.check()

    def count(self) -> int:
        """The failures that this replica knows, including those that other replicas have lifted since."""
        return self._kept.count()

    def failures(self, *, most: int = -1) -> list[Failure]:
        """The failures that this replica knows and that no replica has lifted, newest first. Raises LedgerError.

        Args:
            most: how many of this replica's failures are checked; -1: all.
        """
        return self._unlifted(self._kept.failures(most=most))

    def failures_of(self, names: tuple[str, str, str]) -> list[Failure]:
        """The same for one version."""
        return self._unlifted(self._kept.failures_of(names))

    def _unlifted(self, own: list[Failure]) -> list[Failure]:
        if self._shared is None or not own:
            return own
        try:
            lifts = self._shared.lifts(each.attempt for each in own)
        except ClusterSilent as error:
            _notes(error)
            return own
        until_s = {attempt: at_s for attempt, at_s in lifts.items() if not self._is_ahead(at_s)}
        return [each for each in own if each.at_s > until_s.get(each.attempt, -math.inf)]

    def start(self, attempt: Attempt, clock: Callable[[], float], seen: Seen | None = None) -> None:
        """Store that a try runs. Its evidence starts now, or when another replica first saw it. Raises LedgerError.

        Args:
            clock: the metric store's clock; its exceptions pass through.
            seen: the shared state that this answer has read; None: not read yet.
        """
        began_s = self._begun(self._shared, seen or self.look(attempt), attempt, clock) if self._shared else None
        if began_s is not None:
            if not self._kept.is_newest(attempt) or (self._kept.started_s(attempt) or -math.inf) < began_s:
                self._kept.begin(attempt, began_s)
        elif not self._kept.is_newest(attempt):
            self._kept.start(attempt, clock())

    def started_s(self, attempt: Attempt) -> float | None:
        """See `Kept`."""
        return self._kept.started_s(attempt)

    def started_anew_s(self, attempt: Attempt) -> float | None:
        """The same, including lifts at other replicas meanwhile. Raises LedgerError."""
        if self._shared is not None:
            try:
                self._take_lift(self._shared.read(attempt), attempt)
            except ClusterSilent as error:
                _notes(error)
        return self._kept.started_s(attempt)

    def _begun(self, shared: SharedMap, seen: Seen, attempt: Attempt, clock: Callable[[], float]) -> float | None:
        """The start of a try on which all replicas agree; None: they cannot be asked."""
        if seen.known is None:
            return None
        try:
            known, now_s = seen.known, self._now_s()
            if (began_s := known.began_s(attempt, now_s=now_s)) is not None:
                return began_s
            is_first = self._kept.is_newest(attempt) and not known.has_starts(attempt, now_s=now_s)
            own_s = self._kept.started_s(attempt) if is_first else None
            told_s = clock() if own_s is None else own_s
            seen.known, _ = shared.change(attempt, lambda tries: tries.with_start(attempt, told_s))
            return seen.known.began_s(attempt, now_s=max(now_s, told_s))
        except ClusterSilent as error:
            _notes(error)
            return None

    def _agreed(
        self, known: Tries, attempt: Attempt, own: Failure | None, report: str
    ) -> tuple[Failure | None, list[str]]:
        """Adopt what another replica found or was told.

        Only a recorded lift lifts a failure: the start of a try does not show that a person allowed it.
        """
        lifted_s, notes = self._take_lift(known, attempt)
        if own and own.at_s <= lifted_s:
            own = None
        failed = known.failure(attempt, after_s=lifted_s)
        if failed and failed.failed_s is not None and not own:
            if ahead := self._ahead(failed.failed_s, "failed"):
                return None, [*notes, *ahead]
            own = Failure(attempt, failed.failed_s, _answer(failed, report))
            try:
                self._kept.keep(own)
            except LedgerError as error:
                _not_kept(error)
        return own, notes

    def _catch_up(self, shared: SharedMap, seen: Seen, attempt: Attempt, failure: Failure | None) -> list[str]:
        """Share what this replica stored while the cluster did not answer. Returns notes for a person."""
        lifted_s, known = self._kept.lifted_s(attempt), seen.known or Tries({})
        if lifted_s > known.lifted_s(attempt):
            seen.known, _ = shared.change(attempt, lambda tries: tries.with_lift(attempt, lifted_s, up_to_s=lifted_s))
        if failure is None:
            self._tell_first_weight(shared, known, attempt)
        elif not known.failure(attempt, after_s=lifted_s):
            return self._tell(shared, failure, lifted_s)
        return []

    def _take_lift(self, known: Tries, attempt: Attempt) -> tuple[float, list[str]]:
        """The time up to which a version is lifted, with other replicas' lifts, and notes on ignored times."""
        lifted_s, shared_s = self._kept.lifted_s(attempt), known.lifted_s(attempt)
        if shared_s <= lifted_s:
            return lifted_s, []
        if ahead := self._ahead(shared_s, "was lifted"):
            return lifted_s, ahead
        try:
            self._kept.lift(attempt, shared_s)
        except LedgerError as error:
            if not known.failure(attempt, after_s=shared_s):
                raise  # otherwise the evidence from before the lift would fail the version again
            _not_kept(error)
        return shared_s, []

    def _is_ahead(self, at_s: float) -> bool:
        """Whether a time in the ConfigMap is too far in the future to be accepted."""
        return at_s > self._now_s() + AHEAD_S

    def _ahead(self, at_s: float, what: str) -> list[str]:
        """The reason why a time in the ConfigMap is not accepted; empty: it is past."""
        if not self._is_ahead(at_s):
            return []
        ahead_s = at_s - self._now_s()
        log.warning("time_ahead", what=what, at_s=at_s, ahead_s=ahead_s)
        far = span(ahead_s) if ahead_s < _FAR_S else "far"
        said = f"the ConfigMap {CONFIG_MAP} says that the version {what} at {at_s:.10g}"
        return [f"{said}, {far} ahead of Prometheus's clock: this is ignored; lift the version"]

    def _tell(self, shared: SharedMap, failure: Failure, lifted_s: float) -> list[str]:
        """Share a failure, unless the version was lifted since it was judged. Returns notes for a person."""
        said = failure.answer
        found = Shared(failed_s=failure.at_s, reason=said["reason"], since=said["since"])

        def told(known: Tries) -> Tries:
            until_s = known.lifted_s(failure.attempt)
            if until_s > lifted_s and not self._is_ahead(until_s):
                return known
            return known.with_failure(failure.attempt, found, after_s=lifted_s)

        return _room(shared.change(failure.attempt, told)[1])

    def _tell_first_weight(self, shared: SharedMap, known: Tries, attempt: Attempt) -> None:
        """Share the first weight that this replica gave while it could not share."""
        given_s = self._kept.first_weight_s(attempt)
        if given_s is None:
            return

        def told(tries: Tries) -> Tries:
            return tries.with_own_first_weight(attempt, given_s, now_s=self._now_s())

        if told(known) is not known:
            shared.change(attempt, told)


def _answer(known: Shared, report: str) -> dict[str, Any]:
    """Another replica's answer, without its evidence."""
    return {
        "verdict": Verdict.FAIL.value,
        "reason": known.reason,
        "since": known.since,
        "signals": {},
        "next": None,
        "report": report,
        "notes": ["another replica found this, and has the evidence"],
    }


def _not_kept(error: LedgerError) -> None:
    log.critical("failure_not_kept", error=error.what, saw=error.saw, do=error.do)


def _room(told: Told) -> list[str]:
    """A note for a person if the ConfigMap is full."""
    if told is not Told.NO_ROOM:
        return []
    log.warning("not_shared", error=_NO_ROOM)
    return [_NO_ROOM]


def _notes(error: ClusterSilent) -> list[str]:
    log.warning("not_shared", error=error.what, saw=error.saw, do=error.do)
    return [f"{error.what}: {error.saw}; {error.do}"[:_LONGEST_NOTE]]
