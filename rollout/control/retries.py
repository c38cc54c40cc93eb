"""What a release takes over from the previous release of the same two versions."""

from collections.abc import Sequence

from rollout.judge import Verdict
from rollout.judge.carried import carried, still_about_the_same
from rollout.ledger.events import EarlierTry, Event, Promoted, ReleaseRequested, Ticked
from rollout.spec import RolloutSpec


def earlier_try(events: Sequence[Event], last: Ticked | None, spec: RolloutSpec) -> EarlierTry | None:
    """What the next release takes over from an earlier one; None: nothing.

    Evidence carries over only if no conclusion was drawn from it. A FAIL is a conclusion: a person who tries the same
    version again decides that the cause was elsewhere. A promotion is a conclusion as well.

    Args:
        events: events of the earlier release, oldest first; its ticks may be missing.
        last: its last tick; None: there was none. In a warm-up nothing was judged.
        spec: the plan of the next release.
    """
    requested = events[0] if events else None
    if not isinstance(requested, ReleaseRequested) or any(isinstance(event, Promoted) for event in events):
        return None
    before = requested.earlier
    if last is None or not any(signal.canary.total for signal in last.evidence.signals.values()):
        return before
    judgement, number = last.evidence, requested.release or 0
    if judgement.verdict is Verdict.FAIL:
        return EarlierTry(release=number, log_e=judgement.decisive_log_e, has_failed=True)
    won = carried(judgement, before.carried if before else {})
    won = still_about_the_same(won, spec.judge_config().rules, requested.spec.judge_config().rules)
    return EarlierTry(release=number, log_e=judgement.log_e, carried=won) if won else None
