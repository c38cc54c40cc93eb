"""What a person should do next about a release. Pure; part of what `explain.py` says."""

from rollout.state import Phase
from rollout.view import ReleaseView

_BY_SIGNAL = {
    "errors": "Find the failed requests in the canary's log (`x-request-id`), mend the cause, build a new version.",
    "affected_users": "Find these users' failed requests in the canary's log (`x-request-id`), and what they share.",
    "watched_errors": "Find what changed after promotion: its load, its inputs or what it depends on. Its log knows.",
    "latency": "Load the version alone and compare its answer times with stable's before the next try.",
    "low_confidence": "Look at the inputs it is unsure of: weights or preprocessing may not be those of training.",
    "wrong_label": "Evaluate it on the newest labelled inputs: there it is worse than stable.",
    "disagreement": "Compare its answers with stable's on the same inputs. Where its own are right, allow it more: "
    "`signals.disagreement.at_most`.",
    "canary_down": "Read the last lines of its log: its process ended, or stopped answering.",
    "startup": "Start it alone (`bentoml serve`) and read what it says.",
    "drift": "Open its drift report (`kanaria drift report --release N`): a better model may differ too; then leave "
    "`on_drift: report`.",
    "preflight": "Run `kanaria preflight` on it until it passes: what differs from its golden requests or from stable?",
    "guard": "Read the canary's log: so many failures are too many whatever stable does.",
    "deadline": "Proof needs requests: next time more traffic, a longer `step_deadline` or a larger `risk_budget`.",
}


def advice(release: ReleaseView) -> tuple[str, ...]:
    """The next steps, most urgent first."""
    canary, stable = release.canary, release.stable
    match release.state.outcome:
        case "rolled_back":
            quarantine = f"{canary} is in quarantine and does not come back by itself."
            return (*_about_the_signal(release), f"{quarantine} To try it again: `kanaria retry {canary}`.")
        case "aborted":
            return (f"{canary} is not in quarantine. To try it again: `kanaria release {canary}`.",)
        case "promoted" if release.state.phase is Phase.WATCHING:
            return (f"Nothing. While {stable} is warm, `kanaria rollback` returns to it at once.",)
        case "promoted":
            return (f"Nothing. To go back: `kanaria release {stable}`.",)
    return ("Nothing, unless you want to: `kanaria pause`, `kanaria promote` or `kanaria abort`.",)


def _about_the_signal(release: ReleaseView) -> tuple[str, ...]:
    family, _, label = (release.state.outcome_signal or "").partition(":")
    if family == "class" and release.accusation:
        record = release.accusation.record
        if record.canary[0] * record.stable[1] < record.stable[0] * record.canary[1]:
            return (f'Try it on inputs that {release.stable} answers with "{label}": it misses them.',)
        return (f'Look at the inputs that it answers with "{label}": {release.stable} answers many of them otherwise.',)
    return (_BY_SIGNAL[family],) if family in _BY_SIGNAL else ()
