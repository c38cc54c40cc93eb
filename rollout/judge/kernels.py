"""Evidence in one window of counts that the canary is worse than stable: log e-values, one per odds ratio.

An e-value is a number whose mean is at most 1 when the canary is harmless. Products of e-values over windows are
e-values as well, so the evidence may be judged after every window (Ville 1939). `rare` and `exact` compare with stable
given the window's totals, so neither a changing weight nor a drifting base rate can mislead them; `bounded` compares
with a fixed share.
Sources: Fisher's exact test; Hoeffding 1963, theorem 4; Turner & Gruenwald, arXiv:2302.11401; Wald 1945.
"""

import math
from collections.abc import Iterator, Sequence
from math import log

import numpy as np
from numpy.typing import NDArray

from rollout.judge.types import Pair

_FEW = 20  # up to this many values of x, all terms are summed; each is at most 1e170 times the first and fits a float
_NEGLIGIBLE = 1e-12  # a term this small relative to the largest ends a sum; a bound on the tail is added
_SMALL = 32  # below this, Stirling's series is not exact enough, and factorials are tabulated
_LOG_FACTORIALS = np.array([math.lgamma(n + 1) for n in range(_SMALL)])
_HALF_LOG_2PI = math.log(2 * math.pi) / 2
_WIDE = 10.0  # standard deviation, in events, from which sampling the terms is faster than adding all of them
_BATCH = 512  # sums computed together
_STRETCH = 24  # terms added at a time: the same for all, so that no sum depends on the others computed with it
_MANY = 12  # comparisons from which it is faster to look for equal totals than to compute every sum
_MIXER = np.sqrt([2.0, 3.0, 5.0, 7.0])  # of a hash: linearly independent over the integers
_STEPS = np.arange(1.0, 15.0)  # sampled terms on each side of the largest; they reach 8 standard deviations

Numbers = NDArray[np.float64]


def rare(
    stable: Pair, canary: Pair, *, odds_ratios: Sequence[float], tolerance: float = 1.0, margin: float = 0.0
) -> list[float]:
    """Log e-values against "canary's bad ratio is at most `tolerance` x stable's + `margin`", in O(1).

    The binomial likelihood ratio of the canary's share of all bad events. It is about as strong as `exact` while bad
    events are rare: 98 % of its growth at 1 % bad, 75 % at 20 %.

    Args:
        odds_ratios: the alternatives r > 1; one e-value each.
        tolerance: at least 1; below 1 the mean exceeds 1.
        margin: harmless additive excess of the bad ratio, at least 0.

    Source: Hoeffding 1963; Lindon & Malek, arXiv:2011.03567.
    """
    if not stable.total or not canary.total:
        return [0.0] * len(odds_ratios)
    bad = stable.bad + canary.bad
    share = tolerance * canary.total / (tolerance * canary.total + stable.total)
    allowed = margin * canary.total * (1 - share)
    own_bad = canary.bad
    return [
        own_bad * log(r) - bad * log(inflation := 1 + share * (r - 1)) - allowed * (r - 1) / inflation
        for r in odds_ratios
    ]


def exact(stable: Pair, canary: Pair, *, odds_ratios: Sequence[float], tolerance: float = 1.0) -> list[float]:
    """Log e-values against "canary's odds of a bad event are at most `tolerance` x stable's".

    The likelihood ratio of Fisher's noncentral hypergeometric distribution of the canary's bad events,
    given all totals: odds ratio `tolerance * r` against `tolerance`. Both sums are replaced by bounds on the
    safe side, so the result exceeds the true value at most by rounding: less than 2e-9 up to 10^7 events.

    Args:
        odds_ratios: the alternatives r > 1; one e-value each.
        tolerance: at least 1; below 1 the mean exceeds 1.
    """
    bad = stable.bad + canary.bad
    if stable.total and canary.total and min(canary.total, bad) - max(0, bad - stable.total) <= _FEW:
        return _exact_of_few(stable, canary, odds_ratios, tolerance)
    found: list[float] = exact_of_all([(stable, canary, tolerance)], odds_ratios=odds_ratios)[0].tolist()
    return found


