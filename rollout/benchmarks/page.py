"""The page about a benchmark of judges, as Markdown with its charts. Pure.

Called by `cli`. What it says of strengths and weaknesses is found in the scores; only the reasons are written here.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rollout.benchmarks.arrays import ARRAYS, kayenta_label, our_judgement
from rollout.benchmarks.cases import CASES, Case
from rollout.benchmarks.contenders import CONTENDERS
from rollout.benchmarks.figures import Axis, Look, Mark, chart
from rollout.benchmarks.results import Mean, Score
from rollout.judge import Judgement
from rollout.simulation.summary import Proportion, Quantile
from rollout.wording import count, span

UNEXPLAINED = "not explained yet"
_OURS = "kanaria"

_LOOKS = {
    "kanaria": Look("Kanaria", "circle", "#00674f"),
    "kanaria-live": Look("Kanaria, no shadow", "circle", "#00a37a"),
    "kanaria-slow": Look("Kanaria, unhurried", "circle", "#74cdb4"),
    "argo-95-0": Look("Argo 95 %, limit 0", "square", "#f2a65a"),
    "argo-95-3": Look("Argo 95 %, limit 3", "square", "#d9691e"),
    "argo-99-3": Look("Argo 99 %, limit 3", "square", "#8f3d0c"),
    "flagger": Look("Flagger", "triangle", "#0060b0"),
    "kayenta-ramp": Look("Kayenta, 5 s points", "diamond", "#c77dbb"),
    "kayenta-guide": Look("Kayenta, 3 h", "diamond", "#7d2f70"),
}
_SHARES = Axis("share of releases", tuple((tick / 100, f"{tick} %") for tick in range(0, 101, 20)))
_TIMES = Axis(
    "from the start of the harm to the rollback: median, and line to the 90th percentile; at the right edge: never",
    ((5, "5 s"), (15, "15 s"), (60, "1 min"), (300, "5 min"), (900, "15 min"), (3600, "1 h"), (10_800, "3 h")),
    is_logarithmic=True,
)
_HARM = Axis(
    "requests harmed in 4 hours (mean; 1 or fewer at the left edge)",
    tuple((10.0**power, f"{10**power:,}") for power in range(7)),
    is_logarithmic=True,
)

_REASONS = {
    ("rolled back", "healthy-5"): (
        "Nobody was accused. To show an excess of at most 0.5 % on top of 5 % errors takes some 60,000 canary requests, "
        "more than 10 minutes at 50 requests/s. With `step_deadline: 1h` it passes; with a `risk_budget` of a tenth of "
        "the base rate or more it is quick."
    ),
    ("rolled back", "healthy-slow"): (
        "Nobody was accused. At 1 % of 2 requests/s the canary gets 12 requests in 10 minutes, and no honest test "
        "promotes on these; the others promote on as few. Use `on_deadline: hold`, a longer deadline, or larger steps."
    ),
    ("rolled back", "healthy-shared"): (
        "Nobody was accused. Bursts make 500 requests worth as much as 80 independent ones (phi about 6), and the proof "
        "of safety takes that much longer than 10 minutes. With `step_deadline: 1h` it passes."
    ),
    ("rolled back", "healthy-own"): (
        "As above: phi about 6, no proof within 10 minutes; with `step_deadline: 1h` it passes."
    ),
    ("promoted", "x2-of-0.1"): (
        "By design: an excess of 0.1 % is a fifth of the risk budget. Who minds it sets `risk_budget: 0.05%`."
    ),
    ("harmed", "x2-of-0.1"): "As above: harm within the risk budget is accepted, and more quickly than by the others.",
    ("promoted", "late-x10"): (
        "The default ramp is over in 3 minutes, before the harm begins, and the watch after promotion has no stable "
        "version to compare with: it stops 20 % errors, not 5 %. With `soak: 5m`, as slow as the others, it is caught "
        "within a minute."
    ),
    ("harmed", "late-x10"): "As above.",
    ("harmed", "late-half"): (
        "When the harm begins, the default ramp is over and the canary has all traffic, in the others' ramps 5 to 25 %. "
        "The watch stops it in seconds."
    ),
    ("harmed", "x2"): (
        "1 % errors lie exactly at the 99 % threshold. The same threshold rolls back nearly every healthy version with "
        "1 % errors."
    ),
    ("harmed", "plus-1"): "As above: a threshold of 99 % that happens to lie between 0.5 % and 1.5 %.",
    ("harmed", "x5"): "As above: the first minutes under the threshold of 99 % are enough for it.",
    ("harmed", "x10"): "One bad minute is enough for it, at any traffic; see what that does to healthy versions.",
    ("harmed", "x10-slow"): (
        "It stops at the first minute without a request or with one failure, healthy or not: it also rolled back "
        "every healthy canary with 2 requests/s."
    ),
    ("harmed", "half-slow"): "As above.",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What a page was made with."""

    runs: int  # of each contender on each case
    seed: int
    command: str


