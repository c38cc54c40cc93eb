"""Explains in words why a release went as it did. Nothing is judged or decided here: every number is in the ledger."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from rollout.explain.advice import advice
from rollout.explain.budget import budget_sentence
from rollout.explain.earlier import words as earlier_words
from rollout.explain.format import clock, one_line
from rollout.explain.observed import observed_sentence
from rollout.explain.price import before_promotion, cost, price
from rollout.explain.timeline import FailedSignal, StepSpan, Timeline
from rollout.explain.waiting import waiting
from rollout.format import certainty, count, odds, sentence, share, share_up, span, weight
from rollout.judge import Judgement, OwnNoise, Pair, SignalJudgement, number_words
from rollout.judge.types import NumberRule
from rollout.judge.words import better as proven_better
from rollout.judge.words import concentrated, share_of, tally
from rollout.ledger import events
from rollout.ledger.events import Restore
from rollout.ledger.findings import DriftReport, PreflightResult
from rollout.ledger.state import Phase
from rollout.signals.catalogue import WATCHED_ERRORS, WATCHED_TOLERANCE

_DRIFTED_COLUMNS = 5  # the worst columns, which are named
_NOISY = 1.2  # a dispersion from here on is mentioned
_SHORT_HISTORY_S = 600.0  # a shorter history may contain no burst


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


def why(release: Timeline, *, now_s: float | None = None) -> Explanation:
    """Explain `release` at `now_s` (Unix seconds; default: the time of the last event in the ledger)."""
    since = "Since it was restored" if release.state.restore else "Since its promotion"
    lines_by_title = {
        "What it waits for": _wait(release, now_s),
        "The evidence": _evidence(release),
        "Its labels": release.about_labels,
        "What it cost": _cost(release),
        "What to do": advice(release),
        "The other signals": _other_signals(release),
        since: _families(release.since_promotion, release) if _is_promoted(release) else (),
        "How its traffic was earned": _earned(release),
        f"Drift against {release.stable}": _drift(release.drift, release) if release.drift else (),
        "Before its first request": _preflight(release),
        "Worth knowing": (*noticed(release), *_earlier(release), *_notes(release), *_noise(release), *_people(release)),
    }
    topics = (Topic(title, tuple(lines)) for title, lines in lines_by_title.items())
    return Explanation(one_sentence(release, now_s=now_s), tuple(topic for topic in topics if topic.lines))


def one_sentence(release: Timeline, *, now_s: float | None = None, refused: str = "") -> str:
    """The outcome of `release`: by which signal, on how much evidence, at what cost to users.

    Args:
        release: the release.
        now_s: Unix seconds; default: the time of the last event in the ledger.
        refused: see `waiting`.
    """
    match release.state.outcome:
        case "promoted":
            cut = f"; {release.watch_interrupted}" if release.watch_interrupted else ""
            if release.state.restore:
                return f"{release.canary} was restored{_by_whom(release, release.state.restore)}{cut}."
            return f"{release.canary} was promoted{_on_what(release)}{cut}."
        case "rolled_back" | "aborted" if release.state.restore and release.first_canary_s is None:
            return f"{release.canary} was not restored{_for_what(release)}; {release.stable} keeps the traffic."
        case "rolled_back":
            return f"{release.canary} was rolled back{_after(release)}{_for_what(release)}; {price(release)}."
        case "aborted":
            return f"{release.canary} was stopped{_after(release)}{_for_what(release)}; {price(release)}."
    wait = waiting(release, release.seen_s if now_s is None else now_s, refused=refused)
    return f"{release.canary} {_place(release)}" + (f" and waits for {one_line(wait.text)}." if wait else ".")


# ---- the verdict


def _on_what(release: Timeline) -> str:
    """The basis of a promotion."""
    end, first = release.end, release.first_canary_s
    decided_s, by = (end.at_s, end.by) if end else (release.seen_s, "judge")
    # A split that came into force after the decision is not traffic before it.
    if first is None or (first >= decided_s and not release.answered_in_steps.total):
        return (f" by {by}" if by != "judge" else "") + " before it took any traffic"
    after = f" after {span(decided_s - first)} {_of_traffic(release.answered_in_steps.total)}"
    price = before_promotion(release)
    if by != "judge":
        return f" by {by}{after}; {price}"
    bound = _excess_bound(release.deciding)
    proof = f"; {_bounded(bound, release)}" if bound is not None else ""
    better = f", {said};" if (said := _better(release)) else ":"
    return f"{after}{better} {price}{proof}"


def _better(release: Timeline) -> str:
    """That labels prove the canary better, and by which counts; empty where they do not."""
    evidence = release.deciding
    if evidence is None or not evidence.is_better:
        return ""
    return proven_better(evidence.signals, release.spec.judge_config().rules)


def _by_whom(release: Timeline, restore: Restore) -> str:
    """Who restored the canary, how soon, and whether the replaced version is in quarantine."""
    took_s = (release.first_canary_s or release.seen_s) - release.requested_s
    reason = f": {one_line(restore.reason)}" if restore.reason else ""
    kept_out = f"; {release.stable} is in quarantine" if restore.quarantine else ""
    done = f"in place of {release.stable}, {span(took_s)} after the command{reason}"
    return f" by {release.state.by} {done}{kept_out}"


def _for_what(release: Timeline) -> str:
    """Why the canary had to leave, and how sure that is."""
    end, failed_signal = release.end, release.failed_signal
    if failed_signal:
        place = _place_of(failed_signal, release)
        return f": {_contrast(failed_signal, release)}{place}; {odds(failed_signal.evidence.decisive_log_e)}"
    if end is None:
        return ""
    by = f" by {end.by}" if end.by != "judge" else ""
    return f"{by}: {one_line(end.reason)}"


def _place_of(failed_signal: FailedSignal, release: Timeline) -> str:
    """The route or segment with most of its bad answers; empty where there is none."""
    canary = {name: judged.canary for name, judged in failed_signal.evidence.signals.items()}
    place = concentrated(failed_signal.signal, canary, release.spec.judge_config().rules)
    return f"; {place}" if place else ""


def _contrast(failed_signal: FailedSignal, release: Timeline) -> str:
    words = release.spec.words(failed_signal.signal, stable=release.stable)
    canary, stable = failed_signal.judged.canary, failed_signal.judged.stable
    if seen_means := means(failed_signal.signal, failed_signal.judged, release):
        return f"its {words.unit} {words.event}, {seen_means}"
    if (limit := failed_signal.judged.limit) is not None:
        last = "last " if failed_signal.signal == WATCHED_ERRORS else ""
        seen = f"{share_of(canary)} of its {last}{count(canary.total)} {words.unit} {words.event}"
        return f"{seen}, {share(limit)} are allowed"
    return f"{share_of(canary)} of its {words.unit} {words.event}, {share_of(stable)} of {release.stable}'s"


def _after(release: Timeline) -> str:
    """How long users' requests reached the canary."""
    first = release.first_canary_s
    if first is not None:
        was_promoted = any(decision.action == "promoted" for decision in release.decisions)
        lasted = span((release.out_of_traffic_s or release.seen_s) - first)
        return f" after {lasted} {_of_traffic(release.canary_requests)}" + (
            ", already promoted" if was_promoted else ""
        )
    return " in the shadow step" if release.steps else " before it took any traffic"


