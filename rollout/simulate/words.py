"""Reports the results of a study in words, and as data for programs."""

import math
from dataclasses import dataclass
from typing import Any

from rollout.format import about, count, share, share_up, span
from rollout.simulate.noise import Noise
from rollout.simulate.study import Findings, quantiles
from rollout.simulate.summary import Proportion, Quantile


@dataclass(frozen=True, slots=True)
class Answer:
    """One line: what happens, how often or how much, and how certain that is."""

    what: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Story:
    """All answers about one kind of canary."""

    title: str
    answers: tuple[Answer, ...]


def stories(findings: Findings) -> tuple[Story, ...]:
    """What happens to a harmless canary, to the harmful one, and to a better one if it was asked for."""
    promoted, promoted_p90 = quantiles(findings.promotion_s)
    found, found_p90 = quantiles(findings.detection_s)
    harmed, harmed_p90 = quantiles(findings.harmed)
    late = len(findings.harmful) - findings.stopped_by_evidence.count - findings.missed.count
    missed_note = _certainty(findings.missed)
    if findings.is_within_budget:
        missed_note += "; the risk budget allows this much harm"
    return (
        Story(
            "A harmless canary",
            (
                Answer("is rolled back as harmful", _often(findings.false_alarms), _certainty(findings.false_alarms)),
                Answer("lacks proof at a deadline", _often(findings.out_of_time), _certainty(findings.out_of_time)),
                *_shadow(findings),
                Answer("is promoted after", _duration(promoted), _when(findings, promoted_p90)),
            ),
        ),
        Story(
            f"A canary with {regression(findings)}",
            (
                Answer("is promoted nevertheless", _often(findings.missed), missed_note),
                Answer(
                    "is stopped after", _duration(found), f"p90 {_duration(found_p90)}, from its first live request"
                ),
                Answer(
                    "is stopped by evidence", _often(findings.stopped_by_evidence), f"{count(late)} by a deadline alone"
                ),
                Answer(
                    "harms",
                    f"{_about(harmed.value)} requests",
                    f"p90 {_about(harmed_p90.value)}; on average {share(findings.harmed_ratio)} of all",
                ),
                *_budget(findings),
            ),
        ),
        *_better(findings),
    )


def _when(findings: Findings, p90: Quantile) -> str:
    only = "; by this plan only a better one is" if findings.spec.require == "better" else ""
    return f"p90 {_duration(p90)}{only}"


def _better(findings: Findings) -> tuple[Story, ...]:
    if findings.better_wrong is None:
        return ()
    promoted, promoted_p90 = quantiles(findings.better_promotion_s)
    wrong, was = share(findings.better_wrong), share(findings.scenario.stable.wrong_label_ratio)
    title = f"A better canary: {wrong} of labels wrong instead of {was}"
    return (
        Story(
            title,
            (
                Answer("is promoted", _often(findings.better_promoted), _certainty(findings.better_promoted)),
                Answer("is promoted after", _duration(promoted), f"p90 {_duration(promoted_p90)}"),
            ),
        ),
    )


def _budget(findings: Findings) -> tuple[Answer, ...]:
    """How often more users' requests are harmed than the plan allows; empty if the plan sets no limit."""
    over, allowed = findings.over_requests, findings.spec.risk_budget.requests
    if over is None or allowed is None:
        return ()
    return (Answer(f"harms over {count(allowed)} before promotion", _often(over), _certainty(over)),)


def _shadow(findings: Findings) -> tuple[Answer, ...]:
    """How long a canary stays in the shadow step, and why; empty for a plan without a shadow step."""
    if not findings.spec.has_shadow:
        return ()
    left, left_p90 = quantiles(findings.live_s)
    why = "every copy is evidence there, at a step only the canary's share"
    return (Answer("leaves the shadow after", _duration(left), f"p90 {_duration(left_p90)}; {why}"),)


def regression(findings: Findings) -> str:
    """What is wrong with the harmful canary."""
    stable, canary = findings.scenario.stable, findings.scenario.canary
    parts = [f"errors {share(canary.error_ratio)} instead of {share(stable.error_ratio)}"] * (
        canary.error_ratio != stable.error_ratio
    )
    slowest = [
        f"{share(mine)} of answers over {bound} ms instead of {share(theirs)}"
        for (bound, mine), (_, theirs) in zip(canary.slow_ratios, stable.slow_ratios, strict=True)
        if mine != theirs
    ]
    parts += slowest[-1:]
    moved = zip(canary.class_shares, stable.class_shares, strict=True)
    shifts = [
        (abs(mine - theirs), f"class {label} at {share(mine)} instead of {share(theirs)}")
        for label, (mine, theirs) in enumerate(moved)
        if mine != theirs
    ]
    parts += [max(shifts)[1]] if shifts else []
    if canary.wrong_label_ratio != stable.wrong_label_ratio:
        parts.append(f"{share(canary.wrong_label_ratio)} of labels wrong instead of {share(stable.wrong_label_ratio)}")
    own = zip(canary.own_ratios, stable.own_ratios, strict=True)
    parts += [f"{name} {share(mine)} instead of {share(theirs)}" for (name, mine), (_, theirs) in own if mine != theirs]
    late = f", from {span(findings.scenario.harm_after_s)} on" if findings.scenario.harm_after_s else ""
    return " and ".join(parts) + late


