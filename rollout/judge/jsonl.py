"""JSON lines in, one JSON object out: the judge for a CI job, Argo Rollouts, a person or any other system.

One line is one window of one signal:
    {"end_s": 1700000005.0, "window_s": 5, "signal": "errors",
     "stable": {"bad": 3, "total": 812}, "canary": {"bad": 1, "total": 90}}
or, for a signal whose events are numbers, with their sums: {"count": 812, "sum": 93.1, "sum_of_squares": 14.2}.
This module reads no file and prints nothing.
"""

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from types import MappingProxyType
from typing import Annotated, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract.complaints import TOO_MANY, advice, listed
from rollout.errors import RolloutError
from rollout.judge.means import impossible
from rollout.judge.types import BothNumbers, Difference, Judgement, NumberRule, Numbers, Pair, SignalJudgement, Window

_EXAMPLE = (
    '{"end_s": 1700000005.0, "window_s": 5, "signal": "errors", '
    '"stable": {"bad": 3, "total": 812}, "canary": {"bad": 1, "total": 90}}'
)
_NUMBERS_EXAMPLE = (
    '{"end_s": 1700000005.0, "window_s": 5, "signal": "cost", '
    '"stable": {"count": 812, "sum": 93.1, "sum_of_squares": 14.2}, '
    '"canary": {"count": 90, "sum": 10.4, "sum_of_squares": 1.6}}'
)
_TOO_MANY = 2**53  # from here on a float loses single events, and many systems handle JSON numbers as floats
_JITTER = 0.01  # overlap allowed, as a share of a window: its ends come from clocks, so they jitter
_NONE: Mapping[str, NumberRule] = MappingProxyType({})
_GZIP = b"\x1f\x8b"
_new_pair = partial(tuple.__new__, Pair)  # takes half as long as `Pair` itself

# The usual form of a line of counts: keys in this order, plain numbers, nothing escaped. It is read three times as
# fast; pydantic reads any other form, and lines with mistakes.
_SECONDS, _EVENTS = rb"(-?(?:0|[1-9]\d{0,14})(?:\.\d{1,20})?)", rb"(0|[1-9]\d{0,14})"
_COUNTS = rb'\{"bad": ?%b, ?"total": ?%b\}' % (_EVENTS, _EVENTS)
_USUAL = re.compile(
    rb'\{"end_s": ?%b, ?"window_s": ?%b, ?"signal": ?"([ !#-\[\]-~]*)", ?"stable": ?%b, ?"canary": ?%b\}[ \t\r\n]*'
    % (_SECONDS, _SECONDS, _COUNTS, _COUNTS)
)

_Count = Annotated[float, Field(ge=0, lt=_TOO_MANY)]  # a float, because `3.0` and `1e3` are whole numbers as well


class LineError(RolloutError):
    """A line that is not a window, or that does not follow the lines before it."""


class _Part(BaseModel):
    # No Python code runs for a valid line: a million of them should take seconds.
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _PairLine(_Part):
    bad: _Count
    total: _Count


class _WindowLine(_Part):
    end_s: float
    window_s: Annotated[float, Field(gt=0)]
    signal: str
    stable: _PairLine
    canary: _PairLine


class _HistoryLine(_WindowLine):
    canary: _PairLine = _PairLine(bad=0, total=0)


class _SumsLine(_Part):
    count: _Count
    sum: float
    sum_of_squares: float


_NO_NUMBERS = _SumsLine(count=0, sum=0, sum_of_squares=0)


class _NumbersLine(_Part):
    end_s: float
    window_s: Annotated[float, Field(gt=0)]
    signal: str
    between: tuple[float, float] | None = None
    stable: _SumsLine
    canary: _SumsLine


class _NumbersHistoryLine(_NumbersLine):
    canary: _SumsLine = _NO_NUMBERS


def parse_windows(
    lines: Iterable[str | bytes],
    families: Collection[str],
    *,
    numbers: Mapping[str, NumberRule] = _NONE,
    name: str = "",
    is_history: bool = False,
) -> Iterator[Window]:
    """The windows of all lines, in their order. Works on an endless stream, and skips empty lines.

    Args:
        families: families of signals that will be judged.
        numbers: by family, the rules of those whose events are numbers.
        name: of the file, for errors; empty: there is only one.
        is_history: only stable was measured, so lines may leave out `canary`.

    Raises: LineError with the line's number, the field and the reason. It is also raised where time goes back, and
    where windows of one signal overlap, because their events would count twice.
    """
    reader = _Reader(families, numbers, f"{name}, line" if name else "line", is_history=is_history)
    return (reader.window(line, number) for number, line in enumerate(lines, 1) if line.strip())


def judgement_object(judgement: Judgement) -> dict[str, object]:
    """The judgement as `kanaria judge` prints it: ready for JSON, so without infinite numbers.

    `more_requests_needed` is "never" where no number of requests is enough at this base rate. `threshold` is null
    where it cannot be reached.
    """
    return {
        "verdict": judgement.verdict.value,
        "signals": {name: _signal_object(signal) for name, signal in judgement.signals.items()},
        "reason": judgement.reason,
        "improvement": asdict(judgement.improvement) if judgement.improvement else None,
    }