Scores = Mapping[tuple[str, str], Score]


def figures(scores: Scores) -> dict[str, str]:
    """The charts as SVG, by file name."""
    healthy, worse = _rows("healthy"), _rows("worse")
    return {
        "judge-false-rollbacks.svg": chart(healthy, _LOOKS, _marks(scores, _rolled_back_mark), _SHARES),
        "judge-harm.svg": chart(worse, _LOOKS, _marks(scores, _harmed_mark), _HARM),
        "judge-detection.svg": chart(worse, _LOOKS, _marks(scores, _stopped_mark), _TIMES),
    }


def page(scores: Scores, setting: Setting) -> str:
    """The whole page; its charts are expected beside it."""
    healthy, worse = _cases("healthy"), _cases("worse")
    settings = _table(
        ("", "settings", "documented in"), [(each.title, each.settings, each.source) for each in CONTENDERS]
    )
    return f"""\
# Judges compared

Written by `{setting.command}`. {setting.runs} simulated releases of each tool on each case, seed {setting.seed}.
In brackets: 95 % confidence intervals (of shares after Clopper and Pearson). **Bold**: the best of its row, and all
that chance cannot tell from it.

Every tool leads releases through the same traffic: Poisson arrivals, 100 requests a second unless said otherwise, split
at random; the same drift and the same bursts for all. All look at errors alone. The rules of the others are written
anew from their public source and documentation, and run with the settings that these show; nobody's code is copied, and
whoever finds a rule or a setting unfair is asked to open an issue.

{summary(scores)}

- *Calm about healthy* and *stops the worse*: cases in which at most 1 % of releases, within error, went wrong.
- *Kanaria* is the default plan. *No shadow* has what the others have to see. *Unhurried* also takes the time that their
  ramps take, which tells judging well from being quick.

## Healthy canaries

Rolled back, % of releases. *Late*: rolled back because no proof of safety came in time, and nobody was accused.

![Share of healthy canaries that were rolled back](judge-false-rollbacks.svg)

{_matrix(healthy, scores, _rolled_back, _rolled_back_mark)}

Time to promotion, median / 90th percentile. Kanaria gives the canary all traffic a `soak` earlier.

{_matrix(healthy, scores, lambda score: _times(score.promoted_s))}

## Worse canaries

Promoted though worse, % of releases:

{_matrix(worse, scores, lambda score: _share(score.promoted), _promoted_mark)}

Requests harmed within 4 hours, mean: those that the canary answered worse than stable would have.

![Requests harmed by worse canaries](judge-harm.svg)

{_matrix(worse, scores, lambda score: _mean(score.harmed), _harmed_mark)}

Time from the start of the harm to the rollback, median / 90th percentile:

![Time to rollback of worse canaries](judge-detection.svg)

{_matrix(worse, scores, lambda score: _times(score.stopped_s))}

## Neither healthy nor worse

Both versions bad: it is not the canary's fault, and promoting mends nothing; a person should look. No data: anything
but a promotion is right.

{_matrix((*_cases("both_bad"), *_cases("no_data")), scores, _outcomes)}

## Where others are better than Kanaria's default

Every case in which another tool rolls back fewer healthy canaries, promotes fewer worse ones or harms fewer requests,
beyond chance.

{_exceptions(scores)}

## Arrays that fooled Mann-Whitney

Reported by users of Kayenta. Each point is one window of ours, with 1,000 requests on each side where the last column
says nothing else. *Margin 0* takes any excess for harm, as Kayenta does; the default forgives a tenth of the risk
budget, 0.05 % of requests.

{_arrays()}

## Rules and settings

{settings}

- **Argo Rollouts.** A measurement of 0/0 is Failed, as documented for a plain `successCondition`. An empty result is an
  Error, tried again after 10 seconds; the fifth in a row aborts. An analysis that is stopped at the end of the ramp is
  Successful. Its examples use `irate` over 5 minutes, which sees the last two samples only; here it gets the exact
  ratio over the last minute, which is kinder. With both conditions set it could also say Inconclusive and pause.
- **Flagger.** A check without a value fails, as does NaN. Failed checks add up and are never forgiven; the rollback
  comes one interval after the last of them.
- **Kayenta.** The 98 % confidence interval of the Mann-Whitney test must lie outside 0.25 times the Hodges-Lehmann
  estimate, and the ratio of means must be 1 or more. The interval's root finder is reproduced with its tolerance of
  0.0001, to all digits that issue 6278 prints. Points without requests are removed, and without points the critical
  metric fails.
- **Kanaria.** The judge, decisions and steps that run in production, on simulated counts; 30 minutes of stable's own
  history before the release; 15 minutes of watch after promotion.

## What this does not show

- Simulated requests are independent but for the bursts and the drift named. Scrapes arrive at once, weights change at
  once, nothing restarts.
- One signal. All four can look at latency as well, and only Kanaria at predicted classes and labels.
- Argo Rollouts and Flagger can be given better queries than their examples have, Argo Rollouts can even ask another
  judge over HTTP, and Kayenta can judge at any weight.
- Harm is counted for 4 hours. Whoever notices sooner by other means harms less, whichever tool promoted.
- A rollback before late harm began counts as stopped after 0 s.
"""


