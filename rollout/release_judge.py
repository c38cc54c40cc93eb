"""Judges one release from its first window to the end of its watch. Pure.

The controller and the simulation ask it. While both versions have traffic, the canary is compared with stable; once it
has all of it, with what was known before (`watch`).
"""

from collections.abc import Iterable, Mapping, Sequence

from rollout.decide import asked_weight
from rollout.events import Calibrated, Event, Ticked
from rollout.judge import Judge, Judgement, Verdict, Window
from rollout.records import recorded_windows
from rollout.state import Deployment, Phase, Release, apply
from rollout.watch import Lately, Watch


class ReleaseJudge:
    """The same windows, in the same states of the release, give the same judgements."""

    def __init__(self, release: Release) -> None:
        """
        Args:
            release: calibrated.
        """
        self._compared = Judge(release.spec.judge_config(), release.phi, {"errors": release.stable_errors})
        self._watch: Watch | None = None
        self._lately = Lately()

    def observe(self, release: Release, windows: Sequence[Window]) -> None:
        """Take in the windows of one tick, in which `release` was as it is now."""
        if release.phase is Phase.STEPPING:
            self._compared.observe(windows)
        is_alone = release.weight_percent == 100
        if is_alone:
            self._watch = self._watch or Watch(release)
            self._watch.observe(windows, self._lately)
        self._lately.add(windows, is_alone=is_alone)

    def temper_pass(self, pass_phi: Mapping[str, float]) -> None:
        """See `Judge.temper_pass`."""
        self._compared.temper_pass(pass_phi)

    def judgement(self, release: Release) -> Judgement | None:
        """What all windows so far say about what `release` wants next; None where nothing is judged."""
        alone = self._watch.judgement() if self._watch else None
        if alone and (alone.verdict is Verdict.FAIL or release.phase is Phase.WATCHING):
            return alone
        if release.phase is not Phase.STEPPING:
            return None
        expected = release.spec.expected(in_shadow=release.mirror)
        return self._compared.judgement(next_weight=asked_weight(release), expected=expected)


def replayed(events: Iterable[Event]) -> ReleaseJudge | None:
    """A judge that has seen all that the ledger knows of a release, each window in the state of its time.

    Args:
        events: of this release alone, oldest first.

    Returns: None before the release was calibrated.
    """
    judge, deployment = None, Deployment()
    for event in events:
        if judge and deployment.release and isinstance(event, Ticked):
            judge.observe(deployment.release, recorded_windows(event))
        deployment = apply(deployment, event)
        if deployment.release and isinstance(event, Calibrated):
            judge = ReleaseJudge(deployment.release)
    return judge
