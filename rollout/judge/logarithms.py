"""Sums of numbers stored as natural logs, so that products over ten thousand windows neither overflow nor vanish."""

import math
from collections.abc import Iterable, Sequence

_NEWTON_STEPS = 60  # usually about 8 are enough
_PRECISION = 1e-12


def log_add(a: float, b: float) -> float:
    """Log of exp(`a`) + exp(`b`)."""
    if a < b:
        a, b = b, a
    return a + math.log1p(math.exp(b - a)) if b > -math.inf else a


def log_sum(logs: Iterable[float]) -> float:
    """Log of the sum of exp(`logs`); -inf for none."""
    terms = [*logs]
    if len(terms) == 1:
        return terms[0]
    largest = max(terms, default=-math.inf)
    if math.isinf(largest):
        return largest
    return largest + math.log(sum([math.exp(term - largest) for term in terms]))


def reached_at(level: float, logs: Sequence[float], slopes: Sequence[float], *, start: float) -> float:
    """The x below `start` where the log of the sum of exp(log + slope x) equals `level`.

    At `start` the function must be at least `level`. Newton's method: the function is convex, so the steps approach
    the crossing from above.
    """
    x = start
    for _ in range(_NEWTON_STEPS):
        at_x = [log + slope * x for log, slope in zip(logs, slopes, strict=True)]
        largest = max(at_x)
        shares = [math.exp(log - largest) for log in at_x]
        total = sum(shares)
        excess = largest + math.log(total) - level
        step = excess * total / sum([share * slope for share, slope in zip(shares, slopes, strict=True)])
        if step <= _PRECISION * abs(x):
            break
        x -= step
    return x
