"""One column on two sides: how far apart they are, and how surely. Pure.

The distance means the same for numbers and for words: the share of rows that would have to be others. For
numbers it is that of Kolmogorov and Smirnov, for words the total variation distance. It is 0 to 1, knows no units, and
no outlier moves it. Rows of one request are often alike; they count as fewer by their design effect (Kish 1965,
Survey Sampling, 8.2), with the intraclass correlation measured on their ranks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from monitoring.drift.result import Direction

Values = NDArray[np.float64] | NDArray[np.str_]

_RARE = 5.0  # expected rows of a word under which the chi-squared distribution is no good approximation


@dataclass(frozen=True, slots=True)
class Column:
    """The values of some rows."""

    values: Values
    request: NDArray[np.int64]  # the request that each row came with

    @property
    def is_numeric(self) -> bool:
        return self.values.dtype.kind == "f"


@dataclass(frozen=True, slots=True)
class Difference:
    """How one column differs from its reference."""

    distance: float  # 0: the same, 1: no value in common
    p_value: float  # chance of such a distance where nothing changed
    direction: Direction
    says: str  # what changed most, in words


def difference(reference: Column, current: Column) -> Difference:
    """Compare two columns of one kind, neither of them empty."""
    sizes = effective_rows(reference), effective_rows(current)
    if reference.is_numeric:
        return _of_numbers(reference.values, current.values, sizes)
    return _of_words(reference.values, current.values, sizes)


def effective_rows(column: Column) -> float:
    """How many independent rows tell as much as these do: between the number of requests and that of rows."""
    _, request, sizes = np.unique(column.request, return_inverse=True, return_counts=True)
    rows, requests = len(request), len(sizes)
    if requests in (1, rows):
        return float(requests)
    if column.is_numeric:
        values = stats.rankdata(column.values)[:, None]
    else:
        values = (column.values[:, None] == np.unique(column.values)).astype(np.float64)
    values = values - values.mean(axis=0)
    means = np.stack([np.bincount(request, one) for one in values.T], axis=1) / sizes[:, None]
    between = float((sizes[:, None] * means**2).sum())
    within = float((values**2).sum()) - between
    typical_size = (rows - (sizes**2).sum() / rows) / (requests - 1)
    of_requests, of_rows = between / (requests - 1), within / (rows - requests)
    spread = of_requests + (typical_size - 1) * of_rows
    alike = np.clip((of_requests - of_rows) / spread, 0.0, 1.0) if spread > 0 else 0.0
    return float(rows / (1 + ((sizes**2).sum() / rows - 1) * alike))


def _of_numbers(reference: Values, current: Values, sizes: tuple[float, float]) -> Difference:
    before, after = np.sort(reference), np.sort(current)
    seen = np.concatenate([before, after])
    shares = [np.searchsorted(side, seen, side="right") / len(side) for side in (before, after)]
    distance = float(np.abs(shares[0] - shares[1]).max())
    independent = max(1, int(sizes[0] * sizes[1] / (sizes[0] + sizes[1])))
    mean_before, mean_after = float(before.mean()), float(after.mean())
    direction: Direction = "up" if mean_after > mean_before else "down" if mean_after < mean_before else "shape"
    p_value = float(stats.kstwo.sf(distance, independent))
    return Difference(distance, p_value, direction, f"mean {mean_before:.4g} -> {mean_after:.4g}")


def _of_words(reference: Values, current: Values, sizes: tuple[float, float]) -> Difference:
    words = np.unique(np.concatenate([reference, current]))
    shares = np.array([[np.mean(side == word) for word in words] for side in (reference, current)])
    change = shares[1] - shares[0]
    most = int(np.abs(change).argmax())
    says = f"`{words[most]}` {shares[0, most]:.1%} -> {shares[1, most]:.1%}"
    return Difference(float(np.abs(change).sum() / 2), _p_of_words(shares, sizes), "shape", says)


def _p_of_words(shares: NDArray[np.float64], sizes: tuple[float, float]) -> float:
    """Pearson's test of homogeneity on the effective rows; rare words are one word."""
    counts = shares * np.array(sizes)[:, None]
    expected = counts.sum(axis=0) * min(sizes) / sum(sizes)
    is_rare = expected < _RARE
    counts = np.column_stack([counts[:, ~is_rare], counts[:, is_rare].sum(axis=1)])
    counts = counts[:, counts.sum(axis=0) > 0]
    return float(stats.chi2_contingency(counts, correction=False).pvalue) if counts.shape[1] > 1 else 1.0