def _of_traffic(requests: int) -> str:
    return "of users' traffic" if requests else "with a share of the traffic"  # without any request


def _place(release: Timeline) -> str:
    if release.state.phase is Phase.STARTING:
        return f"is being restored by {release.state.by}" if release.state.restore else "is being started"
    step, steps = release.steps[-1], release.spec.steps
    number = "" if steps == "auto" or release.state.step < 0 else f" (step {release.state.step + 1} of {len(steps)})"
    has = "gets a copy of every request" if step.mirror else f"has {weight(release.state.live_percent)} of the traffic"
    return has + number


# ---- the topics


def _wait(release: Timeline, now_s: float | None) -> Iterator[str]:
    wait = waiting(release, release.seen_s if now_s is None else now_s)
    if wait:
        yield f"{sentence(wait.text)}."
        if wait.deadline_s is not None:
            is_given_up = release.spec.on_deadline == "rollback"
            rule = "it is rolled back" if is_given_up else "a person is asked; it goes on once the proof is there"
            yield f"If it is not proven safe within {span(wait.deadline_s)} more of measured time, {rule}."


def _evidence(release: Timeline) -> Iterator[str]:
    evidence = release.deciding
    if better := _better(release):
        yield f"{sentence(better)}."
    if release.differences:
        yield f"{sentence(one_line(release.differences))}."
    if release.failed_signal:
        yield from _against(release.failed_signal, release)
        return
    if release.end and release.state.outcome != "promoted":
        yield f"{sentence(release.end.reason)}."
    if evidence:
        bound = _excess_bound(evidence)
        if bound is not None:
            yield f"{sentence(_bounded(bound, release))}."
        yield (
            f"Evidence that it is worse, all signals together: log e {max(evidence.log_e, 0.0):.1f}; "
            f"it would fail at {evidence.threshold:.1f}."
        )


