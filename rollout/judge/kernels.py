"""Evidence in one window of counts that the canary is worse than stable: log e-values, one per odds ratio.

Called by `fail.Stream`. Knows nothing of time, of other windows, or of what the events mean.

An e-value is a number whose mean is at most 1 when the canary is harmless; products of them over
windows stay so, which is why they may be looked at after every window (Ville 1939). `rare` and `exact` compare
with stable given the window's totals, so neither a changing weight nor a drifting base rate can fool them;
`bounded` compares with a fixed share.
Sources: Fisher's exact test; Hoeffding 1963, theorem 4; Turner & Gruenwald, arXiv:2302.11401; Wald 1945.
"""

import math
from collections.abc import Sequence
from math import exp, log

from rollout.judge.types import Pair

_FEW = 20  # values of x for which every term of the sums is taken; 1e170 at most beside the first, so a float holds it
_NEGLIGIBLE = 1e-12  # a term this small beside the largest ends a sum; its tail is bounded, not forgotten
_SMALL = 32  # below it log-gamma is exact enough, and Stirling's series is not
_HALF_LOG_2PI = math.log(2 * math.pi) / 2
_WIDE = 10.0  # standard deviations, in events, from which sampling a sum is quicker than walking it


def rare(
    stable: Pair, canary: Pair, *, odds_ratios: Sequence[float], tolerance: float = 1.0, margin: float = 0.0
) -> list[float]:
    """Log e-values against "canary's bad ratio is at most `tolerance` x stable's + `margin`", in O(1).

    The binomial likelihood ratio of the canary's share of all bad events. As strong as `exact` while
    bad events are rare (98 % of its growth at 1 % bad, 75 % at 20 %).

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
    log_e = []
    for r in odds_ratios:
        inflation = 1 + share * (r - 1)
        allowance = margin * canary.total * (r - 1) * (1 - share) / inflation
        log_e.append(canary.bad * math.log(r) - bad * math.log(inflation) - allowance)
    return log_e


def exact(stable: Pair, canary: Pair, *, odds_ratios: Sequence[float], tolerance: float = 1.0) -> list[float]:
    """Log e-values against "canary's odds of a bad event are at most `tolerance` x stable's".

    The likelihood ratio of Fisher's noncentral hypergeometric distribution of the canary's bad events,
    given all totals: odds ratio `tolerance * r` against `tolerance`. Both sums are replaced by bounds on the
    safe side, so the result is never above the true value but for rounding, below 2e-9 up to 10^7 events.

    Args:
        odds_ratios: the alternatives r > 1; one e-value each.
        tolerance: at least 1; below 1 the mean exceeds 1.
    """
    bad = stable.bad + canary.bad
    if not stable.total or not canary.total or not bad:
        return [0.0] * len(odds_ratios)
    if min(canary.total, bad) - max(0, bad - stable.total) <= _FEW:
        return _exact_of_few(stable, canary, odds_ratios, tolerance)
    log_tolerance = math.log(tolerance)
    harmless, _ = _log_normaliser(stable.total, canary.total, bad, log_tolerance)
    log_e = []
    for r in odds_ratios:
        log_r = math.log(r)
        _, harmful = _log_normaliser(stable.total, canary.total, bad, log_tolerance + log_r)
        log_e.append(canary.bad * log_r + harmless - harmful)
    return log_e


def bounded(canary: Pair, *, odds_ratios: Sequence[float], limit: float) -> list[float]:
    """Log e-values against "each event is bad with probability at most `limit`, whatever came before it", in O(1).

    The binomial likelihood ratio of odds r times those of `limit` against `limit`: its mean is 1 at the limit, and
    less below it. No other version is asked, and events need not be independent.

    Args:
        odds_ratios: the alternatives r > 1; one e-value each.
        limit: harmless share of bad events, above 0 and below 1.

    Source: Wald 1945, Ann. Math. Statist. 16(2), 117-186.
    """
    return [canary.bad * math.log(r) - canary.total * math.log1p(limit * (r - 1)) for r in odds_ratios]


def _exact_of_few(stable: Pair, canary: Pair, odds_ratios: Sequence[float], tolerance: float) -> list[float]:
    """`exact` where the canary's bad events can be but few: one row of terms serves all odds ratios."""
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


def _log_normaliser(n_s: int, n_c: int, k: int, log_odds: float) -> tuple[float, float]:
    """Lower and upper bound of log Z(odds), Z(o) = sum over u of C(n_c, u) C(n_s, k-u) o^u, but for a constant.

    The terms are log-concave in u: outwards from the largest they fall ever faster, so a geometric series
    bounds whatever is left out.
    """
    odds = math.exp(log_odds)
    mode = min(max(math.ceil(_crossing(n_s, n_c, k, odds)), 0, k - n_s), n_c, k)
    curvature = 1 / (mode + 1) + 1 / (n_c - mode + 1) + 1 / (k - mode + 1) + 1 / (n_s - k + mode + 1)
    spread = curvature**-0.5
    if spread < _WIDE:
        total, tail = _walk(n_s, n_c, k, odds, mode)
        error = 0.0
    else:
        total, tail, error = _sample(n_s, n_c, k, log_odds, mode, stride=int(0.6 * spread))
    largest = _log_largest(n_s, n_c, k, log_odds, mode)
    return (
        largest + math.log(total) - math.log1p(error),
        largest + math.log(total + tail) - math.log1p(-error),
    )