class _Reader:
    """Reads line after line, and remembers the last window of each signal."""

    def __init__(
        self, families: Collection[str], numbers: Mapping[str, NumberRule], place: str, *, is_history: bool
    ) -> None:
        self._families, self._numbers, self._place = families, numbers, place
        kind, of_numbers = (_HistoryLine, _NumbersHistoryLine) if is_history else (_WindowLine, _NumbersLine)
        self._read = kind.__pydantic_validator__.validate_json
        self._read_numbers = of_numbers.__pydantic_validator__.validate_json
        self._end_s = -math.inf
        self._last: dict[str, tuple[int, Window]] = {}  # by signal, with the line's number

    def window(self, line: str | bytes, number: int) -> Window:
        """The window of one line. Raises LineError."""
        window = None if self._numbers else _usual(line)
        if window is None:
            window = self._parsed(line, number)
        signal, end_s, window_s = window.signal, window.end_s, window.window_s
        if end_s < self._end_s:
            raise LineError(
                f"{self._place} {number}: end_s: time goes back",
                saw=f"{end_s} after {self._end_s}",
                do="sort the lines by `end_s`: the judge needs them in the order of time",
            )
        if last := self._last.get(signal):
            if end_s - window_s < last[1].end_s - _JITTER * window_s:
                self._refuse_overlap(window, number, *last)
        else:
            self._check_name(signal, number)
        self._end_s = end_s
        self._last[signal] = number, window
        return window

    def _parsed(self, line: str | bytes, number: int) -> Window:
        are_numbers = bool(self._numbers) and _has_sums(line)
        try:
            parsed = self._read_numbers(line) if are_numbers else self._read(line)
        except ValidationError as error:
            self._refuse(line, number, error, _NUMBERS_EXAMPLE if are_numbers else _EXAMPLE)
        return self._of_numbers(parsed, number) if are_numbers else self._of_counts(parsed, number)

    def _of_counts(self, parsed: _WindowLine, number: int) -> Window:
        stable, canary = _pair(parsed.stable), _pair(parsed.canary)
        if stable is None or canary is None:
            self._refuse_counts(parsed, number)
        if self._numbers and parsed.signal.partition(":")[0] in self._numbers:
            raise LineError(
                f"{self._place} {number}: signal: its events are numbers",
                saw=f"`bad` of `total` for `{parsed.signal}`",
                do=f"write their sums, like {_NUMBERS_EXAMPLE}",
            )
        return Window(parsed.end_s, parsed.window_s, parsed.signal, stable, canary)

    def _of_numbers(self, parsed: _NumbersLine, number: int) -> Window:
        rule = self._numbers.get(parsed.signal.partition(":")[0])
        if rule is None:
            raise LineError(
                f"{self._place} {number}: signal: no signal with numbers as events has this name",
                saw=repr(parsed.signal),
                do=f"use one of {', '.join(self._numbers)}, or add a rule for it; other signals have `bad` and `total`",
            )
        if parsed.between is not None and parsed.between != rule.between:
            raise LineError(
                f"{self._place} {number}: between: not the bounds of `{parsed.signal}`",
                saw=f"{list(parsed.between)} here, {list(rule.between)} in its rule",
                do="clip all numbers of a signal to the same bounds, or use another name for numbers with other bounds",
            )
        return Window(
            parsed.end_s,
            parsed.window_s,
            parsed.signal,
            Pair(0, int(parsed.stable.count)),
            Pair(0, int(parsed.canary.count)),
            BothNumbers(
                self._sums(parsed.stable, "stable", rule, number), self._sums(parsed.canary, "canary", rule, number)
            ),
        )

    def _sums(self, sums: _SumsLine, arm: str, rule: NumberRule, number: int) -> Numbers:
        if sums.count != int(sums.count):
            raise LineError(
                f"{self._place} {number}: {arm}.count: not a whole number of events",
                saw=f"{sums.count!r}",
                do="count events: take the differences of the raw counters (PromQL's `increase` extrapolates)",
            )
        numbers = Numbers(int(sums.count), sums.sum, sums.sum_of_squares)
        if fault := impossible(numbers, rule.between):
            low, high = rule.between
            raise LineError(
                f"{self._place} {number}: {arm}: {fault}",
                saw=f"count {numbers.total}, sum {numbers.sum:g}, sum_of_squares {numbers.squares:g}",
                do=f"clip each number to {low:g} and {high:g} before you add it, or widen `between`",
            )
        return numbers

    def _refuse_counts(self, parsed: _WindowLine, number: int) -> NoReturn:
        arm, counts = ("canary", parsed.canary) if _pair(parsed.canary) is None else ("stable", parsed.stable)
        bad, total = counts.bad, counts.total
        if bad != int(bad) or total != int(total):
            raise LineError(
                f"{self._place} {number}: {arm}: not a whole number of events",
                saw=f"{bad!r} bad of {total!r}",
                do="count events: take the differences of the raw counters (PromQL's `increase` extrapolates)",
            )
        raise LineError(
            f"{self._place} {number}: {arm}: {bad:.0f} bad of only {total:.0f}",
            saw=f"bad {bad:.0f}, total {total:.0f}",
            do="include the bad events in `total`",
        )

    def _check_name(self, signal: str, number: int) -> None:
        family, colon, key = signal.partition(":")
        if not family or (colon and not key):
            raise LineError(
                f"{self._place} {number}: signal: not a family, and not a family and a key",
                saw=repr(signal),
                do="write a family such as `errors`, or a family and a key such as `latency:100`",
            )
        if family not in self._families:
            raise LineError(
                f"{self._place} {number}: signal: no rule for this family",
                saw=f"{signal!r:.120}",
                do=f"use one of {', '.join(self._families)}, or add a rule for this family",
            )

    def _refuse_overlap(self, window: Window, number: int, last_number: int, last: Window) -> NoReturn:
        if window.end_s == last.end_s:
            raise LineError(
                f"{self._place} {number}: signal: a second window of `{window.signal}` that ends at {window.end_s}",
                saw=f"the first is on line {last_number}",
                do="add up the counts of one window, so that no event counts twice",
            )
        apart_s = _round(window.end_s - last.end_s)
        raise LineError(
            f"{self._place} {number}: window_s: the window overlaps the one before, so events would count twice",
            saw=f"`{window.signal}` {_span(last)} (line {last_number}), then {_span(window)} (line {number})",
            do=f"count only events since the window before: here `increase(x[{apart_s}s])`, or better the difference "
            f"of the raw counter; or send a window only every {_round(window.window_s)} s",
        )

    def _refuse(self, line: str | bytes, number: int, error: ValidationError, example: str) -> NoReturn:
        """Raise LineError that says which field of a line is wrong, and why."""
        first = listed(error)[0]
        what = ".".join(str(part) for part in first["loc"]) or "the line"
        message, saw = advice(first), first["input"]
        if first["type"] == "json_invalid":
            message = message.replace(" at line 1 column ", " at letter ")
        if first["type"] in ("json_invalid", TOO_MANY):
            saw = line.decode(errors="replace") if isinstance(line, bytes) else line
        do = f"write one window per line, like {example}"
        if isinstance(line, bytes) and line.startswith(_GZIP):
            message, do = "it is compressed", "unpack it: `gunzip --stdout FILE | kanaria judge -`"
        raise LineError(f"{self._place} {number}: {what}: {message}", saw=f"{saw!r:.120}", do=do) from error


