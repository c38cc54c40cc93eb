"""Why a release went as it did, in the words of the engineer who watched it. Pure.

The command line, the status page, the report and the demo all show these words. Nothing is judged
or decided here: every number was in the ledger when the decision was made.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from rollout.advice import advice
from rollout.events import EvidenceRecord, SignalRecord
from rollout.interfaces import DriftReport, PreflightResult
from rollout.judge import Pair
from rollout.judge.words import share_of
from rollout.numerals import count, odds, share, share_up, span, weight
from rollout.state import Phase
from rollout.view import Accusation, ReleaseView, StepSpan
from rollout.waiting import waiting
from rollout.watch import TOLERANCE, WATCHED_ERRORS
from rollout.wording import clock, one_line, signal_words, tally

_DRIFTED_COLUMNS = 5  # told by name, the worst
_NOISY = 1.2  # a dispersion that is worth a word


@dataclass(frozen=True, slots=True)
class Topic:
    """One part of an explanation."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The verdict in one sentence, and everything behind it."""

    verdict: str
    topics: tuple[Topic, ...]


def why(release: ReleaseView, *, now_s: float | None = None) -> Explanation:
    """Explain `release` as it is at `now_s` (Unix seconds; default: when the ledger was last written)."""
    lines_by_title = {
        "What it waits for": _wait(release, now_s),
        "The evidence": _evidence(release),
        "What it cost": _cost(release),
        "What to do": advice(release),
        "The other signals": _other_signals(release),
        "How its traffic was earned": _earned(release),
        f"Drift against {release.stable}": _drift(release.drift, release) if release.drift else (),
        "Before its first request": tried_out(release.preflight, release.stable) if release.preflight else (),
        "Worth knowing": (*_notes(release), *_noise(release), *_people(release)),
    }
    topics = (Topic(title, tuple(lines)) for title, lines in lines_by_title.items())
    return Explanation(one_sentence(release, now_s=now_s), tuple(topic for topic in topics if topic.lines))


def one_sentence(release: ReleaseView, *, now_s: float | None = None) -> str:
    """What became of `release`: by which signal, on how much evidence, at what price."""
    match release.state.outcome:
        case "promoted":
            return f"{release.canary} was promoted{_on_what(release)}."
        case "rolled_back":
            return f"{release.canary} was rolled back{_after(release)}{_for_what(release)}; {_price(release)}."
        case "aborted":
            return f"{release.canary} was stopped{_after(release)}{_for_what(release)}; {_price(release)}."
    wait = waiting(release, release.seen_s if now_s is None else now_s)
    return f"{release.canary} {_place(release)}" + (f" and waits for {one_line(wait.text)}." if wait else ".")


# ---- the verdict


def _on_what(release: ReleaseView) -> str:
    """What a promotion rests on."""
    end = release.end
    lasted = span((end.at_s if end else release.seen_s) - (release.first_canary_s or release.requested_s))
    if end and end.by != "judge":
        return f" by {end.by} after {lasted} of users' traffic; {_price(release)}"
    bound = _excess_bound(_deciding(release))
    proof = f"; {_bounded(bound, release)}" if bound is not None else ""
    return f" after {lasted} of users' traffic: {_price(release)}{proof}"


def _for_what(release: ReleaseView) -> str:
    """Why the canary had to leave, and how sure that is."""
    end, accusation = release.end, release.accusation
    if accusation:
        return f": {_contrast(accusation, release)}; {odds(accusation.evidence.decisive_log_e)}"
    if end is None:
        return ""
    by = f" by {end.by}" if end.by != "judge" else ""
    return f"{by}: {one_line(end.reason)}"


def _contrast(accusation: Accusation, release: ReleaseView) -> str:
    words = signal_words(accusation.signal, release.spec, stable=release.stable)
    canary, stable = Pair(*accusation.record.canary), Pair(*accusation.record.stable)
    if (limit := accusation.record.limit) is not None:
        last = "last " if accusation.signal == WATCHED_ERRORS else ""
        seen = f"{share_of(canary)} of its {last}{count(canary.total)} {words.unit} {words.event}"
        return f"{seen}, {share(limit)} are allowed"
    return f"{share_of(canary)} of its {words.unit} {words.event}, {share_of(stable)} of {release.stable}'s"


