"""Scores as the rows of tables, for the terminal and the page."""

from collections.abc import Sequence

from benchmarks.service.contenders import OURS
from benchmarks.service.scores import Promise, Score, Spread
from benchmarks.service.visits import CASES, Case

ADVANTAGE_HEADS = ("our requests/s over", *(case.title for case in CASES))
CASE_HEADS = ("", "requests/s", "p50 ms", "p99 ms", "CPU us/request")
PROCESS_HEADS = ("", "start to first answer, s", "memory, MB", "the worker's part, MB", "how it is run")
PROMISE_HEADS = ("promise", "limit", "measured", "")


def advantage_rows(scores: Sequence[Score]) -> list[tuple[str, ...]]:
    """Our requests per second divided by those of each peer; above 1 we are faster."""
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
            score.contender.how,
        )
        for score in scores
    ]


def promise_rows(promises: Sequence[Promise]) -> list[tuple[str, ...]]:
    words = {True: "kept", False: "broken", None: ""}
    return [
        (
            promise.title,
            f"{'at least' if promise.is_floor else 'at most'} {promise.limit:g}{promise.unit}",
            "not measured" if promise.measured is None else _range(promise.measured, 2, promise.unit),
            words[promise.is_kept],
        )
        for promise in promises
    ]


def _times(spread: Spread) -> str:
    return _range(spread, 1, "x")


def _range(spread: Spread, digits: int, unit: str = "") -> str:
    return f"{spread.median:,.{digits}f}{unit} ({spread.low:,.{digits}f}-{spread.high:,.{digits}f})"
