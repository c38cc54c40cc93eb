"""JSON lines in, one JSON object out; a malformed line is reported with its number, field and reason."""

import contextlib
import gzip
import itertools
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.errors import RolloutError
from rollout.judge import JudgeConfig, Pair, Window
from rollout.judge.jsonl import LineError, judgement_object, parse_windows
from rollout.judge.judge import Judge
from rollout.judge.types import BothNumbers, NumberRule, Numbers
from rollout.signals.catalogue import catalogue

FAMILIES = tuple(catalogue().rules)
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
    """The documented example gives these counts."""
    assert list(parse_windows(lines({}), FAMILIES)) == [Window(1700000005.0, 5, "errors", Pair(3, 812), Pair(1, 90))]


def test_empty_lines_are_skipped() -> None:
    """Their lines are still counted, so the line number in an error is that of the file."""
    given_lines = lines({}, {"signal": "latency:100"}, {"end_s": 1700000010.0})
    windows = list(parse_windows([given_lines[0], "\n", *given_lines[1:]], FAMILIES))
    assert [window.signal for window in windows] == ["errors", "latency:100", "errors"]
    with pytest.raises(RolloutError, match="line 3: end_s: "):
        list(parse_windows([given_lines[0], " \n", lines({"end_s": 1.0})[0]], FAMILIES))


def test_lines_are_read_one_at_a_time() -> None:
    """An endless stream can be read."""
    unread = iter(lines({}, {"end_s": 1700000010.0}, {"end_s": 1700000015.0}))
    next(parse_windows(unread, FAMILIES))
    assert len(list(unread)) == 2


@pytest.mark.parametrize(
    ("change", "place", "reason"),
    [
        ({"canary": {"bad": 91, "total": 90}}, "canary", "91 bad of only 90"),
        ({"canary": {"bad": -1, "total": 90}}, "canary.bad", "a number of at least 0"),
        ({"stable": {"bad": 1.5, "total": 90}}, "stable", "not a whole number of events"),
        ({"stable": {"bad": 1, "total": 90.25}}, "stable", "not a whole number of events"),
        ({"stable": {"bad": True, "total": 90}}, "stable.bad", "a number such as"),
        ({"stable": {"bad": "1", "total": 90}}, "stable.bad", "a number such as"),
        ({"stable": {"bad": None, "total": 90}}, "stable.bad", "a number such as"),
        ({"stable": {"bad": 1, "total": math.nan}}, "stable.total", "finite number"),
        ({"stable": {"bad": 1, "total": 2**53}}, "stable.total", "below 9,007,199,254,740,99"),
        ({"stable": {"bad": 1, "total": 2**53 + 1}}, "stable.total", "below 9,007,199,254,740,99"),
        ({"stable": {"bad": 1, "total": 1e29}}, "stable.total", "below 9,007,199,254,740,99"),
        ({"stable": {"bad": 1, "total": 10**29}}, "stable.total", "below 9,007,199,254,740,99"),
        ({"stable": {"bad": 1}}, "stable.total", "missing"),
        ({"window_s": 0}, "window_s", "above 0"),
        ({"end_s": math.nan}, "end_s", "finite number"),
        ({"end_s": "now"}, "end_s", "a number such as"),
        ({"weight": 5}, "weight", "no such key"),
        ({"signal": "latency:"}, "signal", "not a family, and not a family and a key"),
        ({"signal": "happiness"}, "signal", "no rule for this family"),
    ],
)
def test_a_malformed_line_is_reported(change: dict[str, object], place: str, reason: str) -> None:
    """The error gives line number, field and reason, in this order."""
    with pytest.raises(RolloutError, match=rf"line 2: {place}: .*{reason}"):
        list(parse_windows(lines({}, {"end_s": 1700000010.0} | change), FAMILIES))