def _after(release: ReleaseView) -> str:
    """How long users' requests reached the canary."""
    first = release.first_canary_s
    if first is not None:
        was_promoted = any(decision.action == "promoted" for decision in release.decisions)
        lasted = span((release.out_of_traffic_s or release.seen_s) - first)
        return f" after {lasted} of users' traffic" + (", already promoted" if was_promoted else "")
    return " in the shadow step" if release.steps else " before it took any traffic"


def _price(release: ReleaseView) -> str:
    """What users had of it."""
    if release.first_canary_s is None:
        return "no user's request reached it"
    if "errors" not in release.signals:
        return "none of its requests was counted"
    requests, failed = release.canary_requests, release.canary_failures
    return f"it answered {count(requests)} users' requests, {count(failed) if failed else 'none'} of which failed"


def _place(release: ReleaseView) -> str:
    if release.state.phase is Phase.STARTING:
        return "is being started"
    step, steps = release.steps[-1], release.spec.steps
    number = "" if steps == "auto" else f" (step {release.state.step + 1} of {len(steps)})"
    has = "gets a copy of every request" if step.mirror else f"has {weight(step.weight_percent)} of the traffic"
    return has + number


# ---- the topics


def _wait(release: ReleaseView, now_s: float | None) -> Iterator[str]:
    wait = waiting(release, release.seen_s if now_s is None else now_s)
    if wait:
        yield f"{_sentence(wait.text)}."
        if wait.deadline_s is not None:
            is_given_up = release.spec.on_deadline == "rollback"
            rule = "it is rolled back" if is_given_up else "a person is asked; it goes on when the proof comes"
            yield f"If it is not proven safe in {span(wait.deadline_s)} more of measured time, {rule}."


def _evidence(release: ReleaseView) -> Iterator[str]:
    evidence = _deciding(release)
    if release.accusation:
        yield from _against(release.accusation, release)
        return
    if release.end and release.state.outcome != "promoted":
        yield f"{_sentence(release.end.reason)}."
    if evidence:
        bound = _excess_bound(evidence)
        if bound is not None:
            yield f"{_sentence(_bounded(bound, release))}."
        yield (
            f"Evidence that it is worse, all signals together: log e {max(evidence.log_e, 0.0):.1f}; "
            f"at {evidence.threshold:.1f} it would fail."
        )


def _against(accusation: Accusation, release: ReleaseView) -> Iterator[str]:
    signal, record, evidence = accusation.signal, accusation.record, accusation.evidence
    words, limit = signal_words(signal, release.spec, stable=release.stable), record.limit
    canary, stable = Pair(*record.canary), Pair(*record.stable)
    copies = " (copied requests of the shadow step included)" if any(step.mirror for step in release.steps) else ""
    seen = f"`{signal}`: {tally(canary)} {words.unit} of {release.canary} {words.event}, {share_of(canary)}"
    if limit is not None:
        yield f"{seen}; {share(limit)} are allowed."
    else:
        yield f"{seen}{copies}; {tally(stable)} of {release.stable} in the same time, {share_of(stable)}."
    yield (
        f"All signals that may decide this, together: log e {evidence.decisive_log_e:.1f}, "
        f"and {evidence.threshold:.1f} fails the canary; {odds(evidence.decisive_log_e)}."
    )
    yield f"`{signal}` by itself: log e {record.log_e:.1f}; alone it would need {record.threshold:.1f}."
    yield f"Harmless means here: {_harmless(signal, release)}."


def _harmless(signal: str, release: ReleaseView) -> str:
    if signal == WATCHED_ERRORS:
        return (
            f"a share of at most {TOLERANCE:g} times what {release.stable} is known to fail "
            f"({share_of(release.state.stable_errors)} before) or what users met minutes ago, plus "
            f"{share(release.spec.risk_budget)}"
        )
    config = release.spec.judge_config()
    rule = config.rules.get(signal.partition(":")[0])
    if rule is None:
        return "no worse than stable"
    if rule.limit is not None:
        return f"a share of at most {share(rule.limit)}"
    if rule.kernel == "rare":
        margin = config.risk_budget / 10 if rule.margin is None else rule.margin
        return f"a share of at most {rule.tolerance:g} times stable's, plus {share(margin)}"
    if rule.two_sided:
        return f"odds between 1/{rule.tolerance:g} and {rule.tolerance:g} times stable's"
    return f"odds of at most {rule.tolerance:g} times stable's"