def exact_of_all(
    comparisons: Sequence[tuple[Pair, Pair, float]],
    *,
    odds_ratios: Sequence[float],
    floors: Numbers | None = None,
) -> Numbers:
    """`exact` of every (stable, canary, tolerance), much faster than one by one.

    Args:
        floors: log e-values in the returned shape; where the result would be below, any smaller number may be returned.

    Returns: log e-values; shape (comparisons, odds ratios).
    """
    rows = [(*stable, *canary, tolerance) for stable, canary, tolerance in comparisons]
    columns = np.array(rows, dtype=np.float64).reshape(-1, 5).T
    every = Comparisons(*columns, odds_ratios=odds_ratios)
    return every.log_e(np.ones_like(every.most, dtype=bool) if floors is None else every.most >= floors)


class Comparisons:
    """Many comparisons at once. Comparisons with the same totals share their sums, for example many equal classes.

    Args:
        stable_bad: one number for each comparison, in any shape; all arguments but `odds_ratios` have the same shape.
        odds_ratios: see `exact`.
    """

    def __init__(
        self,
        stable_bad: Numbers,
        stable: Numbers,
        canary_bad: Numbers,
        canary: Numbers,
        tolerances: Numbers,
        *,
        odds_ratios: Sequence[float],
    ) -> None:
        bad = stable_bad + canary_bad
        self._used = ((stable > 0) & (canary > 0) & (bad > 0)).nonzero()
        totals = np.array([each[self._used] for each in (stable, canary, bad, tolerances)])
        places, self._of_sum = _distinct(totals)
        n_s, n_c, k, tolerance = totals[:, places, np.newaxis]
        log_r = np.log(np.array(odds_ratios))
        self._log_odds = np.log(tolerance) + np.append(0.0, log_r)
        self._parts = _largest_at(n_s, n_c, k, np.exp(self._log_odds))
        largest = _log_largest(self._parts, n_s + n_c, self._log_odds)
        likelier = (largest[:, :1] - largest[:, 1:])[self._of_sum]
        self._of_largest = canary_bad[self._used][:, np.newaxis] * log_r + likelier
        self._terms = np.log(np.minimum(n_c, k) - np.maximum(0, k - n_s) + 1)[self._of_sum]
        # Upper bounds of the log e-values: a sum is at most its largest term times the number of terms.
        self.most = np.zeros((*bad.shape, len(odds_ratios)))
        self.most[self._used] = self._of_largest + self._terms

    def log_e(self, is_wanted: NDArray[np.bool_]) -> Numbers:
        """Log e-values, one for each odds ratio.

        Args:
            is_wanted: shape of `most`. Where false, no sum is computed, and the result is a lower bound.
        """
        is_wanted = is_wanted[self._used]
        is_summed = np.zeros_like(self._log_odds, dtype=bool)
        comparison, ratio = is_wanted.nonzero()
        summed = self._of_sum[comparison]
        is_summed[summed, 1 + ratio] = is_summed[summed, 0] = True
        lower, upper = np.zeros_like(self._log_odds), np.zeros_like(self._log_odds)
        lower[is_summed], upper[is_summed] = _log_sums(self._parts[:, is_summed], self._log_odds[is_summed])
        log_e = np.zeros_like(self.most)
        of_sums = (lower[:, :1] - upper[:, 1:])[self._of_sum]
        log_e[self._used] = self._of_largest + np.where(is_wanted, of_sums, -self._terms)
        return log_e


def bounded(canary: Pair, *, odds_ratios: Sequence[float], limit: float) -> list[float]:
    """Log e-values against "each event is bad with probability at most `limit`, whatever came before it", in O(1).

    The binomial likelihood ratio of odds r times those of `limit` against `limit`: its mean is 1 at the limit, and
    smaller below it. There is no comparison with another version, and events need not be independent.

    Args:
        odds_ratios: the alternatives r > 1; one e-value each.
        limit: harmless share of bad events, above 0 and below 1.

    Source: Wald 1945, Ann. Math. Statist. 16(2), 117-186.
    """
    return [canary.bad * math.log(r) - canary.total * math.log1p(limit * (r - 1)) for r in odds_ratios]


def _exact_of_few(stable: Pair, canary: Pair, odds_ratios: Sequence[float], tolerance: float) -> list[float]:
    """`exact` where the number of canary's bad events has few possible values: one row of terms serves all ratios."""
    n_s, n_c, k = stable.total, canary.total, stable.bad + canary.bad
    fewest = max(0, k - n_s)
    terms = [1.0]  # C(n_c, u) C(n_s, k-u) relative to the first
    for u in range(fewest, min(n_c, k)):
        terms.append(terms[-1] * (n_c - u) * (k - u) / ((u + 1) * (n_s - k + u + 1)))
    terms.reverse()

    def log_sum_at(odds: float) -> float:
        total = 0.0
        for term in terms:
            total = total * odds + term
        return log(total)

    harmless = log_sum_at(tolerance)
    return [(canary.bad - fewest) * log(r) + harmless - log_sum_at(tolerance * r) for r in odds_ratios]