@pytest.mark.parametrize(
    ("line", "saw"),
    [
        ("{", "'{'"),
        ("[]", r"\[\]"),
        ("null", "None"),
        ("3 812", "'3 812'"),
        (b"end_s,window_s,bad,total\n", "'end_s,window_s"),
        (bytes(range(256)), "x00"),
        (b'{"end_s": "\xff"}', "end_s"),
        (b"[" * 10_000, r"'\[\[\["),
    ],
)
def test_a_line_that_is_not_an_object_is_refused(line: str | bytes, saw: str) -> None:
    """It is not JSON, or has another type; of a long line, the error shows the beginning."""
    with pytest.raises(RolloutError, match=f"line 1: the line: .*\n  saw: .*{saw}") as refused:
        list(parse_windows([line], FAMILIES))
    assert len(str(refused.value)) < 600


def test_an_error_about_many_mistakes_shows_the_first_ones() -> None:
    """If there are few, the error names each of them with its value."""
    (line,) = lines({f"x{number}": 1 for number in range(300)})
    with pytest.raises(LineError, match="line 1: the line: 300 mistakes are in it") as error:
        list(parse_windows([line], FAMILIES))
    assert line[:60] in error.value.saw


def test_a_compressed_file_is_refused_with_the_advice_to_unpack_it() -> None:
    """Its first bytes identify it."""
    with pytest.raises(RolloutError, match=r"line 1: the line: it is compressed\n.*\n.*gunzip"):
        list(parse_windows(gzip.compress(lines({})[0].encode()).splitlines(keepends=True), FAMILIES))


@pytest.mark.parametrize(("bad", "total"), [("3.0", "812.0"), ("0.3e1", "8.12e2"), ("3", "812"), ("-0.0", "1e15")])
def test_whole_numbers_may_be_written_as_floats(bad: str, total: str) -> None:
    """Other languages write every number as a float, and large ones with an exponent."""
    text = lines({})[0].replace('"bad": 3, "total": 812', f'"bad": {bad}, "total": {total}')
    [window] = parse_windows([text], FAMILIES)
    assert window.stable == Pair(int(float(bad)), int(float(total)))
    assert {type(number) for number in (*window.stable, *window.canary)} == {int}


def test_windows_out_of_order_are_refused() -> None:
    """Evidence is judged in order of time."""
    with pytest.raises(RolloutError, match="line 2: end_s: time goes back"):
        list(parse_windows(lines({}, {"end_s": 1700000000.0}), FAMILIES))


def test_a_window_given_twice_is_refused() -> None:
    """No event may count twice."""
    with pytest.raises(RolloutError, match="line 2: signal: a second window of `errors`"):
        list(parse_windows(lines({}, {}), FAMILIES))


def test_windows_that_overlap_are_refused() -> None:
    """`increase(x[1m])` every 5 s counts each event twelve times, on which half of all healthy versions FAIL."""
    given_lines = lines(
        {"end_s": 60, "window_s": 60}, {"end_s": 62, "signal": "class:7"}, {"end_s": 65, "window_s": 60}
    )
    saw = r"`errors` from 0 to 60 \(line 1\), then from 5 to 65 \(line 3\)"
    with pytest.raises(
        RolloutError, match=f"line 3: window_s: the window overlaps .*\n.*{saw}\n.*increase\\(x\\[5s\\]\\)"
    ):
        list(parse_windows(given_lines, FAMILIES))


@pytest.mark.parametrize(("end_s", "is_refused"), [(1700000009.96, False), (1700000009.94, True)])
def test_windows_may_overlap_by_clock_jitter(end_s: float, is_refused: bool) -> None:
    """A window may begin before the end of the last one by a hundredth of its length."""
    given_lines = lines({}, {"end_s": end_s})
    if is_refused:
        with pytest.raises(RolloutError, match="line 2: window_s: the window overlaps"):
            list(parse_windows(given_lines, FAMILIES))
    else:
        assert len(list(parse_windows(given_lines, FAMILIES))) == 2