def _against(failed_signal: FailedSignal, release: Timeline) -> Iterator[str]:
    signal, judged, evidence = failed_signal.signal, failed_signal.judged, failed_signal.evidence
    words, limit = release.spec.words(signal, stable=release.stable), judged.limit
    canary, stable = judged.canary, judged.stable
    copies = " (copied requests of the shadow step included)" if any(step.mirror for step in release.steps) else ""
    seen = f"`{signal}`: {tally(canary)} {words.unit} of {release.canary} {words.event} ({share_of(canary)})"
    if seen_means := means(signal, judged, release):
        yield f"`{signal}`: {seen_means}; {count(canary.total)} {words.unit} of {release.canary}{copies}."
    elif limit is not None:
        yield f"{seen}; {share(limit)} are allowed."
    else:
        yield f"{seen}{copies}; {tally(stable)} of {release.stable} in the same time ({share_of(stable)})."
    yield (
        f"All signals that may decide this, together: log e {evidence.decisive_log_e:.1f}; the canary fails at "
        f"{evidence.threshold:.1f}; {odds(evidence.decisive_log_e)}."
    )
    yield f"`{signal}` by itself: log e {judged.log_e:.1f}; alone it would need {judged.threshold:.1f}."
    yield f"Harmless here means: {_harmless(signal, release)}."


def means(signal: str, judged: SignalJudgement, release: Timeline) -> str:
    """Both means and their difference, for a signal whose events are numbers; otherwise empty."""
    rule = _number_rule(signal, release)
    return number_words.contrast(judged.difference, rule, stable=release.stable) if judged.difference and rule else ""


def _number_rule(signal: str, release: Timeline) -> NumberRule | None:
    rule = release.spec.judge_config().rules.get(signal.partition(":")[0])
    return rule.numbers if rule else None


def noticed(release: Timeline) -> Iterator[str]:
    """The findings of signals that do not affect the verdict, one sentence each."""
    evidence = release.deciding
    for name, judged in evidence.signals.items() if evidence else ():
        rule = _number_rule(name, release)
        if rule and (says := number_words.said(judged, rule)):
            yield f"{sentence(release.spec.words(name).title)}: {says}; `signals.{name}` in the plan can change that."


def _harmless(signal: str, release: Timeline) -> str:
    if signal == WATCHED_ERRORS:
        return (
            f"a share of at most {WATCHED_TOLERANCE:g} times {release.stable}'s known share of failures "
            f"({share_of(release.state.stable_errors)} before) or all users' share minutes ago, plus "
            f"{share(release.spec.risk_budget.share)}"
        )
    config = release.spec.judge_config()
    rule = config.rules.get(signal.partition(":")[0])
    if rule is None:
        return "no worse than stable"
    if rule.numbers:
        return f"that {number_words.allowed(rule.numbers)}"
    if rule.limit is not None:
        return f"a share of at most {share(rule.limit)}"
    if rule.kernel == "rare":
        plus = f"at most {share(config.risk_budget / 10)}" if rule.margin is None else share(rule.margin)
        return f"a share of at most {rule.tolerance:g} times stable's, plus {plus}"
    if rule.two_sided:
        return f"odds between 1/{rule.tolerance:g} and {rule.tolerance:g} times stable's"
    return f"odds of at most {rule.tolerance:g} times stable's"


