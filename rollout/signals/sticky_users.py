"""Which users the failures of a sticky release affected: each user counts once, for both versions together.

A hash keeps a user on one side, so a user whose requests keep failing is one event, not many. Counted request by
request, a few such users cause up to a quarter of harmless canaries to be rolled back (docs/benchmarks/noise.md).
Therefore only a user's first failure in the release may FAIL a canary; it counts for the version that failed. A user
whose first failure was on stable does not count again when the canary fails: if each version counted separately, a
ramp would move such users over and make the canary look harmful. For PASS every failure counts, because each is harm,
but tempered by the dispersion of failures over stable's users (`phi`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from rollout.judge import Pair, Window, user_dispersion
from rollout.signals.catalogue import AFFECTED_USERS


@dataclass(frozen=True, slots=True)
class UserFailure:
    """One failed request of a sticky release."""

    at_s: float  # when it was answered, Unix seconds
    version: str  # tag of the version that failed
    user: bytes | None  # a key of the user, never the name; None: the request named no user


@dataclass(frozen=True, slots=True)
class Progress:
    """The state in the ledger, so that a restarted controller counts no user twice."""

    offset: int = 0  # position up to which the log of failures was read
    waiting: tuple[int, int] = (0, 0)  # see `AffectedUsers.window`; on stable and canary
    failures_on_stable: Mapping[bytes, int] = field(default_factory=dict)  # of every user affected so far


class AffectedUsers:
    """The users that one release affected. Memory grows with the number of users, not of failures."""

    def __init__(self, *, stable: str, canary: str, since_s: float = 0.0, progress: Progress | None = None) -> None:
        """
        Args:
            stable: tag of one side.
            canary: tag of the other.
            since_s: failures up to this Unix time do not count.
            progress: the progress of an earlier controller in this release.
        """
        known = progress or Progress()
        self.offset = known.offset
        self._stable, self._canary, self._since_s = stable, canary, since_s
        self._waiting = dict(zip((stable, canary), known.waiting, strict=True))
        self._failures_on_stable = dict(known.failures_on_stable)
        self._changed: dict[bytes, int] = {}

    @property
    def phi(self) -> float:
        """Dispersion of the failures over stable's users, for PASS. It grows while users repeat their failures.

        It is measured on requests that name a user; requests that name none are assumed to be as noisy.
        """
        return user_dispersion(self._failures_on_stable.values())

    def skip(self, until_s: float) -> None:
        """Ignore failures up to `until_s`, Unix seconds."""
        self._since_s = until_s
        self._waiting = dict.fromkeys(self._waiting, 0)

    def wall_clock_jumped(self, by_s: float) -> None:
        """Shift the times that are kept by `by_s` seconds, after the wall clock was set."""
        self._since_s += by_s

    def window(self, errors: Window, failures: Iterable[UserFailure], offset: int) -> Window:
        """The evidence of one window: the requests of `errors`, bad where they were the first failure of their user.

        A failure may be known before its request is counted, or after it. Where a version has more new failures than
        requests, the rest waits for its next window.

        Args:
            failures: read from the log, together with `offset`.
        """
        for failure in failures:
            self._note(failure)
        self.offset = offset
        return replace(
            errors,
            signal=AFFECTED_USERS,
            stable=self._charge(self._stable, errors.stable),
            canary=self._charge(self._canary, errors.canary),
        )

    def shadow_window(self, errors: Window, offset: int) -> Window:
        """The evidence of a window in which the canary got a copy of every request: every failure counts.

        Both versions then have the same users, so users cannot be split unluckily. Copies are not in the log.
        """
        self.skip(errors.end_s)
        self.offset = offset
        return replace(errors, signal=AFFECTED_USERS)

    def progress(self) -> Progress:
        """The state to store in the ledger, with only the users that changed since `saved` was called."""
        waiting = self._waiting[self._stable], self._waiting[self._canary]
        return Progress(self.offset, waiting, dict(self._changed))

    def saved(self) -> None:
        """Note that the last `progress` is stored in the ledger."""
        self._changed.clear()

    def _note(self, failure: UserFailure) -> None:
        if failure.at_s <= self._since_s or failure.version not in self._waiting:
            return
        if failure.user is None:  # routed at random, so each request counts on its own
            self._waiting[failure.version] += 1
            return
        before = self._failures_on_stable.get(failure.user)
        if before is None:
            self._waiting[failure.version] += 1
        now = (before or 0) + (failure.version == self._stable)
        if now != before:
            self._failures_on_stable[failure.user] = self._changed[failure.user] = now

    def _charge(self, version: str, requests: Pair) -> Pair:
        charged = min(self._waiting[version], requests.total)
        self._waiting[version] -= charged
        return Pair(charged, requests.total)