def _distinct(columns: Numbers) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The first column with each distinct combination of values, and for every column the index of its combination."""
    every = np.arange(columns.shape[1])
    if len(every) < _MANY:
        return every, every
    hashes = _MIXER @ columns
    _, places, of_place = np.unique(hashes, return_index=True, return_inverse=True)
    if (columns[:, places[of_place]] == columns).all():
        return places, of_place
    return every, every  # two combinations share a hash


def _largest_at(n_s: Numbers, n_c: Numbers, k: Numbers, odds: Numbers) -> Numbers:
    """The position u of the largest term of Z(odds), Z(o) = sum over u of C(n_c, u) C(n_s, k-u) o^u.

    Returns: u, n_c - u, k - u and n_s - k + u there; shape (4, ...).
    """
    u = np.ceil(_crossing(n_s, n_c, k, odds))
    u = np.minimum(np.maximum(u, np.maximum(0, k - n_s)), np.minimum(n_c, k))  # np.clip is slow where there are few
    return np.array((u, n_c - u, k - u, n_s - k + u))


def _log_sums(parts: Numbers, log_odds: Numbers) -> tuple[Numbers, Numbers]:
    """Lower and upper bounds of the logs of sums, each divided by its largest term; shape (sums,).

    The terms are log-concave in u: outwards from the largest they fall ever faster, so a geometric series
    bounds the terms left out.

    Args:
        parts: of the largest terms, see `_largest_at`; shape (4, sums).
        log_odds: shape (sums,).
    """
    total, tail, error = np.ones_like(log_odds), np.zeros_like(log_odds), np.zeros_like(log_odds)
    spread = (1 / (parts + 1)).sum(axis=0) ** -0.5
    is_wide = spread >= _WIDE
    stride = np.floor(0.6 * spread)
    for at in _batches(np.flatnonzero(is_wide)):
        total[at], tail[at], error[at] = _sample(parts[:, at], log_odds[at], stride=stride[at])
    for at in _batches(np.flatnonzero(~is_wide)):
        a, b, c, d = parts[:, at]
        odds = np.exp(log_odds[at])
        for falling, rising, step_odds in (((b, c), (a, d), odds), ((a, d), (b, c), 1 / odds)):
            summed, left_out = _walk(falling, rising, step_odds)
            total[at] += summed
            tail[at] += left_out
    return np.log(total) - np.log1p(error), np.log(total + tail) - np.log1p(-error)


def _batches(places: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Splits into batches whose terms fit into the processor's cache."""
    for first in range(0, len(places), _BATCH):
        yield places[first : first + _BATCH]


def _log_largest(parts: Numbers, total: Numbers, log_odds: Numbers) -> Numbers:
    """Log of the largest term, up to a constant that depends on the totals only.

    Stirling's formula with each part divided by the grand total: a sum of log-gammas would be 1e8 at ten million
    events, and would lose eight digits.
    """
    few = np.minimum(parts, _SMALL - 1)
    small = few + _LOG_FACTORIALS[few.astype(int)] - (few + 0.5) * np.log(total) - _HALF_LOG_2PI
    many = np.maximum(parts, _SMALL)
    large = (many + 0.5) * np.log(many / total) + _stirling(many)
    log_term: Numbers = parts[0] * log_odds - np.where(parts < _SMALL, small, large).sum(axis=0)
    return log_term


def _stirling(n: Numbers) -> Numbers:
    """log(n!) minus its leading part (n + 1/2) log n - n + log(2 pi)/2, to 1e-13 for n of at least 32."""
    inverse = 1 / (n * n)
    return (1 / 12 - inverse * (1 / 360 - inverse / 1260)) / n


def _crossing(n_s: Numbers, n_c: Numbers, k: Numbers, odds: Numbers) -> Numbers:
    """Where the ratio of neighbouring terms falls through 1."""
    b = odds * (n_c + k) + (n_s - k + 2)
    c = odds * n_c * k - (n_s - k + 1)
    return 2 * c / (b + np.sqrt(b * b - 4 * (odds - 1) * c))


