"""Sums of numbers that are kept as natural logs, so that ten thousand windows neither overflow nor vanish."""

import math
from collections.abc import Iterable


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
