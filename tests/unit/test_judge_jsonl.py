"""JSON lines in, one JSON object out; a malformed line is named with its number, field and reason."""

import json
import math
from dataclasses import replace

import pytest

from rollout.errors import RolloutError
from rollout.judge import Judge, JudgeConfig, Pair, Window, judgement_object, parse_ticks

LINE = {
    "end_s": 1700000005.0,
    "window_s": 5,
    "signal": "errors",
    "stable": {"bad": 3, "total": 812},
    "canary": {"bad": 1, "total": 90},
}


def lines(*changes: dict[str, object]) -> list[str]:
    return [json.dumps(LINE | change) for change in changes]


def test_a_line_is_a_window() -> None:
    """The documented example, number for number."""
    assert list(parse_ticks(lines({}))) == [[Window(1700000005.0, 5, "errors", Pair(3, 812), Pair(1, 90))]]


def test_windows_that_end_together_are_one_tick() -> None:
    """Signals of one tick are judged together, and empty lines are nothing."""
    given = lines({}, {"signal": "latency:100"}, {"end_s": 1700000010.0})
    ticks = list(parse_ticks([given[0], "\n", *given[1:]]))
    assert [[window.signal for window in tick] for tick in ticks] == [["errors", "latency:100"], ["errors"]]


def test_lines_are_read_as_they_come() -> None:
    """A tick is given as soon as the next begins, so an endless stream can be followed."""
    unread = iter(lines({}, {"end_s": 1700000010.0}, {"end_s": 1700000015.0}))
    next(parse_ticks(unread))
    assert len(list(unread)) == 1


@pytest.mark.parametrize(
    ("change", "place", "reason"),
    [
        ({"canary": {"bad": 91, "total": 90}}, "canary", "91 bad of only 90"),
        ({"canary": {"bad": -1, "total": 90}}, "canary.bad", "greater than or equal to 0"),
        ({"stable": {"bad": 1.5, "total": 90}}, "stable.bad", "valid integer"),
        ({"stable": {"bad": True, "total": 90}}, "stable.bad", "valid integer"),
        ({"stable": {"bad": 1}}, "stable.total", "required"),
        ({"window_s": 0}, "window_s", "greater than 0"),
        ({"end_s": math.nan}, "end_s", "finite number"),
        ({"end_s": "now"}, "end_s", "valid number"),
        ({"weight": 5}, "weight", "not permitted"),
        ({"signal": "latency:"}, "signal", "write a family"),
        ({"signal": "happiness"}, "signal", "no rule for this family"),
    ],
)
def test_a_malformed_line_is_named(change: dict[str, object], place: str, reason: str) -> None:
    """Line number, field and reason, in that order."""
    with pytest.raises(RolloutError, match=rf"line 2: {place}: .*{reason}"):
        list(parse_ticks(lines({}, {"end_s": 1700000010.0} | change)))


@pytest.mark.parametrize("line", ["{", "[]", "null", "3 812"])
def test_what_is_not_an_object_is_refused(line: str) -> None:
    """Not JSON, or JSON of another kind."""
    with pytest.raises(RolloutError, match="line 1: the line: "):
        list(parse_ticks([line]))


def test_time_that_goes_back_is_refused() -> None:
    """Evidence is judged in the order in which it came."""
    with pytest.raises(RolloutError, match="line 2: end_s: time goes back"):
        list(parse_ticks(lines({}, {"end_s": 1700000000.0})))


def test_a_window_given_twice_is_refused() -> None:
    """No event may count twice."""
    with pytest.raises(RolloutError, match="line 2: signal: a second window of `errors`"):
        list(parse_ticks(lines({}, {})))


def test_a_judgement_becomes_the_documented_object() -> None:
    """The keys that other systems rely on, with every number fit for JSON."""
    judge = Judge(JudgeConfig())
    for tick in parse_ticks(lines({}, {"end_s": 1700000010.0})):
        judge.observe(tick)
    printed = judgement_object(judge.judgement(next_weight=0.25))
    assert json.loads(json.dumps(printed, allow_nan=False)) == printed
    assert printed.keys() == {"verdict", "signals", "reason"}
    assert printed["signals"]["errors"].keys() == {
        "verdict",
        "log_e",
        "threshold",
        "stable_ratio",
        "canary_ratio",
        "excess_upper",
        "canary_requests",
        "more_requests_needed",
        "decided_at_s",
    }


def test_infinite_numbers_have_words() -> None:
    """JSON has no infinity: never enough requests, and a threshold out of reach."""
    judge = Judge(JudgeConfig())
    judge.observe([Window(5.0, 5.0, "errors", Pair(450, 900), Pair(50, 100))])
    judgement = judge.judgement(next_weight=1.0)
    silent = replace(judgement.signals["errors"], threshold=math.inf)
    printed = judgement_object(replace(judgement, signals={"errors": silent}))["signals"]["errors"]
    assert (printed["more_requests_needed"], printed["threshold"]) == ("never", None)
