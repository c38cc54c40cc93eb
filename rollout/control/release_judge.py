"""Judges one release from its first window to the end of its watch.

While both versions have traffic, the canary is compared with stable; once it has all of it, with earlier failures
(`after_promotion`). Windows in which the canary warms up are left out by a rule that does not depend on their counts,
so the judge's guarantees hold for the windows that follow.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from rollout.control.after_promotion import RecentFailures, Watch
from rollout.control.exposure import Exposure
from rollout.control.next_weight import asked_weight
from rollout.control.shadow import later_weights
from rollout.judge import Judgement, Verdict, Window
from rollout.judge.judge import Judge
from rollout.ledger.events import Calibrated, Event, Ticked
from rollout.ledger.state import Deployment, Phase, Release, apply


class ReleaseJudge:
    """Judges one release. The same windows, in the same states of the release, give the same judgements."""

    def __init__(self, release: Release) -> None:
        """
        Args:
            release: must be calibrated.
        """
        config = release.judge_config()
        self._judged = config.rules.keys()
        self._exposure, self._least_upper = Exposure(), 1.0
        self._compared = Judge(
            config,
            release.noise,
            {"errors": release.stable_errors},
            carried=release.carried,
            steps=Exposure.known_before(release),
        )
        self._promoted: Judge | None = None
        self._watch: Watch | None = None
        self._recent = RecentFailures()
        self._weight: tuple[float, bool] | None = None  # of the last windows: percent, and whether it mirrors

    def observe(self, release: Release, windows: Sequence[Window]) -> None:
        """Add the windows of one tick; `release` is the state during the tick. Some windows are not evidence."""
        self._follow_weight(release)
        if release.phase is Phase.STEPPING:
            self._exposure.observe(windows, mirror=release.mirror)
            if not release.is_warming_up:
                self._compared.observe(self._of_judge(release, windows))
                if release.spec.risk_budget.requests is not None:
                    self._least_upper = min(self._least_upper, self._compared.excess_upper())
        if release.phase is Phase.WATCHING and release.held_back_percent:
            # A new judge, because the good record of the steps would make it slow to find harm that begins now.
            self._promoted = self._promoted or Judge(
                release.spec.judge_config(),
                release.noise,
                {"errors": release.stable_errors},
                is_better=self._compared.is_better,
            )
            self._promoted.observe(self._of_judge(release, windows))
        is_alone = release.live_percent == 100
        if is_alone:
            self._watch = self._watch or Watch.of(release)
            self._watch.observe(windows, self._recent)
        self._recent.add(windows, is_alone=is_alone)

    def _of_judge(self, release: Release, windows: Iterable[Window]) -> Iterator[Window]:
        """The windows that are evidence; if callers are sticky, what one caller can cause counts only in copies."""
        unfair = () if release.spec.sticky is None or release.mirror else release.spec.signals.of_callers
        families = self._judged - set(unfair)
        return (window for window in windows if window.signal.partition(":")[0] in families)

    def _follow_weight(self, release: Release) -> None:
        weight = release.weight_percent, release.mirror
        if weight != self._weight:
            self._compared.weight_changed()
            if self._watch:
                self._watch.weight_changed()
        self._weight = weight

    def temper_pass(self, pass_phi: Mapping[str, float]) -> None:
        """See `Judge.temper_pass`."""
        self._compared.temper_pass(pass_phi)

    @property
    def is_better(self) -> bool:
        """Whether labels have proven the canary better, in the steps or in the watch."""
        return self._compared.is_better or (self._promoted is not None and self._promoted.is_better)

    def judgement(self, release: Release) -> Judgement | None:
        """The judgement on all windows so far, for the next step of `release`; None where nothing is judged."""
        alone = self._watch.judgement() if self._watch else None
        if alone and alone.verdict is Verdict.FAIL:
            return alone
        if release.phase is Phase.WATCHING:
            return self._promoted.judgement(next_weight=None) if self._promoted else alone
        if release.phase is not Phase.STEPPING:
            return None
        weight, exposure = asked_weight(release), self._exposure
        judgement = self._compared.judgement(
            next_weight=weight,
            expected=release.spec.expected(has_pairs=release.has_pairs),
            requests=exposure.after(release.spec, [weight or 0.0]),
            later=exposure.of_steps(release.spec, later_weights(release)),
        )
        if release.spec.risk_budget.requests is None:
            return judgement
        return replace(judgement, answered=exposure.requests, least_upper=self._least_upper)


def replayed(events: Iterable[Event]) -> ReleaseJudge | None:
    """A judge that has seen every window of a release in the ledger, each in the state that the release had then.

    Args:
        events: events of this release only, oldest first.

    Returns: the judge; None: the release was not calibrated yet.
    """
    judge, deployment = None, Deployment()
    for event in events:
        if judge and deployment.release and isinstance(event, Ticked):
            judge.observe(deployment.release, event.windows)
        deployment = apply(deployment, event)
        if deployment.release and isinstance(event, Calibrated):
            judge = ReleaseJudge(deployment.release)
    return judge
