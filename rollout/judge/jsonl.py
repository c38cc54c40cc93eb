"""JSON lines in, one JSON object out: the judge for any other system, be it a CI job, Argo Rollouts or a person.

`kanaria judge` calls it. One line is one window of one signal:
    {"end_s": 1700000005.0, "window_s": 5, "signal": "errors",
     "stable": {"bad": 3, "total": 812}, "canary": {"bad": 1, "total": 90}}
Pure: it reads no file and prints nothing.
"""

import math
from collections.abc import Collection, Iterable, Iterator
from itertools import groupby
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rollout.errors import RolloutError
from rollout.judge.types import DEFAULT_RULES, Judgement, Pair, SignalJudgement, Window

_EXAMPLE = (
    '{"end_s": 1700000005.0, "window_s": 5, "signal": "errors", '
    '"stable": {"bad": 3, "total": 812}, "canary": {"bad": 1, "total": 90}}'
)


class LineError(RolloutError):
    """A line that is not a window, or that does not follow the line before it."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _PairLine(_Part):
    bad: Annotated[int, Field(ge=0)]
    total: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _some_of_all(self) -> "_PairLine":
        if self.bad > self.total:
            raise ValueError(f"{self.bad} bad of only {self.total}")
        return self


class _WindowLine(_Part):
    end_s: float
    window_s: Annotated[float, Field(gt=0)]
    signal: str
    stable: _PairLine
    canary: _PairLine

    @field_validator("signal")
    @classmethod
    def _named_by_family(cls, signal: str) -> str:
        family, colon, key = signal.partition(":")
        if not family or (colon and not key):
            raise ValueError("write a family such as `errors`, or a family and a key such as `latency:100`")
        return signal


def parse_window(line: str | bytes, number: int, families: Collection[str]) -> Window:
    """The window of one JSON line.

    Args:
        number: what the error calls the line, from 1.
        families: those that will be judged.

    Raises: LineError, with the number, the field and the reason.
    """
    try:
        parsed = _WindowLine.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the line"
        raise LineError(
            f"line {number}: {place}: {first['msg'].removeprefix('Value error, ')}",
            saw=f"{first['input']!r:.120}",
            do=f"write one window per line, like {_EXAMPLE}",
        ) from error
    if parsed.signal.partition(":")[0] not in families:
        raise LineError(
            f"line {number}: signal: no rule for this family",
            saw=parsed.signal,
            do=f"use one of {', '.join(families)}, or give the family a rule",
        )
    return Window(
        end_s=parsed.end_s,
        window_s=parsed.window_s,
        signal=parsed.signal,
        stable=Pair(parsed.stable.bad, parsed.stable.total),
        canary=Pair(parsed.canary.bad, parsed.canary.total),
    )


def parse_ticks(
    lines: Iterable[str | bytes], families: Collection[str] = tuple(DEFAULT_RULES)
) -> Iterator[list[Window]]:
    """The windows of all lines, those that end together as one list. Works on an endless stream; skips empty lines.

    Raises: LineError, also for time that goes back and for a signal that comes twice in a tick.
    """
    numbered = ((number, parse_window(line, number, families)) for number, line in enumerate(lines, 1) if line.strip())
    for _, tick in groupby(_in_order(numbered), key=lambda window: window.end_s):
        yield list(tick)


def judgement_object(judgement: Judgement) -> dict[str, object]:
    """The judgement as `kanaria judge` prints it; ready for JSON, so without infinite numbers.

    A `more_requests_needed` of "never" cannot be shown at this base rate; a `threshold` of null cannot be reached.
    """
    return {
        "verdict": judgement.verdict.value,
        "signals": {name: _signal_object(signal) for name, signal in judgement.signals.items()},
        "reason": judgement.reason,
    }


def _in_order(windows: Iterable[tuple[int, Window]]) -> Iterator[Window]:
    end_s, seen = -math.inf, set[str]()
    for number, window in windows:
        if window.end_s < end_s:
            raise LineError(
                f"line {number}: end_s: time goes back",
                saw=f"{window.end_s} after {end_s}",
                do="sort the lines by `end_s`: evidence is judged in the order in which it came",
            )
        if window.end_s > end_s:
            end_s, seen = window.end_s, set()
        if window.signal in seen:
            raise LineError(
                f"line {number}: signal: a second window of `{window.signal}` that ends at {end_s}",
                saw=f"{window.signal} twice",
                do="add up what belongs to one window: no event may count twice",
            )
        seen.add(window.signal)
        yield window


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
