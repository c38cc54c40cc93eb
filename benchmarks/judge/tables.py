"""Formats scores as tables, and their numbers as marks that can be compared and drawn."""

import math
from collections.abc import Callable, Sequence

from benchmarks.charts import Mark
from benchmarks.judge.arrays import ARRAYS, kayenta_label, our_judgement
from benchmarks.judge.cases import CASES, Case
from benchmarks.judge.contenders import CONTENDERS
from benchmarks.judge.scores import Mean, Score, Scores
from benchmarks.markdown import table
from rollout.format import count, span
from rollout.judge import Judgement
from rollout.simulate.summary import Proportion, Quantile

_TOLERATED = 0.01  # share of releases that may go wrong

SUMMARY_HEADS = (
    "",
    "healthy canaries not rolled back",
    "worse canaries stopped",
    "requests harmed, all cases",
    "time to promotion, 0.5 % errors",
)


def cases_of(truth: str) -> tuple[Case, ...]:
    """The cases of one kind, in their order."""
    return tuple(case for case in CASES if case.truth == truth)


def matrix(
    cases: Sequence[Case],
    scores: Scores,
    cell: Callable[[Score], str],
    mark_of: Callable[[Score], Mark] | None = None,
) -> str:
    """One row for each case, one column for each contender.

    With `mark_of`, less is better; bold are the best and those that differ from it by no more than chance explains.
    """
    rows = []
    for case in cases:
        row = [scores[case.key, contender.key] for contender in CONTENDERS]
        cells = [cell(score) for score in row]
        if mark_of:
            marks = [mark_of(score) for score in row]
            best = min(marks, key=lambda mark: (mark.value, mark.high))
            cells = [f"**{text}**" if mark.low <= best.high else text for text, mark in zip(cells, marks, strict=True)]
        rows.append((case.title, *cells))
    return table(("", *(contender.title for contender in CONTENDERS)), rows)


def summary_rows(scores: Scores) -> list[tuple[str, ...]]:
    """One row for each contender, under `SUMMARY_HEADS`."""
    healthy, worse = cases_of("healthy"), cases_of("worse")
    rows: list[tuple[str, ...]] = []
    for contender in CONTENDERS:
        kept = sum(scores[case.key, contender.key].rolled_back.low <= _TOLERATED for case in healthy)
        stopped = sum(scores[case.key, contender.key].promoted.low <= _TOLERATED for case in worse)
        harmed = sum(scores[case.key, contender.key].harmed.value for case in worse)
        promoted_s = scores["healthy-0.5", contender.key].promoted_s[0].value
        rows.append(
            (
                contender.title,
                f"{kept} of {len(healthy)}",
                f"{stopped} of {len(worse)}",
                count(harmed),
                time_words(promoted_s),
            )
        )
    return rows


def arrays_table() -> str:
    """How Kayenta and our judge judge the arrays that users complained about."""
    rows = []
    for array in ARRAYS:
        ours = [_verdict(*our_judgement(array, margin=margin)) for margin in (None, 0.0)]
        requests = f"{count(array.stable_requests)} and {count(array.canary_requests)}"
        rows.append((array.issue, array.story, requests, kayenta_label(array).value, *ours))
    return table(("issue", "canary against baseline", "requests a point", "Kayenta", "Kanaria", "margin 0"), rows)


def rolled_back_mark(score: Score) -> Mark:
    """Share rolled back; hollow if most of these rollbacks came only at the deadline."""
    return _interval(score.rolled_back, is_hollow=2 * score.by_deadline.count > score.rolled_back.count)


def promoted_mark(score: Score) -> Mark:
    return _interval(score.promoted)


def held_mark(score: Score) -> Mark:
    return _interval(score.held)


def promoted_after_mark(score: Score) -> Mark:
    """Median time to promotion."""
    median, _ = score.promoted_s
    return Mark(median.value, median.low, median.high)


def harmed_mark(score: Score) -> Mark:
    return Mark(score.harmed.value, score.harmed.low, score.harmed.high)


def stopped_mark(score: Score) -> Mark:
    """Median time to the rollback, and the 90th percentile."""
    median, p90 = score.stopped_s
    return Mark(median.value, median.value, p90.value, is_hollow=_is_late(score))


def rolled_back(score: Score) -> str:
    causes = {"guard": score.by_guard, "waits": score.held}
    return share_words(score.rolled_back) + "".join(
        f", {cause} {percent(share.ratio)}" for cause, share in causes.items() if share.count
    )


def promoted(score: Score) -> str:
    return share_words(score.promoted)


def harmed(score: Score) -> str:
    return _mean(score.harmed)


def promotion_times(score: Score) -> str:
    return _times(score.promoted_s)


def stop_times(score: Score) -> str:
    return _times(score.stopped_s) + (", late" if _is_late(score) else "")


def outcomes(score: Score) -> str:
    shares = {"promoted": score.promoted, "rolled back": score.rolled_back, "asks a person": score.held}
    return ", ".join(f"{name} {percent(share.ratio)} %" for name, share in shares.items() if share.count)


def _is_late(score: Score) -> bool:
    return 2 * score.by_deadline.count >= score.rolled_back.of


def _interval(share: Proportion, *, is_hollow: bool = False) -> Mark:
    return Mark(share.ratio, share.low, share.high, is_hollow=is_hollow)


def percent(ratio: float) -> str:
    """A percentage without its sign; one decimal near 0 and near 100."""
    decimals = 0 if 0.1 <= ratio <= 0.99 else 1
    return f"{100 * ratio:.{decimals}f}".removesuffix(".0")


def share_words(share: Proportion) -> str:
    """In percent, with its interval."""
    return f"{percent(share.ratio)} ({percent(share.low)}-{percent(share.high)})"


def _times(quantiles: tuple[Quantile, Quantile]) -> str:
    return " / ".join(time_words(each.value) for each in quantiles)


def time_words(seconds: float) -> str:
    """inf: never."""
    return "never" if math.isinf(seconds) else span(seconds)


def _mean(mean: Mean) -> str:
    digits = 0 if mean.value >= 10 else 1
    value, low, high = (f"{each:,.{digits}f}" for each in (mean.value, mean.low, mean.high))
    return value if low == high else f"{value} ({low}-{high})"


def _verdict(judgement: Judgement, failed_at: int | None) -> str:
    return f"FAIL at point {failed_at}" if failed_at else judgement.verdict.name