def _cases(truth: str) -> tuple[Case, ...]:
    return tuple(case for case in CASES if case.truth == truth)


def _rows(truth: str) -> list[tuple[str, str]]:
    return [(case.key, case.title) for case in _cases(truth)]


def _marks(scores: Scores, mark_of: Callable[[Score], Mark]) -> dict[tuple[str, str], Mark]:
    return {pair: mark_of(score) for pair, score in scores.items()}


def _rolled_back_mark(score: Score) -> Mark:
    return _interval(score.rolled_back)


def _promoted_mark(score: Score) -> Mark:
    return _interval(score.promoted)


def _harmed_mark(score: Score) -> Mark:
    return Mark(score.harmed.value, score.harmed.low, score.harmed.high)


def _stopped_mark(score: Score) -> Mark:
    median, p90 = score.stopped_s
    return Mark(median.value, median.value, p90.value)


def _interval(share: Proportion) -> Mark:
    return Mark(share.ratio, share.low, share.high)


def _best(marks: Iterable[Mark]) -> float:
    """The upper end of the lowest mark: what begins below it may be as good."""
    return min(marks, key=lambda mark: (mark.value, mark.high)).high


def _matrix(
    cases: Sequence[Case],
    scores: Scores,
    cell: Callable[[Score], str],
    mark_of: Callable[[Score], Mark] | None = None,
) -> str:
    """Cases by contenders. With `mark_of`, lower is better and the best are bold."""
    rows = []
    for case in cases:
        row = [scores[case.key, contender.key] for contender in CONTENDERS]
        best = _best(map(mark_of, row)) if mark_of else -math.inf
        cells = [f"**{cell(score)}**" if mark_of and mark_of(score).low <= best else cell(score) for score in row]
        rows.append((case.title, *cells))
    return _table(("", *(contender.title for contender in CONTENDERS)), rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.0f}" if ratio in (0.0, 1.0) or ratio >= 0.1 else f"{100 * ratio:.1f}"


