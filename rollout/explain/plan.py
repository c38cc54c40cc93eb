"""A plan in plain sentences, so that its author sees what it guarantees and how long it takes."""

from collections.abc import Iterator

from rollout.compare import canary_load
from rollout.format import certainty, count, share, span, weight
from rollout.observe import BY_DEFAULT
from rollout.signals.segments import ABSENT, MOST_SEGMENTS, OTHER
from rollout.spec import AUTO_START_PERCENT, SHADOW, RolloutSpec, SegmentsBy


def plan_in_words(plan: RolloutSpec) -> Iterator[str]:
    """What a release with this plan does, one or two sentences for each part."""
    yield _steps(plan)
    requests = plan.risk_budget.requests
    number = "" if requests is None else f", and at most {count(requests)} users' requests until promotion"
    yield (
        f"At most {share(plan.risk_budget.share)} of all requests may be harmed{number}: the canary gets more traffic "
        f"only when, with {certainty(plan.alpha)} certainty, even the worst case stays within that."
    )
    yield (
        f"The comparison rolls back a harmless version in at most {share(plan.alpha)} of all releases. More than "
        f"{share(plan.guards.error_ratio)} errors end every release, whatever stable does."
    )
    yield _duration(plan)
    yield _watch(plan)
    rules = plan.judge_config().rules
    said = [name for name, rule in rules.items() if rule.numbers and not rule.weight]
    decisive, doubtful = (
        [name for name, rule in rules.items() if (rule.on_fail == "hold") is asks and name not in said]
        for asks in (False, True)
    )
    asked = f"; {', '.join(doubtful)}, about which a person is asked" if doubtful else ""
    only_said = f"; {', '.join(said)}, which is only reported" if said else ""
    yield f"Judged: {', '.join(decisive)}{asked}{only_said}."
    for route, answers in plan.answers.root.items():
        counted = ", ".join(f"{part} `{text}`" for part, text in answers.counted.items())
        ignored = (
            f"; left out of comparisons: {', '.join(f'`{text}`' for text in answers.ignore)}" if answers.ignore else ""
        )
        yield f"Read from answers of {route}: {counted or 'nothing'}{ignored}."
    if plan.answers or plan.compare or plan.observe != BY_DEFAULT:
        yield f"For a service of your own, the observer reads the answers to {plan.observe.words}."
    for name, why in plan.signals.idle_gross().items():
        yield f"However much `{name}` changes, a person is asked and nothing is rolled back because of it: {why}."
    if plan.compare:
        yield _compared(plan)
    if plan.require == "better":
        yield "It gets all the traffic only when labels prove that it is right more often than the previous version."
    if plan.second_person:
        yield "Only a second person, not the one who releases it, can promote it without waiting or try it again."
    if plan.golden.requests == "recorded":
        but = f", except those to {', '.join(plan.golden.leave_out)}" if plan.golden.leave_out else ""
        yield (
            "Before the canary gets any user's request, the recorded requests are replayed to both versions, including "
            f"those that change something{but}. A difference that breaks callers ends the release."
        )
    if plan.may_break:
        yield f"Callers of the previous version may lose {', '.join(map(_lost, plan.may_break))}."
    if plan.segments:
        yield _segments(plan.segments)
    if plan.sticky:
        yield f"Requests with the same {plan.sticky} stay on one version." + _only_of_copies(plan)


def _lost(place: str) -> str:
    route, _, field = place.partition(" ")
    return f"`{field}` of {route}" if field else route


def _segments(by: SegmentsBy) -> str:
    found = f"the first {MOST_SEGMENTS} values that stable answers well several times"
    told_apart = ", ".join(by.values) if by.values else found
    return (
        f"Errors and rejections are also judged by the value of the header {by.header}: {told_apart}; all other values "
        f"together as {OTHER}, requests without the header as {ABSENT}."
    )


def _only_of_copies(plan: RolloutSpec) -> str:
    """The signals that one caller could cause alone: with sticky callers they are fair only in the shadow step."""
    names = ", ".join(plan.signals.of_callers)
    if not names:
        return ""
    only = "." if plan.has_shadow else ", and this plan has none."
    return f" Therefore only the shadow step judges {names}{only}"


def _compared(plan: RolloutSpec) -> str:
    """Which requests go to both versions, and the canary's load because of that at the smallest step."""
    least = AUTO_START_PERCENT if plan.steps == "auto" else min(plan.compared_weights)
    return (
        f"While both versions answer users, {share(plan.compare)} of the requests to each are also sent to the other, "
        "and no user sees the second answer. Neither gets more copies than requests of its own: at "
        f"{weight(least)} the canary answers up to {share(canary_load(plan.compare, least / 100))} of all requests. "
        "If such a request changes something, both versions change it."
    )


def _steps(plan: RolloutSpec) -> str:
    if plan.steps == "auto":
        return "The canary begins with 1 % of the requests and gets up to twice as many with each step."
    weights = [weight(float(step)) for step in plan.steps if step != SHADOW]
    shares = f"{', '.join(weights[:-1])} and then {weights[-1]}" if len(weights) > 1 else weights[0]
    if plan.steps[0] != SHADOW:
        return f"The canary gets {shares} of the requests."
    return f"The canary first gets copies, whose answers no user sees, then {shares} of the requests."


def _duration(plan: RolloutSpec) -> str:
    late = "a person is asked" if plan.on_deadline == "hold" else "the version is rolled back"
    return (
        f"A version is judged for at least {span(plan.shortest_s)} before it is promoted, or longer if the evidence "
        f"takes longer; if a step still lacks evidence after {span(plan.step_deadline)}, {late}."
    )


def _watch(plan: RolloutSpec) -> str:
    kept = (
        f"the previous version keeps {share(plan.holdback)} of the requests"
        if plan.holdback
        else "the previous version gets no requests but is kept ready"
    )
    return f"After promotion it is watched for {span(plan.watch)}; during this time {kept}."