def _cost(release: ReleaseView) -> Iterator[str]:
    first, accusation = release.first_canary_s, release.accusation
    if first is None:
        return
    yield f"{_sentence(_price(release))}."
    if release.out_of_traffic_s is not None:
        yield f"From its first request to weight 0: {span(release.out_of_traffic_s - first)}."
    users = release.users(accusation.signal) if accusation else Pair(0, 0)
    if accusation and users.total and accusation.record.stable[1]:
        words = signal_words(accusation.signal, release.spec)
        stable_bad, stable_total = accusation.record.stable
        excess = users.bad - users.total * stable_bad / stable_total
        more = "more" if excess > 0 else "fewer"
        yield f"Of users' {words.unit} about {count(abs(excess))} {more} {words.event} than with {release.stable}."


def _other_signals(release: ReleaseView) -> Iterator[str]:
    """Of each family that did not decide, the signal with the strongest evidence."""
    evidence = _deciding(release)
    if evidence is None:
        return
    decided = release.accusation.signal.partition(":")[0] if release.accusation else None
    families: dict[str, list[str]] = {}
    for name in sorted(evidence.signals, key=lambda name: -evidence.signals[name].log_e):
        families.setdefault(name.partition(":")[0], []).append(name)
    for family, names in families.items():
        if family != decided:
            most = f" (the most suspicious of {len(names)})" if len(names) > 1 else ""
            yield f"`{names[0]}`{most}: {_other_signal(names[0], evidence.signals[names[0]], release)}."


def _other_signal(name: str, record: SignalRecord, release: ReleaseView) -> str:
    words, limit = signal_words(name, release.spec, stable=release.stable), record.limit
    canary, stable = Pair(*record.canary), Pair(*record.stable)
    if not canary.total:
        return "nothing was counted for the canary"
    if record.log_e >= math.log(2):
        says = odds(record.log_e)
    else:
        harmless = stable.bad * canary.total if limit is None else limit * canary.total * stable.total
        says = "no evidence of harm" if canary.bad * stable.total > harmless else "nothing against it"
    usual = f"on stable {share_of(stable)} of {count(stable.total)}" if limit is None else f"{share(limit)} are allowed"
    return f"{share_of(canary)} of {count(canary.total)} {words.unit} {words.event}, {usual}; {says}"


def _earned(release: ReleaseView) -> Iterator[str]:
    if any(step.ended_by and step.ended_by.evidence for step in release.steps):
        certainty, budget = share(1 - release.spec.judge_config().alpha_pass), share(release.spec.risk_budget)
        yield (
            f"More weight needs proof, {certainty} certain, that at that weight fewer than {budget} of all requests "
            "fail because of the canary."
        )
    for step in release.steps:
        lasted = span((step.until_s or release.seen_s) - step.from_s)
        yield f"{_sentence(step.name)}: {lasted}{_answered(step)}; {_then(step)}."


def _answered(step: StepSpan) -> str:
    if not step.canary.total:
        return ""
    kind = "copied requests" if step.mirror else "requests"
    failed = count(step.canary.bad) if step.canary.bad else "none"
    return f", {count(step.canary.total)} {kind}, {failed} failed"


def _then(step: StepSpan) -> str:
    """What the step led to, and on what proof."""
    end = step.ended_by
    if end is None:
        return "not over"
    by = f" by {end.by}" if end.by != "judge" else ""
    if end.action != "step":
        return f"{end.action.replace('_', ' ')}{by}"
    bound = _excess_bound(end.evidence)
    percent = end.weight_percent or 0
    if by or bound is None:
        return f"then {weight(percent)}{by}"
    of_all = share_up(bound * percent / 100)
    return f"{weight(percent)} next, on proof of fewer than {share_up(bound)} of its own requests, {of_all} of all"


