"""What a release takes over from the one before it of the same two versions."""

from collections.abc import Sequence

from rollout.judge import Verdict
from rollout.judge.carried import carried, still_about_the_same
from rollout.ledger.events import EarlierTry, Event, Promoted, ReleaseRequested, Ticked
from rollout.spec import RolloutSpec


def earlier_try(events: Sequence[Event], last: Ticked | None, spec: RolloutSpec) -> EarlierTry | None:
    """What the next release must know of an earlier one; None where that is nothing.

    Evidence is carried on where nobody has drawn a conclusion from it. A FAIL is one: whoever tries the same version
    again says that the cause was elsewhere, and that is theirs to say. So is a promotion.

    Args:
        events: of the earlier release, oldest first; its ticks may be missing.
        last: its last tick; None where there was none. In a warm-up nothing was judged.
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