@given(
    starts=st.lists(st.floats(1.6e9, 1.8e9), min_size=1, max_size=20).map(sorted),
    lengths=st.lists(st.floats(1e-3, 1e5), min_size=20, max_size=20),
)
def test_accepted_windows_overlap_by_at_most_a_hundredth(starts: list[float], lengths: list[float]) -> None:
    """For any ends and lengths: all windows are read, or the error names the first that overlaps more."""
    ends = sorted(start + length for start, length in zip(starts, lengths, strict=False))
    given_lines = lines(*({"end_s": end_s, "window_s": length} for end_s, length in zip(ends, lengths, strict=False)))
    read: list[Window] = []
    with contextlib.suppress(LineError):
        read.extend(window for window in parse_windows(given_lines, FAMILIES))
    for before, after in itertools.pairwise(read):
        assert after.end_s - after.window_s >= before.end_s - 0.0101 * after.window_s
    if len(read) == len(given_lines):
        return
    with pytest.raises(LineError, match=r"line \d+: (window_s: the window overlaps|signal: a second window)"):
        list(parse_windows(given_lines, FAMILIES))


def test_a_history_needs_no_canary() -> None:
    """Only stable was measured then. Among the windows of a release a missing canary is an error."""
    line = json.dumps({key: value for key, value in LINE.items() if key != "canary"})
    [window] = parse_windows([line], FAMILIES, is_history=True)
    assert (window.stable, window.canary) == (Pair(3, 812), Pair(0, 0))
    with pytest.raises(LineError, match="line 1: canary: it is missing"):
        list(parse_windows([line], FAMILIES))
    with pytest.raises(LineError, match=r"before.jsonl, line 1: stable: "):
        list(parse_windows([line.replace("812", "2")], FAMILIES, name="before.jsonl", is_history=True))


def test_a_judgement_is_printed_as_the_documented_object() -> None:
    """Other systems rely on these keys; every number is valid JSON."""
    judge = Judge(JudgeConfig(rules=catalogue().rules))
    judge.observe(parse_windows(lines({}, {"end_s": 1700000010.0}), FAMILIES))
    printed = judgement_object(judge.judgement(next_weight=0.25))
    assert json.loads(json.dumps(printed, allow_nan=False)) == printed
    assert printed.keys() == {"verdict", "signals", "reason", "improvement"}
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


def test_a_proof_of_improvement_is_printed() -> None:
    """It has the evidence, the threshold and whether it was reached; null if the plan has no labels."""
    judge = Judge(JudgeConfig(rules=catalogue().rules))
    pairs = {"signal": "paired_label", "stable": {"bad": 0, "total": 0}, "canary": {"bad": 1, "total": 20}}
    judge.observe(parse_windows(lines(*({**pairs, "end_s": 1.7e9 + 5 * n} for n in range(10))), FAMILIES))
    found = judgement_object(judge.judgement(next_weight=0.25))["improvement"]
    assert isinstance(found, dict)
    assert (found.keys(), found["is_proven"]) == ({"log_e", "threshold", "is_proven"}, True)
    assert found["log_e"] > found["threshold"]
    without = {name: rule for name, rule in catalogue().rules.items() if not rule.tells_better}
    judge = Judge(JudgeConfig(rules=without))
    assert judgement_object(judge.judgement(next_weight=0.25))["improvement"] is None


def test_infinite_numbers_are_printed_as_words_or_null() -> None:
    """JSON has no infinity: never enough requests, and a threshold out of reach."""
    judge = Judge(JudgeConfig(rules=catalogue().rules))
    judge.observe([Window(5.0, 5.0, "errors", Pair(450, 900), Pair(50, 100))])
    judgement = judge.judgement(next_weight=1.0)
    silent = replace(judgement.signals["errors"], threshold=math.inf)
    printed = judgement_object(replace(judgement, signals={"errors": silent}))["signals"]["errors"]
    assert (printed["more_requests_needed"], printed["threshold"]) == ("never", None)


NUMBERS = {"cost": NumberRule((0.0, 10.0))}
SUMS = {
    "end_s": 5.0,
    "window_s": 5,
    "signal": "cost",
    "stable": {"count": 3, "sum": 6.0, "sum_of_squares": 14.0},
    "canary": {"count": 1, "sum": 2.0, "sum_of_squares": 4.0},
}