def _share(share: Proportion) -> str:
    return f"{_percent(share.ratio)} ({_percent(share.low)}-{_percent(share.high)})"


def _rolled_back(score: Score) -> str:
    late = f", late {_percent(score.by_deadline.ratio)}" if score.by_deadline.count else ""
    return _share(score.rolled_back) + late


def _times(quantiles: tuple[Quantile, Quantile]) -> str:
    return " / ".join("never" if math.isinf(each.value) else span(each.value) for each in quantiles)


def _mean(mean: Mean) -> str:
    spread = mean.high - mean.value
    digits = 0 if mean.value >= 10 else 1
    return f"{mean.value:,.{digits}f} ± {spread:,.{digits}f}"


def _outcomes(score: Score) -> str:
    shares = {"promoted": score.promoted, "rolled back": score.rolled_back, "asks a person": score.held}
    return ", ".join(f"{name} {_percent(share.ratio)} %" for name, share in shares.items() if share.count)


def summary(scores: Scores) -> str:
    healthy, worse = _cases("healthy"), _cases("worse")
    rows = []
    for contender in CONTENDERS:
        calm = sum(scores[case.key, contender.key].rolled_back.low <= 0.01 for case in healthy)
        stops = sum(scores[case.key, contender.key].promoted.low <= 0.01 for case in worse)
        harmed = sum(scores[case.key, contender.key].harmed.value for case in worse)
        quick = scores["healthy-0.5", contender.key].promoted_s[0]
        rows.append(
            (contender.title, f"{calm} of {len(healthy)}", f"{stops} of {len(worse)}", count(harmed), span(quick.value))
        )
    heads = ("", "calm about healthy", "stops the worse", "requests harmed, all cases", "to promotion, 0.5 % errors")
    return _table(heads, rows)


@dataclass(frozen=True, slots=True)
class _Measure:
    """Something of which less is better."""

    name: str
    truths: tuple[str, ...]
    mark_of: Callable[[Score], Mark]
    words: Callable[[Score], str]


_MEASURES = (
    _Measure("rolled back", ("healthy", "both_bad"), _rolled_back_mark, lambda score: f"{_share(score.rolled_back)} %"),
    _Measure("promoted", ("worse", "no_data"), _promoted_mark, lambda score: f"{_share(score.promoted)} %"),
    _Measure("harmed", ("worse",), _harmed_mark, lambda score: _mean(score.harmed)),
)


def _exceptions(scores: Scores) -> str:
    rows = []
    for measure in _MEASURES:
        for case in CASES:
            if case.truth not in measure.truths:
                continue
            ours = scores[case.key, _OURS]
            better = [
                f"{other.title} {measure.words(scores[case.key, other.key])}"
                for other in CONTENDERS
                if not other.is_ours and measure.mark_of(scores[case.key, other.key]).high < measure.mark_of(ours).low
            ]
            if better:
                reason = _REASONS.get((measure.name, case.key), UNEXPLAINED)
                rows.append((case.title, measure.name, measure.words(ours), "; ".join(better), reason))
    return _table(("case", "", "Kanaria", "better", "why"), rows) if rows else "None."


def _arrays() -> str:
    rows = []
    for array in ARRAYS:
        default, strict = (_said(*our_judgement(array, margin=margin)) for margin in (None, 0.0))
        requests = f"{array.stable_requests} and {array.canary_requests}"
        rows.append(
            (
                array.issue,
                array.story,
                kayenta_label(array).value,
                default,
                strict,
                "" if requests == "1000 and 1000" else requests,
            )
        )
    return _table(
        ("issue", "canary against baseline", "Kayenta", "Kanaria", "Kanaria, margin 0", "requests a point"), rows
    )


def _said(judgement: Judgement, failed_at: int | None) -> str:
    return f"FAIL at point {failed_at}" if failed_at else judgement.verdict.name
