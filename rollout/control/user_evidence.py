"""Reads which users' requests failed while callers are sticky, and adds the affected users to each window's evidence.

It connects the data plane's log of failures with `sticky_users.AffectedUsers`, which does the counting. Where no users
are counted, the log is kept empty.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rollout.judge import Window
from rollout.ledger.state import Phase, Release
from rollout.routers.router import FailureLog
from rollout.signals.sticky_users import AffectedUsers, Progress, UserFailure


@dataclass(frozen=True, slots=True)
class FailuresRead:
    """The result of reading the log once."""

    failures: Sequence[UserFailure]
    offset: int  # where to continue reading


class UserEvidence:
    """The users that the present release affected; none where its callers are not sticky."""

    def __init__(self, log: FailureLog) -> None:
        self._log = log
        self._affected: AffectedUsers | None = None
        self._read: FailuresRead | None = None  # None: no users are counted

    def begin(self, release: Release, *, since_s: float, known: Progress | None = None) -> None:
        """Start counting for `release`.

        Args:
            since_s: failures up to this Unix time do not count.
            known: the progress of an earlier controller.
        """
        self._affected = None
        if release.spec.sticky is not None:
            self._affected = AffectedUsers(
                stable=release.stable, canary=release.canary, since_s=since_s, progress=known
            )

    @property
    def phi(self) -> float | None:
        """Dispersion of the errors over stable's users; None where callers are not sticky."""
        return self._affected.phi if self._affected else None

    def read(self, release: Release | None) -> None:
        """Read the failures that no window has counted yet. Raises SourceUnreachable."""
        self._read = None
        is_compared = release is not None and (release.phase is Phase.STEPPING or release.held_back_percent > 0)
        if self._affected is None or not is_compared:
            self._log.clear()
        else:
            self._read = FailuresRead(*self._log.read(self._affected.offset))

    def skip(self, until_s: float) -> None:
        """Ignore failures up to `until_s`, Unix seconds: their window is dropped."""
        if self._affected:
            self._affected.skip(until_s)

    def wall_clock_jumped(self, by_s: float) -> None:
        """Shift the times that are kept by `by_s` seconds, after the wall clock was set."""
        if self._affected:
            self._affected.wall_clock_jumped(by_s)

    def windows(self, new: Sequence[Window], *, is_mirrored: bool) -> list[Window]:
        """The window of affected users for the errors among `new`; none where no users are counted.

        It counts the failures of the last `read`.
        """
        affected, read = self._affected, self._read
        if affected is None or read is None:
            return []
        return [
            affected.shadow_window(errors, read.offset)
            if is_mirrored
            else affected.window(errors, read.failures, read.offset)
            for errors in new
            if errors.signal == "errors"
        ]

    def progress(self) -> Progress | None:
        """The state to store in the ledger with the window; None where no users are counted."""
        return self._affected.progress() if self._affected else None

    def saved(self) -> None:
        """Note that the last `progress` is stored in the ledger: the log up to there can be deleted."""
        if self._affected:
            self._affected.saved()
            self._affected.offset = self._log.trim(self._affected.offset)
