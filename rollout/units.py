"""Durations and shares as people write them in a plan: `10m` is 600 seconds, `0.5%` is the ratio 0.005."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo

WRITTEN_BY_A_PERSON = "written by a person"  # as the context of a validation: a share needs its sign
KEPT_IN_A_LEDGER = "kept in a ledger"  # likewise: what was allowed once can be read

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST_S = 7 * 86400
_MOST_REQUESTS = 10**12
_LEAST_COMPARED = 0.01  # of fewer requests, pairs come too rarely to tell anything in a release
_DURATION = r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)"


def seconds_in(value: Any) -> int | float | None:
    """A duration as people write it, in seconds; None for everything else."""
    return _number(value, _DURATION)


def written(seconds: float) -> str:
    """A duration as people write it in a plan, in the largest unit in which it is whole."""
    unit = next(unit for unit in reversed(_UNITS_S) if unit == "ms" or seconds % _UNITS_S[unit] == 0)
    return f"{seconds / _UNITS_S[unit]:g}{unit}"


def _seconds(value: Any) -> int | float:
    seconds = seconds_in(value)
    if seconds is None or not 0 < seconds <= _LONGEST_S:
        raise ValueError("write a duration such as 30s, 10m or 1h: more than 0, and at most 7d")
    return seconds


def _seconds_or_none(value: Any) -> int | float:
    seconds = 0 if value in (None, "none") else seconds_in(value)
    if seconds is None or not 0 <= seconds <= _LONGEST_S:
        raise ValueError("write a duration such as 30s or 10m, at most 7d, or `none`")
    return seconds


def ratio_in(value: Any, info: ValidationInfo) -> int | float:
    """A share as people write it, as a ratio. Raises ValueError that says what to write."""
    _need_percent(value, info)
    ratio = _number(value, r"(\d+(?:\.\d+)?)\s*(%)")
    if ratio is None or not 0 < ratio < 1:
        raise ValueError("write a share such as 0.5%: more than 0%, and less than 100%")
    return ratio


def _minority_or_none(value: Any, info: ValidationInfo) -> int | float:
    _need_percent(value, info)
    ratio = 0 if value in (None, "none") else _number(value, r"(\d+(?:\.\d+)?)\s*(%)")
    if ratio is None or not 0 <= ratio < 0.5:
        raise ValueError("write a share such as 5%, less than 50%, or `none`")
    return ratio


def _compared_or_none(value: Any, info: ValidationInfo) -> int | float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if info.context == WRITTEN_BY_A_PERSON and is_number and 0 < value <= 1:
        raise ValueError(f"write a share from {_LEAST_COMPARED:.0%} to 100% with its sign, such as 10%")
    ratio = 0 if value in (None, "none") else _number(value, r"(\d+(?:\.\d+)?)\s*(%)")
    if ratio is None or not (ratio == 0 or _LEAST_COMPARED <= ratio <= 1):
        raise ValueError(f"write a share from {_LEAST_COMPARED:.0%} to 100%, such as 10%, or `none`")
    return ratio


def _need_percent(value: Any, info: ValidationInfo) -> None:
    """In a plan as a person writes it, 0.5 may mean 50 % or 0.5 %."""
    if info.context == WRITTEN_BY_A_PERSON and isinstance(value, int | float) and 0 < value < 1:
        raise ValueError(f"write `{value:g}%` or `{100 * value:g}%`: without the sign it may mean either")


def _requests_or_none(value: Any) -> int | None:
    if value in (None, "none"):
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST_REQUESTS:
        raise ValueError(f"write a whole number of requests from 1 to {_MOST_REQUESTS:,}, without commas, or `none`")
    return value


def _number(value: Any, pattern: str) -> int | float | None:
    """A number, or a text of the form of `pattern`; None for everything else."""
    if isinstance(value, str):
        match = re.fullmatch(pattern, value.strip())
        if match is None:
            return None
        return float(match[1]) / 100 if match[2] == "%" else float(match[1]) * _UNITS_S[match[2]]
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _multiple(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("write a number such as 1.25")
    return value


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=_LONGEST_S, allow_inf_nan=False)]
SecondsOrNone = Annotated[  # 0: none
    float, BeforeValidator(_seconds_or_none), Field(ge=0, le=_LONGEST_S, allow_inf_nan=False)
]
Ratio = Annotated[float, BeforeValidator(ratio_in), Field(gt=0, lt=1, allow_inf_nan=False)]
MinorityOrNone = Annotated[  # 0: none
    float, BeforeValidator(_minority_or_none), Field(ge=0, lt=0.5, allow_inf_nan=False)
]
ComparedOrNone = Annotated[  # 0: none
    float, BeforeValidator(_compared_or_none), Field(ge=0, le=1, allow_inf_nan=False)
]
RequestsOrNone = Annotated[int | None, BeforeValidator(_requests_or_none)]
Multiple = Annotated[float, BeforeValidator(_multiple), Field(ge=1, allow_inf_nan=False)]
