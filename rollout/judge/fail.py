"""Is the canary worse than stable? One e-process for one stream of windows, in O(1) memory.

The stream bets on every odds ratio of the configuration and on every window in which the harm may have begun. Without
bets on the later windows, new harm would first have to outweigh the good record of a canary that was healthy before.
Sources: Robbins 1970 (mixtures); Ville 1939 (the bound over all time).
"""

import math
from collections.abc import Iterable, Sequence
from math import exp, inf, log1p
from typing import Literal

import numpy as np

from rollout.judge.kernels import bounded, exact, exact_of_all, rare
from rollout.judge.logarithms import log_add, log_sum
from rollout.judge.means import EFFECTS
from rollout.judge.starts import Starts
from rollout.judge.types import JudgeConfig, Pair, SignalRule

MANY = 6  # from this many streams on, arrays are faster than single numbers
LOST = 50.0  # log: even in a release of months, a bet this far below is at most 1e-14 of the next start


# What the bets on one window need besides its counts: the log priors of harm that begins with it and of later harm, the
# log cap and phi. A plain tuple, because every window of a release makes one for each stream.
Taken = tuple[float, float, float, float]


def bets_after(log_bets: Sequence[float], log_e_of_window: Sequence[float], taken: Taken) -> tuple[list[float], float]:
    """The logs of a stream's bets after one window, and the stream's log e-value."""
    log_start, log_left, log_cap, phi = taken
    made = []
    # `log_add(log_bet, log_start) + min(log_cap, log_e / phi)`, written out because function calls cost too much here.
    for log_bet, log_e in zip(log_bets, log_e_of_window, strict=True):
        most, least = (log_start, log_bet) if log_bet < log_start else (log_bet, log_start)
        both = most + log1p(exp(least - most)) if least > -inf else most
        made.append(both + min(log_cap, log_e / phi))
    return made, log_add(log_sum(made) - math.log(len(made)), log_left)


class Stream:
    """Evidence that one arm has more bad events than the other, updated with every window.

    If the canary is harmless within the tolerance, the chance that `log_e` EVER reaches log(1 / alpha) is at most
    alpha. This is proven for requests that are independent given their rates; for clusters `phi` tempers each bet.
    """

    def __init__(
        self,
        rule: SignalRule,
        config: JudgeConfig,
        *,
        phi: float = 1.0,
        tolerance: float | None = None,
        margin: float | None = None,
        swapped: bool = False,
        on_fail: Literal["rollback", "hold"] | None = None,
        is_continued: bool = False,
    ) -> None:
        """
        Args:
            phi: dispersion of the counts, at least 1; e^(1/phi) has a mean of at most 1 whenever e has (Jensen).
            tolerance: replaces the rule's.
            margin: replaces the rule's.
            swapped: test stable for an excess instead; that is, detect a fall on the canary.
            on_fail: replaces the rule's.
            is_continued: bet everything on harm that is present from the first window, see `carried`.
        """
        self.on_fail = on_fail or rule.on_fail
        self.swapped = swapped
        self.bad = 0  # bad events of the tested arm; where events are numbers, all of them
        self.log_e = 0.0
        self.kernel = rule.kernel
        self.tolerance = rule.tolerance if tolerance is None else tolerance
        self.odds_ratios = config.odds_ratios
        self._fine_ratios = (*config.odds_ratios[:-1], config.fine_ratio)
        self._plenty = config.plenty
        margin = rule.margin if margin is None else margin
        self._is_shrinking = margin is None
        self.margin = config.risk_budget / 10 if margin is None else margin
        self._phi = phi
        self.log_cap = self._log_cap_of_window = math.log(config.window_cap)
        self.starts = Starts(first_only=is_continued)
        alternatives = len(EFFECTS if rule.kernel == "means" else self.odds_ratios)
        self.log_bets = [-math.inf] * alternatives  # log of the bets on each, summed over the starts so far

    def terms_for(self, other: Pair, tested: Pair) -> tuple[tuple[float, ...], float]:
        """Odds ratios to bet on in a window with these totals, and its harmless excess; bad events play no part.

        In a window with plenty of requests a bet on an odds ratio of 12 already finds a version that is 40 times as
        bad, while a version only a little over the tolerance harms many users. So a small odds ratio replaces the
        largest. A margin that the plan does not name shrinks there, so that it always allows the number of requests
        that it allows at the point where requests become plenty.
        """
        plenty = self._plenty * (other.total + tested.total) / (other.total * tested.total)
        if plenty > 1:
            return self.odds_ratios, self.margin
        return self._fine_ratios, self.margin * plenty if self._is_shrinking else self.margin

    def weight_changed(self) -> None:
        """See `Starts.weight_changed`."""
        self.starts.weight_changed()

    def temper(self, phi: float, *, windows_per_burst: float) -> None:
        """Set the dispersion of the bets to come, and the number of windows of one burst that share one cap.

        Neither may depend on the bad events of these windows.
        """
        self._phi, self._log_cap_of_window = phi, self.log_cap / windows_per_burst

    def observe(self, stable: Pair, canary: Pair) -> None:
        """Bet on one more window. A window without traffic on every side that is compared changes nothing."""
        observe_all([(self, stable, canary)])

    def arms(self, stable: Pair, canary: Pair) -> tuple[Pair, Pair] | None:
        """The reference arm and the tested arm; None: there is nothing to bet on."""
        other, tested = (canary, stable) if self.swapped else (stable, canary)
        return (other, tested) if tested.total and (other.total or self.kernel == "bounded") else None

    def log_e_of(self, other: Pair, tested: Pair) -> list[float]:
        """Log e-values of one window, one for each alternative."""
        match self.kernel:
            case "rare":
                ratios, margin = self.terms_for(other, tested)
                return rare(other, tested, odds_ratios=ratios, tolerance=self.tolerance, margin=margin)
            case "bounded":
                return bounded(tested, odds_ratios=self.odds_ratios, limit=self.margin)
            case _:
                return exact(other, tested, odds_ratios=self.odds_ratios, tolerance=self.tolerance)

    def bet(self, bad: int, log_e_of_window: Sequence[float]) -> None:
        """Do what `observe` does, for a window whose log e-values are already computed.

        Args:
            bad: events of the tested arm that are added to `bad`.
            log_e_of_window: one for each alternative.
        """
        self.bad += bad
        self.log_bets, self.log_e = bets_after(self.log_bets, log_e_of_window, self.begin())

    def begin(self) -> Taken:
        """Begin a window: spend its prior, and return what the bets on it need."""
        log_start, log_left = self.starts.spend()
        return log_start, log_left, self._log_cap_of_window, self._phi