def _cost(release: Timeline) -> Iterator[str]:
    first, failed_signal = release.first_canary_s, release.failed_signal
    if budget := budget_sentence(release):
        yield budget
    if first is None:
        return
    yield f"{sentence(cost(release))}."
    if release.out_of_traffic_s is not None:
        yield f"From its first request to weight 0: {span(release.out_of_traffic_s - first)}."
    users = release.users(failed_signal.signal) if failed_signal else Pair(0, 0)
    if failed_signal and users.total and failed_signal.judged.stable.total and not failed_signal.judged.difference:
        words = release.spec.words(failed_signal.signal)
        stable = failed_signal.judged.stable
        excess = users.bad - users.total * stable.bad / stable.total
        more = "more" if excess > 0 else "fewer"
        unit = f"{words.unit} that were read" if observed_sentence(release) else words.unit
        yield f"About {count(abs(excess))} {more} of users' {unit} {words.event} than with {release.stable}."


def _other_signals(release: Timeline) -> Iterator[str]:
    """For each family that did not decide, the signal with the strongest evidence."""
    decided = release.failed_signal.signal.partition(":")[0] if release.failed_signal else None
    yield from _families(release.deciding, release, without=decided)


def _is_promoted(release: Timeline) -> bool:
    return release.state.outcome == "promoted"


def _families(evidence: Judgement | None, release: Timeline, *, without: str | None = None) -> Iterator[str]:
    """For each family of signals, the signal with the strongest evidence."""
    if evidence is None:
        return
    families: dict[str, list[str]] = {}
    for name in sorted(evidence.signals, key=lambda name: -evidence.signals[name].log_e):
        families.setdefault(name.partition(":")[0], []).append(name)
    for family, names in families.items():
        if family != without:
            most = f" (the most suspicious of {len(names)})" if len(names) > 1 else ""
            yield f"`{names[0]}`{most}: {_other_signal(names[0], evidence.signals[names[0]], release)}."


def _other_signal(name: str, judged: SignalJudgement, release: Timeline) -> str:
    words, limit = release.spec.words(name, stable=release.stable), judged.limit
    canary, stable = judged.canary, judged.stable
    if not canary.total:
        return "nothing was counted for the canary"
    if seen_means := means(name, judged, release):
        return seen_means + (f"; {odds(judged.log_e)}" if judged.log_e >= math.log(2) else "; no evidence of harm")
    if judged.is_excused:
        says = "excused, because labels prove it better"
    elif judged.log_e >= math.log(2):
        says = odds(judged.log_e)
    else:
        harmless = stable.bad * canary.total if limit is None else limit * canary.total * stable.total
        says = "no evidence of harm" if canary.bad * stable.total > harmless else "no sign of harm"
    usual = f"on stable {share_of(stable)} of {count(stable.total)}" if limit is None else f"{share(limit)} are allowed"
    return f"{share_of(canary)} of {count(canary.total)} {words.unit} {words.event}, {usual}; {says}"


def _earned(release: Timeline) -> Iterator[str]:
    if any(step.ended_by and step.ended_by.evidence for step in release.steps):
        sure, budget = certainty(release.state.judge_config().alpha_pass), share(release.spec.risk_budget.share)
        requests = release.spec.risk_budget.requests
        in_all = "" if requests is None else f", and at most {count(requests)} users' requests until promotion,"
        yield (
            f"A higher weight needs proof, with {sure} certainty, that at that weight fewer than {budget} of all "
            f"requests{in_all} fail because of the canary."
        )
    for step in release.steps:
        lasted = span((step.until_s or release.seen_s) - step.from_s)
        warm = f", including {span(step.warmup_s)} of warm-up, which was not judged" if step.warmup_s else ""
        yield f"{sentence(step.name)}: {lasted}{warm}{_answered(step)}; {_then(step)}."


def _answered(step: StepSpan) -> str:
    if not step.canary.total:
        return ""
    kind = "copied requests" if step.mirror else "requests"
    failed = count(step.canary.bad) if step.canary.bad else "none"
    return f", {count(step.canary.total)} {kind}, {failed} failed"


