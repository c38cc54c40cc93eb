"""What a person should do next about a release."""

from rollout.explain.asked import by_itself
from rollout.explain.timeline import FailedSignal, Timeline
from rollout.ledger.state import Phase

_WITHOUT_A_SIGNAL = {  # by the cause of the rollback
    "canary_down": "Read the last lines of its log: its process ended or stopped answering.",
    "startup": "Start it alone (`bentoml serve`) and read its output.",
    "drift": "Open its drift report (`kanaria drift report --release N`). A better model may differ too: if this one "
    "is better, set `on_drift: report`.",
    "preflight": "Fix what differs from its golden requests or from stable, until `kanaria preflight` passes. If a "
    "service of your own is meant to lose something, allow it with `may_break` in the plan.",
    "guard": "Read the canary's log: it fails more often than the guard allows, whatever stable does.",
    "deadline": "Proof needs requests: next time use more traffic, a longer `step_deadline` or a larger `risk_budget`.",
}


def advice(release: Timeline) -> tuple[str, ...]:
    """The next steps, most urgent first."""
    canary, stable, restore = release.canary, release.stable, release.state.restore
    if release.state.asked:
        ways = "`kanaria promote`, `kanaria rollback` or `kanaria abort`"
        if release.state.phase is Phase.WATCHING:
            ways = f"`kanaria rollback` returns to {stable}, `kanaria promote` ends the watch"
        return (f"Decide: {ways}.", by_itself(release.state))
    match release.state.outcome:
        case "rolled_back" | "aborted" if restore and not release.state.is_quarantined:
            again = f"{canary} is not in quarantine. To try it again: `kanaria restore {canary}`."
            anyway = (
                f"If that is the lesser harm: `kanaria restore {canary} --anyway` gives it the traffic nevertheless."
            )
            is_refused = release.state.outcome_signal == "preflight"
            return (*_about_the_signal(release), again, *((anyway,) if is_refused else ()))
        case "rolled_back" if not release.state.is_quarantined and release.state.outcome_signal == "person":
            return (f"{canary} is not in quarantine. To try it again: `kanaria release {canary}`.",)
        case "rolled_back" if not release.state.is_quarantined:
            again = f"It was only warming up, so {canary} is not in quarantine."
            return (*_about_the_signal(release), f"{again} To try it again: `kanaria release {canary}`.")
        case "rolled_back":
            quarantine = f"{canary} is in quarantine and does not come back by itself."
            return (*_about_the_signal(release), f"{quarantine} To try it again: `kanaria retry {canary}`.")
        case "aborted":
            return (f"{canary} is not in quarantine. To try it again: `kanaria release {canary}`.",)
        case "promoted" if release.state.phase is Phase.WATCHING:
            return (f"Nothing. While {stable} is warm, `kanaria rollback` returns to it at once.",)
        case "promoted":
            return (
                f"Nothing. {stable} is in quarantine; to put it on trial again: `kanaria retry {stable}`."
                if restore and restore.quarantine
                else f"Nothing. To go back in one command: `kanaria restore {stable}`.",
            )
    if release.state.is_paused:
        return ("`kanaria resume` lets it go on, `kanaria abort` ends it.",)
    if restore:
        return ("Nothing: it takes all traffic as soon as it is ready. To stop that: `kanaria abort`.",)
    if release.state.phase is Phase.STARTING:
        return ("Nothing, unless you want to: `kanaria pause` or `kanaria abort`.",)
    unless = "Nothing else, unless you want to: `kanaria pause`, `kanaria promote` or `kanaria abort`."
    if release.refused:
        return (f"Check its callers: {release.refused}.", unless)
    if release.judgements and not release.has_requests:
        return ("Send requests: none was counted. `kanaria loadtest demo` sends some.", unless)
    return (unless.replace("Nothing else", "Nothing"),)


def _about_the_signal(release: Timeline) -> tuple[str, ...]:
    signal, failed_signal = release.state.outcome_signal or "", release.failed_signal
    row = release.spec.signals.row(signal)
    if signal == "deadline" and release.end and release.end.evidence:  # a person may not have decided on proven harm
        failed = release.end.evidence.failed_signal or signal
        row = release.spec.signals.row(failed)
        signal = failed if row else signal
    key = signal.partition(":")[2]
    if row is None:
        return (_WITHOUT_A_SIGNAL[signal],) if signal in _WITHOUT_A_SIGNAL else ()
    has_fewer = failed_signal is not None and _has_fewer(failed_signal)
    text = row.advice_if_fewer if has_fewer and row.advice_if_fewer else row.advice
    return (text.format(key=key, stable=release.stable),)


def _has_fewer(failed_signal: FailedSignal) -> bool:
    """Whether the canary has a smaller share of bad events than stable."""
    canary, stable = failed_signal.judged.canary, failed_signal.judged.stable
    return canary.bad * stable.total < stable.bad * canary.total