def _walk(falling: tuple[Numbers, Numbers], rising: tuple[Numbers, Numbers], odds: Numbers) -> tuple[Numbers, Numbers]:
    """Sums of all terms on one side of the largest, relative to it, and bounds on the terms left out.

    Args:
        falling: the two parts of the largest term that fall by 1 with each step; shape (sums,).
        rising: the two parts that rise by 1.
        odds: factor of each step.
    """
    total, tail, term = np.zeros_like(odds), np.zeros_like(odds), np.ones_like(odds)
    going, steps = np.arange(len(odds)), np.arange(float(_STRETCH))
    while len(going):
        (a, b), (c, d) = ((part[going, np.newaxis] for part in two) for two in (falling, rising))
        ratios = odds[going, np.newaxis] * ((a - steps) * (b - steps)) / ((c + 1 + steps) * (d + 1 + steps))
        terms = term[going, np.newaxis] * np.cumprod(ratios, axis=1)  # 0 once a falling part is 0
        total[going] += terms.sum(axis=1)
        last, ratio = terms[:, -1], ratios[:, -1]
        is_cut = (last > 0) & (last < _NEGLIGIBLE)
        tail[going[is_cut]] = (last * ratio)[is_cut] / (1 - ratio[is_cut])
        term[going] = last
        going, steps = going[last >= _NEGLIGIBLE], steps + _STRETCH
    return total, tail


def _sample(parts: Numbers, log_odds: Numbers, *, stride: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Sums relative to their largest terms, from every `stride`-th term: about 30 terms whatever the totals.

    Args:
        parts: of each largest term u, n_c - u, k - u and n_s - k + u; shape (4, sums).
        log_odds: shape (sums,), like `stride` and all three results.

    Returns: the sums, bounds on the tails left out, and bounds on the relative error of sampling.

    Why this is valid, with h = stride: the sum over u = a mod h is (1/h) sum over j of P(w^j) w^(-ja), where
    w = exp(2 pi i/h) and P is the generating polynomial of the terms. P has only real roots, so u is distributed as
    a sum of independent Bernoulli variables; with V its variance, |P(w^j)| <= P(1) exp(-V (1 - cos(2 pi j/h))).
    So h times the sampled sum is the whole up to a relative error of (h-1) exp(-V (1 - cos(2 pi/h))).
    And V >= (1/M^2 - 1)/12, M the largest probability: u plus a uniform variable has a density of at most M.
    And 1/M, the whole over the largest term, is at least the sum of the chords: by log-concavity the terms between
    two samples lie above the geometric sequence that joins them.
    """
    sampled, tail = np.ones_like(stride), np.zeros_like(stride)
    chords = -np.ones_like(stride)  # the largest term begins a chord on both sides
    for steps in (_STEPS, -_STEPS):
        terms = _terms_at(stride[:, np.newaxis] * steps, parts[:, :, np.newaxis], log_odds[:, np.newaxis])
        nearer = np.hstack((np.ones_like(terms[:, :1]), terms[:, :-1]))
        ratios = np.divide(terms, nearer, out=np.zeros_like(terms), where=nearer > 0)
        roots = ratios ** (1 / stride[:, np.newaxis])
        falling = np.divide(nearer - terms, 1 - roots, out=np.zeros_like(terms), where=roots < 1)
        chords += np.where(roots < 1, falling, stride[:, np.newaxis] * nearer).sum(axis=1)
        sampled += terms.sum(axis=1)
        tail += terms[:, -1] * ratios[:, -1] / (1 - ratios[:, -1])
    variance = (chords * chords - 1) / 12
    error = (stride - 1) * np.exp(-variance * (1 - np.cos(2 * np.pi / stride)))
    return stride * sampled, stride * tail, error


def _terms_at(x: Numbers, parts: Numbers, log_odds: Numbers) -> Numbers:
    """The terms at distance `x` from the largest, relative to it; 0 where there is no such term.

    Each of its `parts` is at least 99, so Stirling's formula is exact enough: terms with small parts are negligible.
    """
    a, b, c, d = parts
    moved = np.stack((a + x, b - x, c - x, d + x))
    exists = (moved > 0).all(axis=0)
    moved = np.where(exists, moved, 1.0)
    change = ((moved + 0.5) * np.log(moved / parts)).sum(axis=0)
    correction = (1 / parts - 1 / moved).sum(axis=0) / 12
    slope = log_odds - np.log(a / b * d / c)
    return np.where(exists, np.exp(x * slope - change + correction), 0.0)