def _then(step: StepSpan) -> str:
    """How the step ended, and on what proof."""
    end = step.ended_by
    if end is None:
        return "still running"
    by = f" by {end.by}" if end.by != "judge" else ""
    if end.action != "step":
        return f"{end.action.replace('_', ' ')}{by}"
    bound = _excess_bound(end.evidence)
    percent = end.weight_percent or 0
    if by or bound is None:
        return f"then {weight(percent)}{by}"
    of_all = share_up(bound * percent / 100)
    proven = f"fewer than {share_up(bound)} of its own requests, {of_all} of all, fail because of it"
    return f"{weight(percent)} next, on proof that {proven}"


def _preflight(release: Timeline) -> Iterator[str]:
    if release.preflight is None:
        return
    restore = release.state.restore
    accepted = f"{release.state.by} accepted" if restore and restore.anyway else "its plan allows"
    yield from preflight_lines(release.preflight, release.stable, accepted=accepted)


def preflight_lines(result: PreflightResult, stable: str | None, *, accepted: str = "its plan allows") -> Iterator[str]:
    """The result of a preflight, for a person; `accepted`: who allows what callers lose, in words."""
    if result.differences:
        yield from (f"{sentence(difference)}." for difference in result.differences)
    else:
        if result.golden_requests:
            yield f"It gave the expected answer to {count(result.golden_requests)} golden requests."
        if result.allowed:
            yield from (f"{sentence(loss)}, which {accepted}." for loss in result.allowed)
        elif result.recorded_requests:
            of = f"{count(result.recorded_requests)} recorded requests"
            yield f"It answers {of} with the status and the fields of {stable}'s answers."
        if stable and result.is_comparable and not result.allowed:
            yield f"It accepts every request that {stable} accepts, and its answers have every field of {stable}'s."
    if result.p50_ms is not None and result.slowest_ms is not None:
        yield f"Half of its answers took at most {result.p50_ms:.1f} ms, the slowest {result.slowest_ms:.1f} ms."
    if result.memory_mb is not None:
        beside = f", {stable} {count(result.stable_memory_mb)} MB" if result.stable_memory_mb else ""
        yield f"It uses {count(result.memory_mb)} MB of memory{beside}."
    yield from (f"{sentence(remark)}." for remark in result.remarks)


def _drift(report: DriftReport, release: Timeline) -> Iterator[str]:
    """Whether its requests and answers look like stable's."""
    if report.state != "drift":
        yield f"{sentence(report.sentence)}."
    else:
        yield f"It differs in {count(len(report.drifted))} of {count(report.columns)} columns from {release.stable}."
        if report.is_only_different and release.last_evidence and release.last_evidence.is_better:
            yield "Labels prove it better, so different answers are not a reason to roll it back."
    for column in report.drifted[:_DRIFTED_COLUMNS]:
        moved = f"{share(column.score)} of the rows moved; from {share(column.threshold)} on it counts as drift"
        yield f"`{column.column}`: {column.says}; {moved}."
    if report.state != "too_few_rows":
        times = f"; they were compared {count(report.look)} times" if report.look > 1 else ""
        yield f"{count(report.rows)} rows of each version from the same half minutes{times}."


def _earlier(release: Timeline) -> Iterator[str]:
    if earlier := release.state.earlier:
        yield f"This release {earlier_words(earlier)}."
        if earlier.carried:
            yield "That evidence is included above; it shrinks again while the canary does well."


def _notes(release: Timeline) -> Iterator[str]:
    away_s = None
    for note in release.notes:
        match note.topic:
            case "source_unreachable":
                away_s = note.at_s
            case "source_back" if away_s is not None:
                times = f"{clock(away_s)} to {clock(note.at_s)} UTC ({span(round(note.at_s - away_s))})"
                yield f"No metrics from {times}: the weight was held, and nothing was decided."
            case events.ANSWERS_DIFFER:
                pass  # shown with the evidence
            case "not_counted":
                yield f"{sentence(one_line(note.text))}."
            case _:
                yield f"{clock(note.at_s)} UTC: {one_line(note.text)}."
    if release.blind_since_s is not None:
        yield f"No metrics since {clock(release.blind_since_s)} UTC: the weight is held, and nothing is decided."