def _log_largest(n_s: int, n_c: int, k: int, log_odds: float, mode: int) -> float:
    """Log of the largest term, but for a constant that only the totals determine.

    Stirling's formula with each part divided by the grand total: a sum of log-gammas would be 1e8 at ten million
    events, and lose that many digits.
    """
    log_total = math.log(n_s + n_c)
    ways = 0.0
    for part in (mode, n_c - mode, k - mode, n_s - k + mode):
        if part < _SMALL:
            ways += math.lgamma(part + 1) + part - (part + 0.5) * log_total - _HALF_LOG_2PI
        else:
            ways += (part + 0.5) * math.log(part / (n_s + n_c)) + _stirling(part)
    return mode * log_odds - ways


def _stirling(n: int) -> float:
    """log(n!) less its leading part (n + 1/2) log n - n + log(2 pi)/2, to 1e-13 for n of at least 32."""
    inverse = 1 / (n * n)
    return (1 / 12 - inverse * (1 / 360 - inverse / 1260)) / n


def _crossing(n_s: int, n_c: int, k: int, odds: float) -> float:
    """Where the ratio of neighbouring terms falls through 1."""
    b = odds * (n_c + k) + (n_s - k + 2)
    c = odds * n_c * k - (n_s - k + 1)
    return 2 * c / (b + math.sqrt(b * b - 4 * (odds - 1) * c))


def _walk(n_s: int, n_c: int, k: int, odds: float, mode: int) -> tuple[float, float]:
    """The sum relative to its largest term, term by term outwards; a bound on what was left out."""
    total, tail = 1.0, 0.0
    term = 1.0
    for u in range(mode, min(n_c, k)):
        ratio = odds * (n_c - u) * (k - u) / ((u + 1) * (n_s - k + u + 1))
        term *= ratio
        total += term
        if term < _NEGLIGIBLE:
            tail += term * ratio / (1 - ratio)
            break
    term = 1.0
    for u in range(mode, max(0, k - n_s), -1):
        ratio = u * (n_s - k + u) / (odds * (n_c - u + 1) * (k - u + 1))
        term *= ratio
        total += term
        if term < _NEGLIGIBLE:
            tail += term * ratio / (1 - ratio)
            break
    return total, tail


def _sample(n_s: int, n_c: int, k: int, log_odds: float, mode: int, *, stride: int) -> tuple[float, float, float]:
    """The sum relative to its largest term from every `stride`-th term: some 30 terms whatever the totals.

    Returns the sum, a bound on the tails left out, and a bound on the relative error that sampling makes.

    Why it is allowed, with h = stride: the sum over u = a mod h is (1/h) sum over j of P(w^j) w^(-ja), where
    w = exp(2 pi i/h) and P is the generating polynomial of the terms. P has only real roots, so u is distributed as
    a sum of independent Bernoulli variables; with V its variance, |P(w^j)| <= P(1) exp(-V (1 - cos(2 pi j/h))).
    So h times the sampled sum is the whole up to a relative error of (h-1) exp(-V (1 - cos(2 pi/h))).
    And V >= (1/M^2 - 1)/12, M the largest probability: u plus a uniform variable has a density of at most M.
    And 1/M, the whole over the largest term, is at least the sum of the chords: by log-concavity the terms between
    two samples lie above the geometric sequence that joins them.
    """
    a, b, c, d = mode, n_c - mode, k - mode, n_s - k + mode  # 99 and more each, so Stirling's formula will do
    slope = log_odds - log(a / b * d / c)
    correction = (1 / a + 1 / b + 1 / c + 1 / d) / 12
    sampled, tail, chords = 1.0, 0.0, -1.0  # the largest term begins a chord on both sides
    for side in (range(stride, min(b, c), stride), range(-stride, -min(a, d), -stride)):
        nearer = 1.0
        for x in side:
            p, q, r, s = a + x, b - x, c - x, d + x
            change = (p + 0.5) * log(p / a) + (q + 0.5) * log(q / b) + (r + 0.5) * log(r / c) + (s + 0.5) * log(s / d)
            term = exp(x * slope - change + correction - (1 / p + 1 / q + 1 / r + 1 / s) / 12)
            ratio = term / nearer
            chords += (nearer - term) / (1 - ratio ** (1 / stride)) if ratio < 1 else stride * nearer
            sampled += term
            nearer = term
            if term < _NEGLIGIBLE:
                tail += term * ratio / (1 - ratio)
                break
    variance = (chords * chords - 1) / 12
    error = (stride - 1) * math.exp(-variance * (1 - math.cos(2 * math.pi / stride)))
    return stride * sampled, stride * tail, error