def _usual(line: str | bytes) -> Window | None:
    """The window of a line in the usual form and without a mistake; None: `_WindowLine` must read the line."""
    found = _USUAL.fullmatch(line) if isinstance(line, bytes) else None
    if found is None:
        return None
    end_s, window_s, signal, stable_bad, stable, canary_bad, canary = found.groups()
    length_s = float(window_s)
    bad, total, own_bad, own_total = int(stable_bad), int(stable), int(canary_bad), int(canary)
    if length_s <= 0 or bad > total or own_bad > own_total:
        return None
    return Window(float(end_s), length_s, signal.decode(), _new_pair((bad, total)), _new_pair((own_bad, own_total)))


def _pair(counts: _PairLine) -> Pair | None:
    """The counts as whole numbers; None where they are not whole, or `bad` is above `total`."""
    bad, total = counts.bad, counts.total
    pair = Pair(int(bad), int(total))
    return pair if pair == (bad, total) and bad <= total else None


def _has_sums(line: str | bytes) -> bool:
    """Whether a line has sums of numbers. For a malformed line the answer may be wrong, which does no harm."""
    text = line if isinstance(line, bytes) else line.encode()
    return b'"count"' in text or b'"sum' in text


def _span(window: Window) -> str:
    return f"from {_round(window.end_s - window.window_s)} to {_round(window.end_s)}"


def _round(seconds: float) -> str:
    """To the millisecond: Unix times have more digits than their precision is worth."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


def _signal_object(signal: SignalJudgement) -> dict[str, object]:
    more = signal.more_requests_needed
    return {
        "verdict": signal.verdict.value,
        "log_e": signal.log_e,
        "threshold": signal.threshold if math.isfinite(signal.threshold) else None,
        "stable_ratio": signal.stable_ratio,
        "canary_ratio": signal.canary_ratio,
        "excess_upper": signal.excess_upper,
        "canary_requests": signal.canary.total,
        "more_requests_needed": "never" if more == math.inf else more,
        "decided_at_s": signal.decided_at_s,
    } | (_difference_object(signal.difference) if signal.difference else {})


def _difference_object(difference: Difference) -> dict[str, object]:
    """The fields that replace the shares of bad events where events are numbers."""
    return {
        "stable_ratio": None,
        "canary_ratio": None,
        "stable_mean": difference.stable,
        "canary_mean": difference.canary,
        "difference_least": difference.least,
        "difference_most": difference.most,
    }