def caution(release: Timeline) -> str | None:
    """Why the evidence of a release is weaker than usual, in words; None: it is not."""
    return " ".join(filter(None, (_short_history(release), _uncounted(release), observed_sentence(release)))) or None


def _uncounted(release: Timeline) -> str | None:
    """The user's own signals that one of the versions does not count, in words; None: both count all."""
    evidence = release.last_evidence
    if evidence is None:
        return None
    missing = []
    for name in release.spec.signals.own:
        judged = evidence.signals.get(name)
        stable, canary = (judged.stable.total, judged.canary.total) if judged else (0, 0)
        sides = [tag for tag, total in ((release.stable, stable), (release.canary, canary)) if not total]
        missing += [f"{name} on {' and '.join(sides)}"] if sides else []
    return f"No counts yet of {', '.join(missing)}: so far these signals judge nothing." if missing else None


def _short_history(release: Timeline) -> str | None:
    known_s = release.state.history_s
    if known_s is None or known_s >= _SHORT_HISTORY_S:
        return None
    known = (
        f"only {span(known_s)} of {release.stable}'s counts were" if known_s else f"no counts of {release.stable} were"
    )
    return (
        f"{sentence(known)} known before the canary's first request: bursts and retries that are not in them "
        f"count as harm. {span(_SHORT_HISTORY_S)} are enough."
    )


def _noise(release: Timeline) -> Iterator[str]:
    if warning := caution(release):
        yield warning
    noisy = [_noise_of(signal, phi, release.state.noise[signal]) for signal, phi in release.phi.items() if phi > _NOISY]
    if noisy:
        yield (
            f"{release.stable}'s own counts vary more than independent requests do: {', '.join(noisy)}. The comparison "
            "with stable discounts evidence by the part that may be noise of one version alone."
        )
    if segments := release.state.segments:
        named = f" {', '.join(segments.names)}," if segments.names else ""
        yield (
            f"Errors and rejections are also compared by segment, the value of the header `{segments.header}`:{named} "
            "`other` for all other values, `absent` for requests without it."
        )
    if release.spec.sticky:
        yield (
            f"Callers are distinguished by `{release.spec.sticky}`: only each caller's first failure may fail the "
            "canary, counted once for both versions. Among copied requests every failure counts."
        )
        if of_callers := release.spec.signals.of_callers:
            yield (
                f"Judged only for copied requests, because one caller, who stays on one version, can cause any number: "
                f"{', '.join(of_callers)}."
            )
    if release.user_phi is not None and release.user_phi > _NOISY:
        yield (
            f"{release.stable}'s failures come from few users, who repeat them: every step needs "
            f"{release.user_phi:.1f} times the proof, and more if they continue."
        )


def _noise_of(signal: str, phi: float, own: OwnNoise) -> str:
    """By how much more a signal's counts vary, and the largest number by which that divides its evidence."""
    most = own.of_comparison(0.5)
    return f"`{signal}` {phi:.1f} times the variance" + (f" ({most:.1f} between two versions)" if most < phi else "")


def _people(release: Timeline) -> Iterator[str]:
    for decision in release.decisions:
        if decision.action in ("paused", "resumed"):
            reason = f": {one_line(decision.reason)}" if decision.reason else ""
            yield f"{clock(decision.at_s)} UTC: {decision.action} by {decision.by}{reason}."


# ---- finding and wording the facts


def _excess_bound(evidence: Judgement | None) -> float | None:
    """Bound on the share of requests that fail because of the canary; None where there is no bound."""
    signals = evidence.signals.values() if evidence else ()
    bound = max((signal.excess_upper for signal in signals if signal.excess_upper is not None), default=1.0)
    return bound if share_up(bound) != share_up(1.0) else None  # "fewer than 100 %" would say nothing


def _bounded(bound: float, release: Timeline) -> str:
    sure = certainty(release.state.judge_config().alpha_pass)
    return f"with {sure} certainty fewer than {share_up(bound)} of its requests fail because of it"
