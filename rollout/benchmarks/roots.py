"""Brent's root finder with the absolute tolerance that R and Kayenta use for Mann-Whitney intervals.

Called by `kayenta`. SciPy's `brentq` stops elsewhere within the tolerance. On sparse errors both the estimate and the
interval lie within it of 0, so that where the search stops decides what Kayenta says.
Source: R. P. Brent, Algorithms for Minimization without Derivatives, 1973, chapter 4.
"""

import math
import sys
from collections.abc import Callable

_TOLERANCE = 1e-4
_ITERATIONS = 1000

Point = tuple[float, float]  # a place and the function there


def zero_in(function: Callable[[float], float], start: float, end: float) -> float:
    """A place within 1e-4 of where `function` changes its sign between `start` and `end`."""
    last, best, opposite = start, end, start
    f_last, f_best = function(start), function(end)
    if f_last == 0:
        return start
    f_opposite = f_last
    for _ in range(_ITERATIONS):
        step_before = best - last
        if abs(f_opposite) < abs(f_best):
            last, best, opposite = best, opposite, best
            f_last, f_best, f_opposite = f_best, f_opposite, f_best
        tolerance = 2 * sys.float_info.epsilon * abs(best) + _TOLERANCE / 2
        half = (opposite - best) / 2
        if abs(half) <= tolerance or f_best == 0:
            return best
        step = half
        if abs(step_before) >= tolerance and abs(f_last) > abs(f_best):
            inner = _interpolated((last, f_last), (best, f_best), (opposite, f_opposite))
            if 0 <= inner / half < 1.5 - tolerance / abs(2 * half) and abs(inner) < abs(step_before) / 2:
                step = inner
        if abs(step) < tolerance:
            step = math.copysign(tolerance, step)
        last, f_last = best, f_best
        best += step
        f_best = function(best)
        if f_best * f_opposite > 0:
            opposite, f_opposite = last, f_last
    return best


def _interpolated(last: Point, best: Point, opposite: Point) -> float:
    """The step from `best` to the root of a line, or of an inverse parabola where three places are known."""
    (x_last, f_last), (x_best, f_best), (x_opposite, f_opposite) = last, best, opposite
    width = x_opposite - x_best
    ratio = f_best / f_last
    if x_last == x_opposite:
        return width * ratio / (ratio - 1)
    q, r = f_last / f_opposite, f_best / f_opposite
    p = ratio * (width * q * (q - r) - (x_best - x_last) * (r - 1))
    return -p / ((q - 1) * (r - 1) * (ratio - 1))
