"""The events for a measurement and for the decision based on it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

from rollout.control.decide import Action, EndWatch, EnterStep, Hold, Promote, Rollback
from rollout.control.measure import Measurement
from rollout.judge import Judgement, Window
from rollout.ledger import events as e
from rollout.ledger.state import Phase, Release


@dataclass(frozen=True, slots=True)
class Tick:
    """A measurement that was judged."""

    measured: Measurement
    windows: Sequence[Window]  # the windows to store in the ledger
    judgement: Judgement


def ticked(release: Release, tick: Tick, action: Action, *, user_phi: float | None) -> e.Ticked:
    """The event from which a restarted controller continues after this measurement.

    Args:
        user_phi: dispersion of the errors over stable's users; None: callers are not sticky.
    """
    return e.Ticked(
        at_s=tick.measured.at_s,
        release=release.number,
        window_s=tick.measured.window_s,
        weight_percent=release.live_percent,
        mirror=release.mirror,
        windows=tuple(tick.windows),
        evidence=tick.judgement,
        user_phi=user_phi,
        action=type(action).__name__,
        why=action.reason,
    )


def is_safe(release: Release, action: Action) -> bool:
    """Whether `action` does not increase the canary's weight: it is carried out even before it is written."""
    return is_return(release, action) or isinstance(action, Hold | Rollback)


def is_return(release: Release, action: Action) -> bool:
    """Whether `action` lowers the weight because there is no evidence."""
    return isinstance(action, EnterStep) and action.weight_percent < release.weight_percent


def decision(
    release: Release,
    action: Action,
    judgement: Judgement | None,
    now_s: float,
    *,
    took_s: float,
    calibrated: Callable[[], e.Calibrated],
) -> tuple[e.Event, ...]:
    """The events of a decision, with its evidence; none where nothing was decided.

    Args:
        now_s: Unix seconds.
        took_s: since the release was requested, seconds.
        calibrated: called once, when the canary gets its first requests.
    """
    number = release.number
    ready: tuple[e.Event, ...] = ()
    if release.phase is Phase.STARTING and isinstance(action, EnterStep | Promote):
        ready = e.CanaryReady(at_s=now_s, release=number, took_s=took_s), calibrated()
    match action:
        case Hold():
            return ()
        case EnterStep(step=step, weight_percent=weight, mirror=mirror, reason=reason):
            entered = e.StepEntered(
                at_s=now_s,
                release=number,
                step=step,
                weight_percent=weight,
                mirror=mirror,
                reason=reason,
                by="controller" if is_return(release, action) else "judge",
                evidence=None if is_return(release, action) else judgement,
            )
            return (*ready, entered)
        case Promote(reason=reason):
            by = release.by if release.restore else "judge"
            return (*ready, e.Promoted(at_s=now_s, release=number, reason=reason, by=by, evidence=judgement))
        case Rollback(signal=signal, reason=reason):
            return (e.RolledBack(at_s=now_s, release=number, signal=signal, reason=reason, evidence=judgement),)
        case EndWatch():
            return (e.Ended(at_s=now_s, release=number, outcome="promoted"),)
    assert_never(action)