def tried_out(tried: PreflightResult, stable: str | None) -> Iterator[str]:
    """What a preflight showed."""
    if tried.differences:
        yield from (f"{_sentence(difference)}." for difference in tried.differences)
    else:
        yield f"It gave the expected answer to {count(tried.golden_requests)} golden requests."
        if stable:
            yield f"It accepts all that {stable} accepts, and leaves nothing out of its answers."
    if tried.p50_ms is not None and tried.slowest_ms is not None:
        yield f"Half of its answers took at most {tried.p50_ms:.1f} ms, the slowest {tried.slowest_ms:.1f} ms."
    if tried.memory_mb is not None:
        beside = f", {stable} {count(tried.stable_memory_mb)} MB" if tried.stable_memory_mb else ""
        yield f"It takes {count(tried.memory_mb)} MB of memory{beside}."
    yield from (f"{_sentence(remark)}." for remark in tried.remarks)


def _drift(report: DriftReport, release: ReleaseView) -> Iterator[str]:
    """Whether its requests and answers look like stable's."""
    if report.state != "drift":
        yield f"{_sentence(report.sentence)}."
    else:
        yield f"It differs in {count(len(report.drifted))} of {count(report.columns)} columns from {release.stable}."
    for column in report.drifted[:_DRIFTED_COLUMNS]:
        moved = f"{share(column.score)} of the rows moved, from {share(column.threshold)} on it matters"
        yield f"`{column.column}`: {column.says}; {moved}."
    if report.state != "too_few_rows":
        looks = f"; it was looked at {count(report.look)} times" if report.look > 1 else ""
        yield f"{count(report.rows)} rows of each version from the same half minutes{looks}."


def _notes(release: ReleaseView) -> Iterator[str]:
    away_s = None
    for note in release.notes:
        match note.topic:
            case "source_unreachable":
                away_s = note.at_s
            case "source_back" if away_s is not None:
                times = f"{clock(away_s)} to {clock(note.at_s)} UTC ({span(round(note.at_s - away_s))})"
                yield f"No metrics from {times}: the weight was held, nothing was decided blind."
            case _:
                yield f"{clock(note.at_s)} UTC: {one_line(note.text)}."
    if release.blind_since_s is not None:
        yield f"No metrics since {clock(release.blind_since_s)} UTC: the weight is held, nothing is decided blind."


def _noise(release: ReleaseView) -> Iterator[str]:
    noisy = [f"`{signal}` {phi:.1f} times" for signal, phi in release.phi.items() if phi > _NOISY]
    if noisy:
        yield (
            f"{release.stable}'s own counts vary more than independent requests do: {', '.join(noisy)} the variance. "
            "Evidence from them counts less by that factor."
        )
    if release.spec.sticky:
        yield (
            f"Callers are told apart by `{release.spec.sticky}`: the first failure of each may fail the canary, "
            "counted once for both versions. Of copied requests every failure counts."
        )
    if release.user_phi is not None and release.user_phi > _NOISY:
        yield (
            f"{release.stable}'s failures are those of few users, who repeat them: every step needs "
            f"{release.user_phi:.1f} times the proof, and more while they go on."
        )


def _people(release: ReleaseView) -> Iterator[str]:
    for decision in release.decisions:
        if decision.action in ("paused", "resumed"):
            reason = f": {one_line(decision.reason)}" if decision.reason else ""
            yield f"{clock(decision.at_s)} UTC: {decision.action} by {decision.by}{reason}."


# ---- finding and wording the facts


def _deciding(release: ReleaseView) -> EvidenceRecord | None:
    """The evidence that the outcome rests on; of a running release the newest."""
    if release.state.outcome == "promoted":
        # Once the canary has all traffic there is no stable to compare with: what gave it all traffic counts.
        compared = next((step.earned_by.evidence for step in release.steps if step.weight_percent == 100), None)
        return compared or release.last_evidence
    return (release.end.evidence if release.end else None) or release.last_evidence


def _excess_bound(evidence: EvidenceRecord | None) -> float | None:
    """Bound on the share of requests that fail because of the canary; None when nothing is bounded."""
    records = evidence.signals.values() if evidence else ()
    return max((record.excess_upper for record in records if record.excess_upper is not None), default=None)


def _bounded(bound: float, release: ReleaseView) -> str:
    certainty = share(1 - release.spec.judge_config().alpha_pass)
    return f"with {certainty} certainty fewer than {share_up(bound)} of its requests fail because of it"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