def assumptions(findings: Findings) -> tuple[str, ...]:
    """The assumptions behind the answers."""
    scenario, noise = findings.scenario, findings.scenario.noise
    classes = scenario.stable.class_shares
    lines = [f"{scenario.rps:g} requests a second come in a Poisson process and are split at random"]
    if scenario.stable.slow_ratios:
        slow = ", ".join(f"{share(ratio)} over {bound} ms" for bound, ratio in scenario.stable.slow_ratios)
        lines.append(f"stable's answers: {slow}")
    if classes:
        lines.append(f"stable predicts {len(classes)} classes, the rarest {share(min(classes))} of the rows")
    if scenario.label_share:
        lines.append(f"the true labels of {share(scenario.label_share)} of the predictions come, at once")
    if noise.drift > 1:
        lines.append(
            f"error ratios of both versions swing between 1/{noise.drift:g} and {noise.drift:g} times in an hour"
        )
    for icc, whose in ((noise.shared_icc, "both versions"), (noise.own_icc, "one version")):
        if icc:
            lines.append(f"bursts of {span(noise.burst_s)} hit {whose}, intra-class correlation {icc:g}")
    if noise.retries > 1:
        lines.append(f"failures come in clusters of {noise.retries:g} on average")
    if noise == Noise():
        lines.append("requests are independent; real ones are not: see what --own-bursts and --retries change")
    if scenario.are_labels_paired:
        lines.append(
            "the labels of copies prove a canary better or worse; both versions err independently of each other"
        )
    lines.append(
        "every request comes from another user, whatever `sticky` says, and no answers are compared in the shadow"
    )
    if findings.spec.segments:
        lines.append(
            f"requests are not told apart by {findings.spec.segments.header}: harm to one segment is found sooner than "
            "this says, harm that hits all about as soon"
        )
    lines.append(
        "versions stay up, and a person who is asked does not answer: a release that waits for proof past a deadline "
        "waits at most as long again"
    )
    return tuple(lines)


def as_object(findings: Findings) -> dict[str, Any]:
    """The output of `kanaria simulate --json`: ratios from 0 to 1, seconds; null for a time that is never reached."""
    return {
        "releases": len(findings.harmless),
        "harmless": {
            "rolled_back": _proportion(findings.false_alarms),
            "out_of_time": _proportion(findings.out_of_time),
            "leaves_shadow_after_s": _quantiles(findings.live_s) if findings.spec.has_shadow else None,
            "promoted_after_s": _quantiles(findings.promotion_s),
        },
        "harmful": {
            "regression": regression(findings),
            "promoted": _proportion(findings.missed),
            "stopped_by_evidence": _proportion(findings.stopped_by_evidence),
            "stopped_after_s": _quantiles(findings.detection_s),
            "requests_harmed": _quantiles(findings.harmed),
            "harmed_ratio": findings.harmed_ratio,
            "over_budget_requests": _proportion(findings.over_requests) if findings.over_requests else None,
            "is_within_risk_budget": findings.is_within_budget,
        },
        "better": _better_object(findings),
    }


def _better_object(findings: Findings) -> dict[str, Any] | None:
    if findings.better_wrong is None:
        return None
    return {
        "wrong_labels": findings.better_wrong,
        "promoted": _proportion(findings.better_promoted),
        "promoted_after_s": _quantiles(findings.better_promotion_s),
    }


def _often(found: Proportion) -> str:
    return f"{count(found.count)} of {count(found.of)}"


def _certainty(found: Proportion) -> str:
    if not found.count:
        return f"with 95 % certainty under {share_up(found.high)}"
    return f"{share(found.ratio)}, with 95 % certainty {share(found.low)} to {share_up(found.high)}"


def _duration(found: Quantile) -> str:
    return span(found.value) if math.isfinite(found.value) else "never"


def _about(number: float) -> str:
    return about(number) if number >= 1 else f"{number:.1g}"


def _proportion(found: Proportion) -> dict[str, float]:
    return {"count": found.count, "of": found.of, "ratio": found.ratio, "low": found.low, "high": found.high}


def _quantiles(values: list[float]) -> dict[str, float | None]:
    median, p90 = quantiles(values)
    return {"median": _finite(median.value), "p90": _finite(p90.value)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
