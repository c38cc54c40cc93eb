"""What the controller remembers about one release outside the ledger. A new release gets a new object."""

import math
from collections.abc import Iterable

from rollout.control.asking import Asking
from rollout.control.guard import RecentErrors
from rollout.control.preflight import Preflight, PreflightRun
from rollout.control.refusals import Refusals
from rollout.control.release_judge import ReleaseJudge
from rollout.control.user_evidence import UserEvidence
from rollout.fleet import Health
from rollout.judge import Judgement, Window
from rollout.ledger.state import Release
from rollout.routers.router import FailureLog
from rollout.signals.segments import SegmentSearch

_FORGOTTEN_AFTER = 10  # so a canary that is away for a tenth of the time does not count as healthy


class ReleaseRun:
    """The present release, or the time before the first release."""

    def __init__(self, failures: FailureLog, preflight: Preflight | None, *, requested_s: float) -> None:
        """
        Args:
            requested_s: when the release was requested. All times here are seconds on the steady clock.
        """
        self.judge: ReleaseJudge | None = None  # None: the canary was not ready yet
        self.judgement: Judgement | None = None  # the newest judgement that no decision was based on
        self.users = UserEvidence(failures)
        self.lacks_segments = False  # segments cannot be read; this is noted in the ledger
        self.segments = SegmentSearch()
        self.preflight = PreflightRun(preflight)
        self.recent = RecentErrors()
        self.asking = Asking()
        self.refusals = Refusals()
        self.is_blind = False  # the metric source does not answer; this is noted in the ledger
        self.differences = ""  # between the answers of both versions, as last noted in the ledger
        self.was_loading = False  # a version with traffic was loading at some time since the last reading
        self.loaded_since_s = -math.inf  # when such a version was last seen loading
        self.requested_s = requested_s
        self._unready_s = 0.0
        self._canary_seen_s = 0.0
        self._canary = Health.READY  # when it was last seen
        self._canary_ready_s = 0.0  # how long it has answered its probe without a failure
        self._place: tuple[object, ...] = ()  # phase and step
        self._place_since_s = self._seen_s = self._judged_s = requested_s

    def saw_release(self, release: Release, now_s: float) -> None:
        """Remember since when this controller has seen the release in its present step or phase."""
        place = (release.phase, release.step, release.phase_since_s)
        if place != self._place:
            self._place = place
            self._place_since_s = self._seen_s = self._judged_s = now_s

    def in_phase_s(self, now_s: float) -> float:
        """For how long this controller has seen the release in its present step or phase, seconds."""
        return now_s - self._place_since_s

    def is_preparing(self, now_s: float) -> None:
        """Note that the canary's environment is being created: its time to load begins only after that."""
        self._place_since_s = now_s

    def was_judged(self, windows: Iterable[Window], now_s: float) -> None:
        """Note that a measurement was judged, and whether it counted requests of the canary."""
        self._judged_s = now_s
        if any(window.canary.total for window in windows if window.signal == "errors"):
            self._seen_s = now_s

    def unseen_s(self, now_s: float) -> float:
        """For how long no request of the canary was counted in the present step or phase, seconds."""
        return now_s - self._seen_s

    def unjudged_s(self, now_s: float) -> float:
        """For how long nothing was judged in the present step or phase, seconds."""
        return now_s - self._judged_s

    def saw_canary(self, health: Health, now_s: float) -> None:
        """Add up how long the canary has not answered its readiness probe.

        The sum is reset once the canary has answered for `_FORGOTTEN_AFTER` times as long: a canary that comes and goes
        is as bad as one that stays away.
        """
        passed_s, before = now_s - self._canary_seen_s, self._canary
        self._canary, self._canary_seen_s = health, now_s
        if health is not Health.READY:
            self._canary_ready_s = 0.0
            self._unready_s += passed_s if before is not Health.READY else 0.0
            return
        self._canary_ready_s += passed_s if before is Health.READY else 0.0
        if before is Health.STARTING or self._canary_ready_s >= _FORGOTTEN_AFTER * self._unready_s:
            self._unready_s = 0.0  # it was restarted with its machine, or has answered for long enough

    @property
    def unready_s(self) -> float:
        """For how long the canary has not answered its readiness probe, seconds."""
        return self._unready_s
