"""Writes the page about a benchmark of judges, as Markdown, and its charts."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.charts import Axis, Mark, Style, chart
from benchmarks.judge import tables, weather_page
from benchmarks.judge.contenders import CONTENDERS
from benchmarks.judge.exceptions import exceptions_table
from benchmarks.judge.scores import Score, Scores
from benchmarks.markdown import table

PAGE = "judge.md"
_STYLES = {  # colour and shape distinguish tools, shades their settings
    "kanaria": ("circle", "#00674f"),
    "kanaria-live": ("circle", "#00a37a"),
    "kanaria-unhurried": ("circle", "#74cdb4"),
    "argo-95-0": ("square", "#f2a65a"),
    "argo-95-3": ("square", "#d9691e"),
    "argo-99-3": ("square", "#8f3d0c"),
    "flagger": ("triangle", "#0060b0"),
    "kayenta-ramp": ("diamond", "#c77dbb"),
    "kayenta-guide": ("diamond", "#7d2f70"),
    "mixture-sprt": ("triangle", "#8a8a8a"),
    "asymptotic": ("square", "#5b5b5b"),
    "z-test": ("diamond", "#b3b3b3"),
}
_SHARES = Axis(
    "share of releases (hollow: most of them only at the deadline)",
    tuple((t / 100, f"{t} %") for t in range(0, 101, 20)),
)
_TIMES = Axis(
    "time to the rollback: median, line to the 90th percentile (hollow: mostly at the deadline)",
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
    "requests harmed within 4 hours, mean (1 or fewer: at the left edge)",
    tuple((10.0**power, f"{10**power:,}") for power in range(6)),
    is_logarithmic=True,
)


@dataclass(frozen=True, slots=True)
class Setting:
    """How the releases on a page were simulated."""

    runs: int  # of each contender on each case
    weather_runs: int  # of each contender in each world
    seed: int
    command: str

    @property
    def scale(self) -> str:
        """In words."""
        releases = f"{self.runs} simulated releases of each tool on each case, {self.weather_runs} in each world"
        return f"{releases}, seed {self.seed}"


def charts(scores: Scores) -> dict[str, str]:
    """The charts as SVG, by file name."""
    return {
        "judge-false-rollbacks.svg": _chart(scores, "healthy", tables.rolled_back_mark, _SHARES),
        "judge-harm.svg": _chart(scores, "worse", tables.harmed_mark, _HARM),
        "judge-detection.svg": _chart(scores, "worse", tables.stopped_mark, _TIMES),
    }


def _chart(scores: Scores, truth: str, mark_of: Callable[[Score], Mark], axis: Axis) -> str:
    rows = [(case.key, case.title) for case in tables.cases_of(truth)]
    styles = {contender.key: Style(contender.title, *_STYLES[contender.key]) for contender in CONTENDERS}
    return chart(rows, styles, {pair: mark_of(score) for pair, score in scores.items()}, axis)


def page(scores: Scores, setting: Setting) -> str:
    """The whole page; its charts are expected beside it."""
    healthy, worse = tables.cases_of("healthy"), tables.cases_of("worse")
    neither = tables.cases_of("both_bad") + tables.cases_of("no_data")
    settings = table(
        ("", "settings", "documented in"), [(each.title, each.settings, each.source) for each in CONTENDERS]
    )
    return f"""\
# Judges compared

Written by `{setting.command}`: {setting.scale}.
In brackets: 95 % confidence intervals, of shares after Clopper and Pearson, of means by bootstrap. **Bold**: the best
of a row, and everything that differs from it by no more than chance explains.

