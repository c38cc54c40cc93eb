"""Compares one column of two samples: how far apart they are, and whether chance explains the distance.

The distance means the same for numbers and for words: the share of rows that would have to change. For numbers it is
the Kolmogorov-Smirnov distance, for words the total variation distance. It is 0 to 1, does not depend on units, and is
robust to outliers. A number counts as changed only if it moved by more than `_least_change`: otherwise the distance
would be 1 for 0.89999998 instead of 0.9. Missing numbers (NaN, infinity) count as one more value, above all others.
Rows of one request are often alike. They count as fewer rows, by their design effect (Kish 1965, Survey Sampling, 8.2),
with the intraclass correlation measured on their ranks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from monitoring.drift.result import Direction

Numbers = NDArray[np.float64]
Values = Numbers | NDArray[np.str_]

_OF_SPREAD = 0.02  # of a standard deviation; a normal column drifts only if it moves by 0.25
_OF_SIZE = 1e-5  # of the number itself, if the column hardly varies; float32 is exact to 1e-7
_OF_ZERO = 1e-9  # absolute, if the reference is always 0 and so has no size
_IQR_OF_SD = 1.349  # the interquartile range of a normal distribution, in standard deviations
_RARE = 5.0  # with fewer expected rows of a word, the chi-squared distribution is a poor approximation


@dataclass(frozen=True, slots=True)
class Column:
    """The values of one column in some rows."""

    values: Values
    request: NDArray[np.int64]  # the request of each row

    @property
    def is_numeric(self) -> bool:
        return self.values.dtype.kind == "f"


@dataclass(frozen=True, slots=True)
class Difference:
    """How one column differs from its reference."""

    distance: float  # 0: the same, 1: no value in common
    p_value: float  # probability of such a distance if nothing changed
    direction: Direction
    says: str  # the largest change, in words


def difference(reference: Column, current: Column) -> Difference:
    """Compare two columns of the same kind, neither of them empty."""
    sizes = effective_rows(reference), effective_rows(current)
    if reference.is_numeric:
        return _of_numbers(reference.values, current.values, sizes)
    return _of_words(reference.values, current.values, sizes)


def effective_rows(column: Column) -> float:
    """The number of independent rows with the same information: between the number of requests and that of rows."""
    _, request, sizes = np.unique(column.request, return_inverse=True, return_counts=True)
    rows, requests = len(request), len(sizes)
    if requests in (1, rows):
        return float(requests)
    if column.is_numeric:
        values = stats.rankdata(_missing_last(column.values))[:, None]
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
    before, after = (np.sort(_missing_last(side)) for side in (reference, current))
    distance = max(_share_above(before, after, before), _share_above(after, before, before))
    independent = max(1, int(sizes[0] * sizes[1] / (sizes[0] + sizes[1])))
    mean_before, mean_after = (
        float(side[np.isfinite(side)].mean()) if side[0] < np.inf else np.nan for side in (before, after)
    )
    direction: Direction = "up" if mean_after > mean_before else "down" if mean_after < mean_before else "shape"
    p_value = float(stats.kstwo.sf(distance, independent))
    says = "" if np.isnan([mean_before, mean_after]).any() else f"mean {mean_before:.4g} -> {mean_after:.4g}"
    missing = [100 * float(np.isinf(side).mean()) for side in (before, after)]
    if any(missing):
        says = f"{says}{', ' if says else ''}missing {missing[0]:.3g}% -> {missing[1]:.3g}%"
    return Difference(distance, p_value, direction, says)


def _missing_last(values: Values) -> Numbers:
    """The numbers, with infinity for each missing one."""
    numbers = values.astype(np.float64)
    return np.where(np.isfinite(numbers), numbers, np.inf)


def _share_above(low: Numbers, high: Numbers, reference: Numbers) -> float:
    """The largest share of rows by which `high` is above `low`, each by more than `_least_change`. Both are sorted."""
    least_above = low + _least_change(low, reference)
    below = np.arange(1, len(low) + 1) / len(low)
    return max(0.0, float((below - np.searchsorted(high, least_above, side="right") / len(high)).max()))


def _least_change(values: Numbers, reference: Numbers) -> Numbers:
    """The least difference at which each of `values` counts as changed."""
    present = reference[np.isfinite(reference)]
    quarter, three_quarters = np.percentile(present, [25, 75]) if len(present) else (0.0, 0.0)
    least: Numbers = _OF_SPREAD * (three_quarters - quarter) / _IQR_OF_SD + _OF_SIZE * np.abs(values)
    return least if present.any() else least + _OF_ZERO


def _of_words(reference: Values, current: Values, sizes: tuple[float, float]) -> Difference:
    words = np.unique(np.concatenate([reference, current]))
    shares = np.array([[np.mean(side == word) for word in words] for side in (reference, current)])
    change = shares[1] - shares[0]
    most = int(np.abs(change).argmax())
    says = f"`{words[most]}` {100 * shares[0, most]:.3g}% -> {100 * shares[1, most]:.3g}%"
    return Difference(float(np.abs(change).sum() / 2), _p_of_words(shares, sizes), "shape", says)


def _p_of_words(shares: NDArray[np.float64], sizes: tuple[float, float]) -> float:
    """Pearson's test of homogeneity on the effective rows, with all rare words combined."""
    counts = shares * np.array(sizes)[:, None]
    expected = counts.sum(axis=0) * min(sizes) / sum(sizes)
    is_rare = expected < _RARE
    counts = np.column_stack([counts[:, ~is_rare], counts[:, is_rare].sum(axis=1)])
    counts = counts[:, counts.sum(axis=0) > 0]
    return float(stats.chi2_contingency(counts, correction=False).pvalue) if counts.shape[1] > 1 else 1.0
