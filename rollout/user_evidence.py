"""Reads whose requests failed while callers are sticky, and adds the users affected to each window's evidence.

The controller's part between the data plane's log and `affected.AffectedUsers`, which does the counting. Where nobody
is counted, the log is kept empty.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rollout.affected import AffectedUsers, Progress
from rollout.interfaces import FailureLog, UserFailure
from rollout.judge import Window
from rollout.state import Phase, Release


@dataclass(frozen=True, slots=True)
class FailuresRead:
    """What one look at the log gave."""

    failures: Sequence[UserFailure]
    offset: int  # to read on from


class UserEvidence:
    """The users whom the present release affected; nobody where its callers are not sticky."""

    def __init__(self, log: FailureLog) -> None:
        self._log = log
        self._affected: AffectedUsers | None = None

    def begin(self, release: Release, *, since_s: float, known: Progress | None = None) -> None:
        """Count for `release`.

        Args:
            since_s: failures up to then are of no interest, Unix seconds.
            known: what an earlier controller counted.
        """
        self._affected = None
        if release.spec.sticky is not None:
            self._affected = AffectedUsers(
                stable=release.stable, canary=release.canary, since_s=since_s, progress=known
            )

    @property
    def phi(self) -> float | None:
        """Dispersion of the errors over stable's users; None where users are not told apart."""
        return self._affected.phi if self._affected else None

    def read(self, release: Release | None) -> FailuresRead | None:
        """The failures that no window has counted yet; None where nobody is counted. Raises SourceUnreachable."""
        if self._affected is None or release is None or release.phase is not Phase.STEPPING:
            self._log.clear()
            return None
        return FailuresRead(*self._log.read(self._affected.offset))

    def skip(self, until_s: float) -> None:
        """Failures up to then belong to a window that is dropped."""
        if self._affected:
            self._affected.skip(until_s)

    def windows(self, new: Sequence[Window], read: FailuresRead | None, *, is_mirrored: bool) -> list[Window]:
        """The window of affected users that goes with the errors among `new`; none where nobody is counted."""
        affected = self._affected
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
        """What the ledger is to keep with the window; None where nobody is counted."""
        return self._affected.progress() if self._affected else None

    def saved(self) -> None:
        """The last `progress` is in the ledger: what led to it can be forgotten."""
        if self._affected:
            self._affected.saved()
            self._affected.offset = self._log.trim(self._affected.offset)
