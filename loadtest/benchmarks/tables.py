"""The numbers of a race in words: shared by the terminal and the page. Pure."""

from collections.abc import Sequence

from loadtest.benchmarks.contenders import OURS
from loadtest.benchmarks.race import CASES, Case
from loadtest.benchmarks.results import Bar, Score, Spread

ADVANTAGE_HEADS = ("our requests/s over", *(case.title for case in CASES))
CASE_HEADS = ("", "requests/s", "p50 ms", "p99 ms", "CPU us/request")
PROCESS_HEADS = ("", "start to first answer, s", "memory, MB", "of this the worker", "how it is run")
BAR_HEADS = ("promise", "bar", "measured", "")


def advantage_rows(scores: Sequence[Score]) -> list[tuple[str, ...]]:
    """How many times as many requests we answer as each peer; above 1 we are faster."""
    return [
        (score.contender.title, *(_times(score.cases[case.key].advantage) for case in CASES))
        for score in scores
        if score.contender is not OURS
    ]


def case_rows(scores: Sequence[Score], case: Case) -> list[tuple[str, ...]]:
    return [
        (
            score.contender.title,
            _range(score.cases[case.key].requests_per_s, 0),
            _range(score.cases[case.key].p50_ms, 2),
            _range(score.cases[case.key].p99_ms, 2),
            _range(score.cases[case.key].cpu_us, 0),
        )
        for score in scores
    ]


def process_rows(scores: Sequence[Score]) -> list[tuple[str, ...]]:
    return [
        (
            score.contender.title,
            _range(score.startup_s, 1),
            _range(score.memory_mb, 0),
            _range(score.worker_mb, 0),
            score.contender.story,
        )
        for score in scores
    ]


def bar_rows(bars: Sequence[Bar]) -> list[tuple[str, ...]]:
    words = {True: "holds", False: "missed", None: ""}
    return [
        (
            bar.title,
            f"{'at least' if bar.is_floor else 'at most'} {bar.bound:g}{bar.unit}",
            "not measured" if bar.measured is None else _range(bar.measured, 2, bar.unit),
            words[bar.holds],
        )
        for bar in bars
    ]


def _times(spread: Spread) -> str:
    return _range(spread, 1, "x")


def _range(spread: Spread, digits: int, unit: str = "") -> str:
    return f"{spread.median:,.{digits}f}{unit} ({spread.low:,.{digits}f}-{spread.high:,.{digits}f})"
