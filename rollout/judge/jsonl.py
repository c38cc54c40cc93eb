"""JSON lines in, one JSON object out: the judge for a CI job, Argo Rollouts, a person or any other system.

One line is one window of one signal:
    {"end_s": 1700000005.0, "window_s": 5, "signal": "errors",
     "stable": {"bad": 3, "total": 812}, "canary": {"bad": 1, "total": 90}}
It reads no file and prints nothing.
"""

import math
from collections.abc import Collection, Iterable, Iterator
from typing import Annotated, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract.complaints import advice
from rollout.errors import RolloutError
from rollout.judge.types import Judgement, Pair, SignalJudgement, Window

_EXAMPLE = (
    '{"end_s": 1700000005.0, "window_s": 5, "signal": "errors", '
    '"stable": {"bad": 3, "total": 812}, "canary": {"bad": 1, "total": 90}}'
)
_TOO_MANY = 2**53  # from here on a float, which JSON numbers often are on their way here, loses single events
_JITTER = 0.01  # of a window: its ends are read from clocks, and so many of its events may count twice unnoticed
_GZIP = b"\x1f\x8b"

_Count = Annotated[float, Field(ge=0, lt=_TOO_MANY)]  # a float, because `3.0` and `1e3` are whole numbers, too


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


def parse_windows(
    lines: Iterable[str | bytes], families: Collection[str], *, name: str = "", is_history: bool = False
) -> Iterator[Window]:
    """The windows of all lines, in their order. Works on an endless stream, skips empty lines.

    Args:
        families: those that will be judged.
        name: of the file, for errors; empty: there is only one.
        is_history: stable alone was measured, so that lines may leave out `canary`.

    Raises: LineError, with the line's number, the field and the reason; also for time that goes back, and for windows
    of one signal that overlap, since their events would count twice.
    """
    reader = _Reader(families, f"{name}, line" if name else "line", _HistoryLine if is_history else _WindowLine)
    return (reader.window(line, number) for number, line in enumerate(lines, 1) if line.strip())


def judgement_object(judgement: Judgement) -> dict[str, object]:
    """The judgement as `kanaria judge` prints it; ready for JSON, so without infinite numbers.

    With a `more_requests_needed` of "never" no number of requests is enough at this base rate; a `threshold` of null
    cannot be reached.
    """
    return {
        "verdict": judgement.verdict.value,
        "signals": {name: _signal_object(signal) for name, signal in judgement.signals.items()},
        "reason": judgement.reason,
    }


class _Reader:
    """Reads line after line, and knows the last window of each signal."""

    def __init__(self, families: Collection[str], place: str, kind: type[_WindowLine]) -> None:
        self._families, self._place = families, place
        self._read = kind.__pydantic_validator__.validate_json
        self._end_s = -math.inf
        self._last: dict[str, tuple[int, Window]] = {}  # by signal, with the line's number

    def window(self, line: str | bytes, number: int) -> Window:
        """The window of one line. Raises LineError."""
        try:
            parsed: _WindowLine = self._read(line)
        except ValidationError as error:
            self._refuse(line, number, error)
        signal, end_s, window_s = parsed.signal, parsed.end_s, parsed.window_s
        stable, canary = _pair(parsed.stable), _pair(parsed.canary)
        if stable is None or canary is None:
            self._refuse_counts(parsed, number)
        window = Window(end_s, window_s, signal, stable, canary)
        if end_s < self._end_s:
            raise LineError(
                f"{self._place} {number}: end_s: time goes back",
                saw=f"{end_s} after {self._end_s}",
                do="sort the lines by `end_s`: evidence is judged in the order of time",
            )
        if last := self._last.get(signal):
            if end_s - window_s < last[1].end_s - _JITTER * window_s:
                self._refuse_overlap(window, number, *last)
        else:
            self._check_name(signal, number)
        self._end_s = end_s
        self._last[signal] = number, window
        return window

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
            do="count the bad events in `total`, too",
        )

    def _check_name(self, signal: str, number: int) -> None:
        family, colon, key = signal.partition(":")
        if not family or (colon and not key):
            raise LineError(
                f"{self._place} {number}: signal: neither a family nor a family and a key",
                saw=repr(signal),
                do="write a family such as `errors`, or a family and a key such as `latency:100`",
            )
        if family not in self._families:
            raise LineError(
                f"{self._place} {number}: signal: no rule for this family",
                saw=f"{signal!r:.120}",
                do=f"use one of {', '.join(self._families)}, or give the family a rule",
            )

    def _refuse_overlap(self, window: Window, number: int, last_number: int, last: Window) -> NoReturn:
        if window.end_s == last.end_s:
            raise LineError(
                f"{self._place} {number}: signal: a second window of `{window.signal}` that ends at {window.end_s}",
                saw=f"the first is on line {last_number}",
                do="add up the counts of one window: no event may count twice",
            )
        apart_s = _round(window.end_s - last.end_s)
        raise LineError(
            f"{self._place} {number}: window_s: it overlaps the window before, and events would count twice",
            saw=f"`{window.signal}` {_span(last)} (line {last_number}), then {_span(window)} (line {number})",
            do=f"count what is new since the window before: here `increase(x[{apart_s}s])`, or better the difference "
            f"of the raw counter; or give a window every {_round(window.window_s)} s only",
        )

    def _refuse(self, line: str | bytes, number: int, error: ValidationError) -> NoReturn:
        """Say which field of a line is wrong, and why."""
        first = error.errors(include_url=False)[0]
        what = ".".join(str(part) for part in first["loc"]) or "the line"
        message, saw = advice(first), first["input"]
        if first["type"] == "json_invalid":
            message = message.replace(" at line 1 column ", " at letter ")
            saw = line.decode(errors="replace") if isinstance(line, bytes) else line
        do = f"write one window per line, like {_EXAMPLE}"
        if isinstance(line, bytes) and line.startswith(_GZIP):
            message, do = "it is compressed", "unpack it: `gunzip --stdout FILE | kanaria judge -`"
        raise LineError(f"{self._place} {number}: {what}: {message}", saw=f"{saw!r:.120}", do=do) from error


def _pair(counts: _PairLine) -> Pair | None:
    """None where they are no counts of events, some of them bad."""
    bad, total = counts.bad, counts.total
    pair = Pair(int(bad), int(total))
    return pair if pair == (bad, total) and bad <= total else None


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
    }
