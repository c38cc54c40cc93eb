"""Judges one release from its first window to the end of its watch. Pure.

The controller and the simulation ask it. While both versions have traffic, the canary is compared with stable; once it
has all of it, with what stable was known to do (`watch`).
"""

from collections.abc import Iterable, Mapping, Sequence

from rollout.decide import asked_weight
from rollout.events import Event, Ticked
from rollout.judge import Judge, Judgement, Verdict, Window
from rollout.records import recorded_windows
from rollout.state import Deployment, Phase, Release, apply
from rollout.watch import watch_judge, watched


class ReleaseJudge:
    """The same windows, in the same states of the release, give the same judgements."""

    def __init__(self, release: Release) -> None:
        """
        Args:
            release: calibrated.
        """
        self._compared = Judge(release.spec.judge_config(), release.phi)
        self._watched: Judge | None = None

    def observe(self, release: Release, windows: Sequence[Window]) -> None:
        """Take in the windows of one tick, in which `release` was as it is now."""
        if release.phase is Phase.STEPPING:
            self._compared.observe(windows)
        if release.weight_percent == 100:
            self._watched = self._watched or watch_judge(release)
            if self._watched:
                self._watched.observe(watched(windows))

    def temper_pass(self, pass_phi: Mapping[str, float]) -> None:
        """See `Judge.temper_pass`."""
        self._compared.temper_pass(pass_phi)

    def judgement(self, release: Release) -> Judgement | None:
        """What all windows so far say about what `release` wants next; None where nothing is judged."""
        if self._watched:
            alone = self._watched.judgement(next_weight=None)
            if alone.verdict is Verdict.FAIL or release.phase is Phase.WATCHING:
                return alone
        if release.phase is not Phase.STEPPING:
            return None
        return self._compared.judgement(next_weight=asked_weight(release), expected=release.spec.expected())


def replayed(calibrated: Release, events: Iterable[Event]) -> ReleaseJudge:
    """A judge that has seen all that the ledger knows of a release, each window in the state of its time.

    Args:
        events: of this release alone, oldest first.
    """
    judge, deployment = ReleaseJudge(calibrated), Deployment()
    for event in events:
        if isinstance(event, Ticked) and deployment.release:
            judge.observe(deployment.release, recorded_windows(event))
        deployment = apply(deployment, event)
    return judge
