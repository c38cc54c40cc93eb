"""How far apart are the means of the numbers on canary and on stable? Bets on their difference, window by window.

Data: for each side the count of numbers, their sum and the sum of their squares; every number is within known bounds.
For n numbers that exceed a centre m, fixed before them, by at most R, and have a true mean of mu,
    exp(l sum of (x - m) - psi(l R) / R^2 sum of (x - m)^2),   psi(u) = -log(1 - u) - u,   0 <= l R < 1,
has a mean of at most exp(l n (mu - m)), whatever their distribution: exp(u v - psi(u) v^2) <= 1 + u v for all v >= -1.
The same holds below a centre, for stable. With l = W / n on each side the centres cancel, and
    exp(W (mean of canary - mean of stable - d) - cost)
is an e-value against "the difference of the true means is at most d". Nothing here is asymptotic. W and the centres
come from the windows before (`Forecast`), so they may follow a drift.
Sources: Fan, Grama & Liu 2015, arXiv:1504.02400 (the inequality); Howard, Ramdas, McAuliffe & Sekhon 2021,
arXiv:1810.08240; Waudby-Smith & Ramdas 2024, arXiv:2010.09686 (predictable centres and bets).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rollout.judge.bound import LATE
from rollout.judge.logarithms import log_sum, reached_at
from rollout.judge.types import Numbers

EFFECTS = (0.01, 0.03, 0.1, 0.3, 1.0)  # differences to bet on, in standard deviations of single numbers
_MOST_AT_RISK = 0.8  # largest l R: the possible cost of one number rises without limit as l R approaches 1
_MEMORY = 0.9  # weight that each further window leaves to the windows before it
_ENOUGH = 10.0  # numbers needed before the first bet
_ROUNDING = 1e-14  # relative, of sums of squares
_SLACK = 1e-9  # tolerance for rounding in sums from outside, relative to the largest possible sum


@dataclass(frozen=True, slots=True)
class Bet:
    """A bet against "the difference is at most d": `reach` x (difference of the observed means - d) - `cost`, a log."""

    reach: float
    cost: float

    def log_e(self, seen: float, d: float) -> float:
        """The log e-value.

        Args:
            seen: canary's mean minus stable's, in the window.
            d: the largest difference that the null hypothesis allows.
        """
        return self.reach * (seen - d) - self.cost


class Forecast:
    """Expects the numbers of the next window from the windows before it. It never looks ahead."""

    def __init__(self, between: tuple[float, float]) -> None:
        """
        Args:
            between: the smallest and the largest possible number.
        """
        self._between = between
        self._stable = self._canary = (0.0, 0.0, 0.0)  # count, sum and sum of squares, older windows with less weight

    @property
    def is_known(self) -> bool:
        """Whether enough was seen to bet."""
        return self._stable[0] + self._canary[0] >= _ENOUGH

    @property
    def means(self) -> tuple[float, float]:
        """Expected means of stable and of canary; shrunk towards their common mean where few numbers were seen."""
        everything = (self._stable[1] + self._canary[1]) / (self._stable[0] + self._canary[0])
        stable, canary = (
            (total + _ENOUGH * everything) / (count + _ENOUGH) for count, total, _ in (self._stable, self._canary)
        )
        return self._within(stable), self._within(canary)

    @property
    def deviation(self) -> float:
        """Standard deviation of single numbers around the mean of their side; 0 where all were equal."""
        scatter = sum(
            max(0.0, squares - total * total / count) for count, total, squares in (self._stable, self._canary) if count
        )
        return math.sqrt(scatter / (self._stable[0] + self._canary[0]))

    def add(self, stable: Numbers, canary: Numbers) -> None:
        """Add one window. Call this after the bets on that window, never before."""
        if stable.total:
            self._stable = _aged(self._stable, stable)
        if canary.total:
            self._canary = _aged(self._canary, canary)

    def _within(self, mean: float) -> float:
        low, high = self._between
        return min(max(mean, low), high)


def bets(
    stable: Numbers,
    canary: Numbers,
    *,
    means: tuple[float, float],
    deviation: float,
    between: tuple[float, float],
    effects: Sequence[float] = EFFECTS,
) -> list[Bet]:
    """One bet for each effect, on canary's mean being larger. Valid for any `means` and `deviation` fixed beforehand.

    With a harmonic size of the window of h = 1 / (1 / stable + 1 / canary), a bet of h x effect / deviation grows
    fastest when the difference equals that effect. The bet is smaller where a single number could cost too much.

    Args:
        stable: stable's numbers in one window, at least one.
        canary: canary's numbers in it, at least one.
        means: expected means of stable and of canary.
        deviation: expected standard deviation of single numbers.
        between: the smallest and the largest possible number.
        effects: in standard deviations.
    """
    n_s, n_c = stable.total, canary.total
    above, below = between[1] - means[0], means[1] - between[0]
    scatter_s, scatter_c = _scatter(stable, means[0]), _scatter(canary, means[1])
    most = min(_MOST_AT_RISK * n / room if room else math.inf for n, room in ((n_s, above), (n_c, below)))
    harmonic = n_s * n_c / (n_s + n_c)
    found = []
    for effect in effects:
        reach = min(harmonic * effect / deviation, most) if deviation else most
        if math.isinf(reach):
            reach = 0.0
        cost = _cost(reach / n_s, above) * scatter_s + _cost(reach / n_c, below) * scatter_c
        found.append(Bet(reach, cost))
    return found


class LeastDifference:
    """An anytime-valid lower bound on the true difference of means, canary's minus stable's.

    Where the difference is the same in all windows, the chance that the bound is EVER above it is at most `alpha`.
    Where it changes, this is the chance that the bound is EVER above the largest difference so far.
    """

    def __init__(self, alpha: float, between: tuple[float, float]) -> None:
        """
        Args:
            alpha: chance of error over the whole release.
            between: the smallest and the largest possible number.
        """
        self._enough = -math.log(alpha)
        self._least = between[0] - between[1]
        self._reach = [0.0] * len(EFFECTS)
        self._gain = [0.0] * len(EFFECTS)  # log e-values against a difference of at most 0
        self._cost = [0.0] * len(EFFECTS)
        self._numbers = 0  # canary's numbers in windows with bets

    def observe(self, made: Sequence[Bet], seen: float, *, numbers: int, phi: float = 1.0) -> None:
        """Add the bets of one window.

        Args:
            made: one bet for each of `EFFECTS`.
            seen: canary's mean minus stable's.
            numbers: count of the canary's numbers.
            phi: dispersion that tempers the bets, at least 1.
        """
        self._numbers += numbers
        for i, bet in enumerate(made):
            self._cost[i] += bet.cost / phi
            self._reach[i] += bet.reach / phi
            self._gain[i] += bet.log_e(seen, 0.0) / phi

    def log_e(self, d: float) -> float:
        """Log e-value against "the difference is at most `d`"."""
        logs = [gain - reach * d for gain, reach in zip(self._gain, self._reach, strict=True)]
        return log_sum(logs) - math.log(len(logs))

    def bound(self) -> float:
        """The largest difference that is refuted; the smallest possible one while nothing is."""
        if self.log_e(self._least) < self._enough:
            return self._least
        enough = self._enough + math.log(len(self._gain))
        return max(self._least, -reached_at(enough, self._gain, self._reach, start=-self._least))

    def more_needed(self, d: float) -> float:
        """About how many more numbers of the canary until `bound` is at least `d`, if the true means are equal.

        0 when it already is; inf when it never will be.
        """
        if self.log_e(d) >= self._enough:
            return 0.0
        alone = [
            (self._enough + math.log(len(EFFECTS)) - gain + reach * d) * self._numbers / growth
            for gain, reach, cost in zip(self._gain, self._reach, self._cost, strict=True)
            if (growth := -reach * d - cost) > 0
        ]
        return min(alone, default=math.inf)

    def is_late(self, d: float) -> bool:
        """Whether equal means would very likely have shown by now that the difference is at least `d`."""
        growth = max(-reach * d - cost for reach, cost in zip(self._reach, self._cost, strict=True))
        return growth > LATE * (self._enough + math.log(len(EFFECTS))) and self.log_e(d) < self._enough


def impossible(numbers: Numbers, between: tuple[float, float]) -> str | None:
    """The fault of sums of numbers that must all be within `between`; None where there is none."""
    count, total, squares = numbers
    low, high = between
    if not (math.isfinite(total) and math.isfinite(squares)):
        return "sums that are not finite"
    if count < 0:
        return f"{count} events"
    slack = _SLACK * count * max(abs(low), abs(high))
    if not count * low - slack <= total <= count * high + slack:
        return f"a sum of {total:g}: {count:,} numbers between {low:g} and {high:g} cannot add up to it"
    slack *= 3 * max(abs(low), abs(high))
    if squares < (total * total / count if count else 0.0) - slack:
        return f"a sum of squares of {squares:g}: with a sum of {total:g} it must be larger"
    if squares > (low + high) * total - count * low * high + slack:
        return (
            f"a sum of squares of {squares:g}: with this sum and numbers between {low:g} and {high:g} "
            "it must be smaller"
        )
    return None


def _aged(known: tuple[float, float, float], window: Numbers) -> tuple[float, float, float]:
    count, total, squares = known
    return (
        _MEMORY * count + window.total,
        _MEMORY * total + window.sum,
        _MEMORY * squares + window.squares,
    )


def _scatter(numbers: Numbers, centre: float) -> float:
    """Sum of squares around `centre`, with rounding upwards only: too small a sum would count as evidence."""
    parts = (numbers.squares, 2 * centre * numbers.sum, numbers.total * centre * centre)
    return max(0.0, parts[0] - parts[1] + parts[2]) + _ROUNDING * sum(map(abs, parts))


def _cost(stake: float, room: float) -> float:
    """psi(stake x room) / room^2, with its limit where there is no room."""
    at_risk = stake * room
    if at_risk < 1e-4:  # four terms of the series are exact, and log1p loses digits
        return stake * stake * (0.5 + at_risk / 3 + at_risk * at_risk / 4 + at_risk**3 / 5)
    return (-math.log1p(-at_risk) - at_risk) / (room * room)