The first part compares the tools where requests fail independently, the second in [real weather](#real-weather).

Every tool sees the same traffic: Poisson arrivals, 100 requests a second unless a case says otherwise, split at random,
with the same drift and the same bursts. All tools judge errors only. The rules of the other tools were reimplemented
from their public source and documentation, with the settings shown there. If you find a rule or a setting unfair, open
an issue.

{table(tables.SUMMARY_HEADS, tables.summary_rows(scores))}

- *Healthy canaries not rolled back*, *worse canaries stopped*: the number of cases in which at most 1 % of the releases
  went wrong, within the statistical error.
- *Kanaria* is the default plan. *No shadow* sees only what the other tools see. *Unhurried* also takes as long as the
  other tools' ramps, which separates good judgement from speed.

## Healthy canaries

Rolled back, % of releases. *Guard*: the part that the absolute limit rolled back. *Waits*: neither promoted nor rolled
back after 4 hours; Kanaria asks a person at the deadline of a step and goes on when the proof comes.

![Share of healthy canaries that were rolled back](judge-false-rollbacks.svg)

{tables.matrix(healthy, scores, tables.rolled_back, tables.rolled_back_mark)}

Time to promotion, median / 90th percentile. Kanaria gives the canary all traffic a `soak` earlier.

{tables.matrix(healthy, scores, tables.promotion_times)}

## Worse canaries

Promoted although worse, % of releases:

{tables.matrix(worse, scores, tables.promoted, tables.promoted_mark)}

Requests harmed within 4 hours, mean: those that the canary answered worse than stable would have.

![Requests harmed by worse canaries](judge-harm.svg)

{tables.matrix(worse, scores, tables.harmed, tables.harmed_mark)}

Time from the start of the harm to the rollback, median / 90th percentile:

![Time to the rollback of worse canaries](judge-detection.svg)

{tables.matrix(worse, scores, tables.stop_times)}

## Neither healthy nor worse

If both versions are bad, it is not the canary's fault, and promoting it fixes nothing: a person should look. Without
data any outcome but a promotion is right.

{tables.matrix(neither, scores, tables.outcomes)}

## Where others are better than Kanaria's default

Every case in which another tool rolls back fewer healthy canaries, promotes fewer worse ones or harms fewer requests,
by more than chance explains.

{exceptions_table(scores)}

{weather_page.section(scores)}

## Arrays that fooled Mann-Whitney

Users of Kayenta reported these arrays. Each point is one window of our judge. *Margin 0* counts any excess as harm, as
Kayenta does; the default forgives a tenth of the risk budget, 0.05 % of requests. Four errors against none with equal
traffic are as likely as four heads in four coin tosses, 1 in 16: no test with 1 % false alarms may fail a canary for
that, and our judge does not pass it either.

{tables.arrays_table()}

## Rules and settings

{settings}

- **Argo Rollouts.** A measurement of 0/0 is Failed, as documented for a plain `successCondition`. An empty result is an
  Error and is tried again after 10 seconds; the fifth in a row aborts. An analysis that the end of the ramp stops is
  Successful. Its examples use `irate` over 5 minutes, which sees only the last two samples; here it gets the exact
  ratio over the last minute, which favours it.
- **Flagger.** A check without a value fails, and so does NaN. Failed checks add up and are never forgiven; the rollback
  comes one interval after the last of them.
- **Kayenta.** The 98 % confidence interval of the Mann-Whitney test must lie outside 0.25 times the Hodges-Lehmann
  estimate, and the ratio of means must be 1 or more. Brent's root finder, with Kayenta's tolerance of 0.0001, gives all
  digits that issue 6278 prints. Points without requests are removed; without points the critical metric fails.
- **Mixture SPRT**, **asymptotic sequence** and **peeked z-test** are not tools but tests that a team writes on top of
  one. The first and the last have no risk budget, so the clock raises the weight; a step in which the canary answered
  nothing continues. The asymptotic sequence rolls back only after 10 failures of both versions together.
- **Kanaria.** The judge, decisions and steps that run in production, on simulated counts; 30 minutes of stable's own
  history before the release; a watch of 15 minutes after promotion, in which stable keeps its `holdback`.

## What this does not show

- Simulated requests are independent given the rates, bursts and drift named above. Scrapes and changes of weight take
  no time, and no process of the tools or of the canary restarts.
- There is one signal, except with the cold cache. The other tools can judge latency as well; Kanaria can also judge
  predicted classes and labels.
- Argo Rollouts and Flagger can use better queries than those in their examples. Argo Rollouts can even ask another
  judge over HTTP, and Kayenta can judge at any weight.
- Harm is counted for 4 hours. If somebody notices it sooner by other means, fewer requests are harmed, whichever tool
  promoted the canary.
- A rollback before late harm began counts as stopped after 0 s.
"""