def numbers_of(*changes: dict[str, object], is_history: bool = False) -> list[Window]:
    given_lines = [json.dumps(SUMS | change) for change in changes]
    return list(parse_windows(given_lines, (*FAMILIES, *NUMBERS), numbers=NUMBERS, is_history=is_history))


def test_a_line_may_have_sums_of_numbers() -> None:
    """They may stand next to lines with bad events; bounds may be repeated on the line."""
    both = BothNumbers(Numbers(3, 6.0, 14.0), Numbers(1, 2.0, 4.0))
    window = Window(5.0, 5, "cost", Pair(0, 3), Pair(0, 1), both)
    assert numbers_of({}) == numbers_of({"between": [0, 10]}) == [window]
    read = parse_windows([json.dumps(SUMS), *lines({})], (*FAMILIES, *NUMBERS), numbers=NUMBERS)
    assert [each.signal for each in read] == ["cost", "errors"]
    history = {key: value for key, value in SUMS.items() if key != "canary"}
    (alone,) = parse_windows([json.dumps(history)], ("cost",), numbers=NUMBERS, is_history=True)
    assert alone.canary.total == 0


def test_a_side_without_numbers_is_not_an_error() -> None:
    """There is nothing to compare then."""
    nothing = {"count": 0, "sum": 0, "sum_of_squares": 0}
    assert numbers_of({"canary": nothing})[0].canary == (0, 0)


@pytest.mark.parametrize(
    ("change", "place", "reason"),
    [
        ({"canary": {"count": 1, "sum": math.nan, "sum_of_squares": 4}}, "canary.sum", "finite number"),
        ({"canary": {"count": 1, "sum": 2, "sum_of_squares": math.inf}}, "canary.sum_of_squares", "finite number"),
        ({"canary": {"count": -1, "sum": 2, "sum_of_squares": 4}}, "canary.count", "write a number of at least 0"),
        ({"canary": {"count": 1.5, "sum": 2, "sum_of_squares": 4}}, "canary.count", "not a whole number of events"),
        (
            {"canary": {"count": 1, "sum": 11, "sum_of_squares": 121}},
            "canary",
            "a sum of 11: 1 numbers between 0 and 10",
        ),
        ({"canary": {"count": 2, "sum": 10, "sum_of_squares": 101}}, "canary", "a sum of squares of 101"),
        ({"canary": {"count": 2, "sum": 4, "sum_of_squares": 7}}, "canary", "with a sum of 4 it must be larger"),
        ({"canary": {"count": 1, "sum": 1e300, "sum_of_squares": 1e300}}, "canary", "a sum of 1e+300"),
        ({"canary": {"count": 0, "sum": 1, "sum_of_squares": 1}}, "canary", "a sum of 1: 0 numbers"),
        ({"canary": {"count": 1, "sum": 2}}, "canary.sum_of_squares", "it is missing"),
        ({"canary": {"bad": 1, "total": 2}}, "canary.count", "it is missing"),
        ({"between": [0, 20]}, "between", "not the bounds of"),
        ({"signal": "revenue"}, "signal", "no signal with numbers as events has this name"),
        ({"signal": "errors"}, "signal", "no signal with numbers as events has this name"),
    ],
)
def test_malformed_sums_are_reported(change: dict[str, object], place: str, reason: str) -> None:
    """The error gives line number, field and reason. Numbers that were not clipped show in their sums."""
    with pytest.raises(RolloutError) as refused:
        numbers_of({}, {"end_s": 10.0} | change)
    assert str(refused.value).startswith(f"line 2: {place}: ")
    assert reason in str(refused.value)


def test_counts_for_a_signal_of_numbers_are_refused() -> None:
    """A share of bad events is not a mean."""
    with pytest.raises(RolloutError, match="line 1: signal: its events are numbers"):
        list(parse_windows(lines({"signal": "cost"}), (*FAMILIES, *NUMBERS), numbers=NUMBERS))
