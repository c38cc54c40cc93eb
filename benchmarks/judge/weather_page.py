"""Writes the part of the page about real weather: a table for each world, goals, and where another tool is better."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.charts import Mark
from benchmarks.judge import tables
from benchmarks.judge.cases import Case
from benchmarks.judge.contenders import IN_WEATHER, SLOW_MS
from benchmarks.judge.goals import goals_of
from benchmarks.judge.scores import Score, Scores
from benchmarks.judge.worlds import WORLDS
from benchmarks.markdown import table
from rollout.format import count
from rollout.simulate.summary import Proportion

_OURS = "kanaria"
_ROLLED_BACK, _HELD, _STOPPED = 0.01, 0.05, 0.95  # the limits in the summary
_SHOWN = 3  # other tools that a row names
_HEADS = ("", "rolled back, %", "asks a person, %", "promoted, %", "decided after", "harmed", "goals; where better")
_SUMMARY_HEADS = (
    "",
    "healthy: rolls back at most 1 %",
    "healthy: asks for at most 5 %",
    "worse: stops at least 95 %",
    "requests harmed, all worse worlds",
)


@dataclass(frozen=True, slots=True)
class _Measure:
    """A number that is better when it is smaller."""

    name: str
    truth: str
    mark_of: Callable[[Score], Mark]
    words: Callable[[Score], str]


def _percent(share: Proportion) -> str:
    return f"{tables.percent(share.ratio)} %"


_MEASURES = (
    _Measure("rolled back", "healthy", tables.rolled_back_mark, lambda score: _percent(score.rolled_back)),
    _Measure("asks a person", "healthy", tables.held_mark, lambda score: _percent(score.held)),
    _Measure(
        "time to promotion",
        "healthy",
        tables.promoted_after_mark,
        lambda score: tables.time_words(score.promoted_s[0].value),
    ),
    _Measure("promoted", "worse", tables.promoted_mark, lambda score: _percent(score.promoted)),
    _Measure("harmed", "worse", tables.harmed_mark, tables.harmed),
)


def section(scores: Scores) -> str:
    """The whole section, from its heading on."""
    worlds = "\n\n".join(_world(world, scores) for world in WORLDS)
    return f"""\
## Real weather

Each world simulates what happens to services while a release runs. A world has 100 requests a second and errors only,
unless its title says otherwise. A release has 4 hours, its watch included. All tools decide in the same weather.

- *Rolled back*: also in the watch after promotion. *Asks a person*: neither promoted nor rolled back after 4 hours.
  *Promoted*: and not rolled back since. *Decided after*: median from the canary's first request, copied or live, to
  promotion or rollback. *Harmed*: mean number of users' requests that a worse canary answered worse than stable would
  have, within 4 hours. For the leak that begins at full traffic it is within an hour of that, so that a slow ramp is no
  advantage.
- Kanaria's row has the goals of the default plan: kept, within error (chance explains the difference) or **broken**.
  *Better*: better than Kanaria, by more than chance explains.

{table(_SUMMARY_HEADS, [_summary_row(scores, contender.key, contender.title) for contender in IN_WEATHER])}

### Where Kanaria breaks its goals

{_broken(scores)}

### Where others are better in such weather

Each row names the best three.

{_defeats(scores)}

### World by world

{worlds}

In the world of the cold cache Kanaria judges latency as well; for the other tools an answer that takes more than
{SLOW_MS} ms is a failure."""


def _world(world: Case, scores: Scores) -> str:
    rows = [_row(world, scores[world.key, contender.key], scores[world.key, _OURS]) for contender in IN_WEATHER]
    return f"**{world.title[0].upper()}{world.title[1:]}** ({world.truth})\n\n{table(_HEADS, rows)}"


def _row(world: Case, score: Score, ours: Score) -> tuple[str, ...]:
    if score.contender.is_ours:
        remark = "; ".join(f"{goal.words}: {_emphasised(goal.status(score))}" for goal in goals_of(world))
    else:
        better = [measure.name for measure in _measures_of(world) if _is_better(measure, score, ours)]
        remark = f"**better**: {', '.join(better)}" if better else ""
    return (
        score.contender.title,
        tables.share_words(score.rolled_back),
        tables.share_words(score.held),
        tables.share_words(score.promoted),
        tables.time_words(score.decided_s.value),
        tables.harmed(score) if world.truth == "worse" else "-",
        remark,
    )


def _measures_of(world: Case) -> list[_Measure]:
    return [measure for measure in _MEASURES if measure.truth == world.truth]


def _is_better(measure: _Measure, score: Score, ours: Score) -> bool:
    return measure.mark_of(score).high < measure.mark_of(ours).low


def _emphasised(status: str) -> str:
    return "**broken**" if status == "broken" else status


def _broken(scores: Scores) -> str:
    """A row for each goal that is broken, and the number of all others."""
    every = [(world, goal, scores[world.key, _OURS]) for world in WORLDS for goal in goals_of(world)]
    rows = [
        (world.title, goal.words, goal.show(score)) for world, goal, score in every if goal.status(score) == "broken"
    ]
    kept = f"{len(every) - len(rows)} of {len(every)}"
    return table(("world", "goal", "measured"), [*rows, ("goals kept, within error", "", kept)])


def _defeats(scores: Scores) -> str:
    """A row for each world and number in which another tool is better."""
    rows = []
    for world in WORLDS:
        ours = scores[world.key, _OURS]
        others = [scores[world.key, contender.key] for contender in IN_WEATHER if not contender.is_ours]
        for measure in _measures_of(world):
            better = [score for score in others if _is_better(measure, score, ours)]
            if better:
                rows.append((world.title, measure.name, measure.words(ours), _best(better, measure)))
    return table(("world", "", "Kanaria", "better"), rows) if rows else "Nowhere."


def _best(better: list[Score], measure: _Measure) -> str:
    best = sorted(better, key=lambda score: measure.mark_of(score).value)[:_SHOWN]
    return "; ".join(f"{score.contender.title}: {measure.words(score)}" for score in best)


def _summary_row(scores: Scores, key: str, title: str) -> tuple[str, ...]:
    healthy = [scores[world.key, key] for world in WORLDS if world.truth == "healthy"]
    worse = [scores[world.key, key] for world in WORLDS if world.truth == "worse"]
    return (
        title,
        f"{sum(score.rolled_back.low <= _ROLLED_BACK for score in healthy)} of {len(healthy)}",
        f"{sum(score.held.low <= _HELD for score in healthy)} of {len(healthy)}",
        f"{sum(score.rolled_back.high >= _STOPPED for score in worse)} of {len(worse)}",
        count(sum(score.harmed.value for score in worse)),
    )
