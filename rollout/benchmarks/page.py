"""The page about a benchmark of judges, as Markdown with its charts. Pure. Called by `cli`."""

from collections.abc import Callable
from dataclasses import dataclass

from rollout.benchmarks import tables
from rollout.benchmarks.contenders import CONTENDERS
from rollout.benchmarks.exceptions import exceptions_table
from rollout.benchmarks.figures import Axis, Look, Mark, chart
from rollout.benchmarks.results import Score
from rollout.benchmarks.tables import Scores

_LOOKS = {  # of each contender
    "kanaria": ("circle", "#00674f"),
    "kanaria-live": ("circle", "#00a37a"),
    "kanaria-unhurried": ("circle", "#74cdb4"),
    "argo-95-0": ("square", "#f2a65a"),
    "argo-95-3": ("square", "#d9691e"),
    "argo-99-3": ("square", "#8f3d0c"),
    "flagger": ("triangle", "#0060b0"),
    "kayenta-ramp": ("diamond", "#c77dbb"),
    "kayenta-guide": ("diamond", "#7d2f70"),
}
_SHARES = Axis("share of releases (hollow: most of these late)", tuple((t / 100, f"{t} %") for t in range(0, 101, 20)))
_TIMES = Axis(
    "from the start of the harm to the rollback: median, and line to the 90th percentile (hollow: late)",
    (
        (5, "5 s"),
        (15, "15 s"),
        (60, "1 min"),
        (300, "5 min"),
        (900, "15 min"),
        (3600, "1 h"),
        (10_800, "3 h"),
        (18_000, "never"),
    ),
    is_logarithmic=True,
)
_HARM = Axis(
    "requests harmed in 4 hours, mean (1 or fewer: at the left edge)",
    tuple((10.0**power, f"{10**power:,}") for power in range(6)),
    is_logarithmic=True,
)


@dataclass(frozen=True, slots=True)
class Setting:
    """What a page was made with."""

    runs: int  # of each contender on each case
    seed: int
    command: str


def figures(scores: Scores) -> dict[str, str]:
    """The charts as SVG, by file name."""
    return {
        "judge-false-rollbacks.svg": _chart(scores, "healthy", tables.rolled_back_mark, _SHARES),
        "judge-harm.svg": _chart(scores, "worse", tables.harmed_mark, _HARM),
        "judge-detection.svg": _chart(scores, "worse", tables.stopped_mark, _TIMES),
    }


def _chart(scores: Scores, truth: str, mark_of: Callable[[Score], Mark], axis: Axis) -> str:
    rows = [(case.key, case.title) for case in tables.cases_of(truth)]
    looks = {contender.key: Look(contender.title, *_LOOKS[contender.key]) for contender in CONTENDERS}
    return chart(rows, looks, {pair: mark_of(score) for pair, score in scores.items()}, axis)


def page(scores: Scores, setting: Setting) -> str:
    """The whole page; its charts are expected beside it."""
    healthy, worse = tables.cases_of("healthy"), tables.cases_of("worse")
    neither = tables.cases_of("both_bad") + tables.cases_of("no_data")
    settings = tables.table(
        ("", "settings", "documented in"), [(each.title, each.settings, each.source) for each in CONTENDERS]
    )
    return f"""\
# Judges compared

Written by `{setting.command}`: {setting.runs} simulated releases of each tool on each case, seed {setting.seed}.
In brackets: 95 % confidence intervals, of shares after Clopper and Pearson, of means by bootstrap. **Bold**: the best
of a row, and all that chance cannot tell from it.

Every tool leads releases through the same traffic: Poisson arrivals, 100 requests a second unless said otherwise, split
at random; the same drift and the same bursts for all. All look at errors alone. The rules of the others are written
anew from their public source and documentation, with the settings that these show. Whoever finds a rule or a setting
unfair is asked to open an issue.

{tables.table(tables.SUMMARY_HEADS, tables.summary_rows(scores))}

- *Calm about healthy*, *stops the worse*: cases in which at most 1 % of releases, within error, went wrong.
- *Kanaria* is the default plan. *No shadow* has what the others have to see. *Unhurried* also takes the time that their
  ramps take, which tells judging well from being quick.

## Healthy canaries

Rolled back, % of releases. *Guard*: of these, by the absolute limit. *Waits*: neither promoted nor rolled back after 4
hours; Kanaria asks a person at the deadline of a step and goes on when the proof comes.

![Share of healthy canaries that were rolled back](judge-false-rollbacks.svg)

{tables.matrix(healthy, scores, tables.rolled_back, tables.rolled_back_mark)}

Time to promotion, median / 90th percentile. Kanaria gives the canary all traffic a `soak` earlier.

{tables.matrix(healthy, scores, tables.promotion_times)}

## Worse canaries

Promoted though worse, % of releases:

{tables.matrix(worse, scores, tables.promoted, tables.promoted_mark)}

Requests harmed within 4 hours, mean: those that the canary answered worse than stable would have.

![Requests harmed by worse canaries](judge-harm.svg)

{tables.matrix(worse, scores, tables.harmed, tables.harmed_mark)}

Time from the start of the harm to the rollback, median / 90th percentile:

![Time to the rollback of worse canaries](judge-detection.svg)

{tables.matrix(worse, scores, tables.stop_times)}

## Neither healthy nor worse

Both versions bad: it is not the canary's fault, and promoting mends nothing; a person should look. No data: anything
but a promotion is right.

{tables.matrix(neither, scores, tables.outcomes)}

## Where others are better than Kanaria's default

Every case in which another tool rolls back fewer healthy canaries, promotes fewer worse ones or harms fewer requests,
beyond chance.

{exceptions_table(scores)}

## Arrays that fooled Mann-Whitney

Reported by users of Kayenta. Each point is one window of ours. *Margin 0* takes any excess for harm, as Kayenta does;
the default forgives a tenth of the risk budget, 0.05 % of requests. Four errors against none with equal traffic are
1 of 16 coin tosses: no test that errs in 1 % may accuse on these, and ours does not pass them either.

{tables.arrays_table()}

## Rules and settings

{settings}

- **Argo Rollouts.** A measurement of 0/0 is Failed, as documented for a plain `successCondition`. An empty result is an
  Error, tried again after 10 seconds; the fifth in a row aborts. An analysis that the end of the ramp stops is
  Successful. Its examples use `irate` over 5 minutes, which sees the last two samples only; here it gets the exact
  ratio over the last minute, which is kinder.
- **Flagger.** A check without a value fails, and so does NaN. Failed checks add up and are never forgiven; the rollback
  comes one interval after the last of them.
- **Kayenta.** The 98 % confidence interval of the Mann-Whitney test must lie outside 0.25 times the Hodges-Lehmann
  estimate, and the ratio of means must be 1 or more. Its root finder is reproduced with its tolerance of 0.0001, to
  all digits that issue 6278 prints. Points without requests are removed; without points the critical metric fails.
- **Kanaria.** The judge, decisions and steps that run in production, on simulated counts; 30 minutes of stable's own
  history before the release; 15 minutes of watch after promotion.

## What this does not show

- Simulated requests are independent but for the bursts and the drift named. Scrapes arrive at once, weights change at
  once, nothing restarts.
- One signal. The others can look at latency as well, Kanaria also at predicted classes and labels.
- Argo Rollouts and Flagger can be given better queries than their examples have, Argo Rollouts can even ask another
  judge over HTTP, and Kayenta can judge at any weight.
- Harm is counted for 4 hours. Whoever notices sooner by other means harms less, whichever tool promoted.
- A rollback before late harm began counts as stopped after 0 s.
"""
