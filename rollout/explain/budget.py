"""A plan's budget in requests: how many users' requests may have been harmed so far."""

from rollout.explain.timeline import Timeline
from rollout.format import at_most, certainty, count


def budget_sentence(release: Timeline) -> str | None:
    """The bound of the last judgement before promotion, as a sentence; None for a plan without such a budget."""
    allowed = release.spec.risk_budget.requests
    if allowed is None:
        return None
    bounds = (judgement.harmed_upper() for _, judgement in reversed(release.judgements))
    bound = next((bound for bound in bounds if bound is not None), None)
    if bound is None:
        return None
    sure = certainty(release.state.judge_config().alpha_pass)
    harmed = f"With {sure} certainty {at_most(bound)} of users' requests were harmed"
    return f"{harmed}; the plan allows {count(allowed)} until promotion."