def observe_all(windows: Iterable[tuple[Stream, Pair, Pair]]) -> None:
    """Let streams of one configuration bet on one window (stable, canary) each; much faster than one by one."""
    waiting = []
    for stream, stable, canary in windows:
        arms = stream.arms(stable, canary)
        if arms is None:
            continue
        if stream.kernel == "exact":
            waiting.append((stream, *arms))
        else:
            stream.bet(arms[1].bad, stream.log_e_of(*arms))
    if len(waiting) >= MANY:
        _bet_together(waiting)
        return
    for stream, other, tested in waiting:
        stream.bet(tested.bad, stream.log_e_of(other, tested))


def _bet_together(windows: Sequence[tuple[Stream, Pair, Pair]]) -> None:
    """`Stream.bet` for many streams with the kernel `exact`, on one window (other, tested) each.

    A bet far below what is left for harm that begins later need not be precise. The error is lost in rounding, both in
    the evidence and, once the next start is added, in the bet itself.
    """
    streams = [stream for stream, _, _ in windows]
    comparisons = [(other, tested, stream.tolerance) for stream, other, tested in windows]
    starts, left, caps, phi = np.array([stream.begin() for stream in streams]).T[:, :, np.newaxis]
    bets = np.logaddexp([stream.log_bets for stream in streams], starts)
    floors = (left - LOST - bets) * phi
    log_e_of_window = exact_of_all(comparisons, odds_ratios=streams[0].odds_ratios, floors=floors)
    bets += np.minimum(caps, log_e_of_window / phi)
    largest = bets.max(axis=1, keepdims=True)
    log_e = np.logaddexp(largest + np.log(np.exp(bets - largest).mean(axis=1, keepdims=True)), left)
    for (stream, _, tested), log_bets, total in zip(windows, bets.tolist(), log_e[:, 0].tolist(), strict=True):
        stream.bad += tested.bad
        stream.log_bets, stream.log_e = log_bets, total
