"""Is the canary worse than stable? One e-process for one stream of windows, in O(1) memory.

Called by `judge.Judge`, which averages streams. Knows nothing of other signals or of verdicts.

The stream bets on every odds ratio of the configuration and on every window in which the harm may have begun. Without
the latter, a canary that was healthy for half an hour would first have to lose its good record (545 s instead of
208 s for errors that rise from 1 % to 5 % at 2 canary requests a second).
Sources: Robbins 1970 (mixtures); Ville 1939 (the bound over all time).
"""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

from rollout.judge.kernels import bounded, exact_of_all, rare
from rollout.judge.logarithms import log_add, log_sum
from rollout.judge.types import JudgeConfig, Pair, SignalRule


class Stream:
    """Evidence that one arm has more bad events than the other, window after window.

    If the canary is harmless within the tolerance, the chance that `log_e` EVER reaches log(1 / alpha) is at most
    alpha. Proven for requests that are independent given their rates; for clustered ones `phi` tempers each bet.
    """

    def __init__(
        self,
        rule: SignalRule,
        config: JudgeConfig,
        *,
        phi: float = 1.0,
        tolerance: float | None = None,
        swapped: bool = False,
        on_fail: Literal["rollback", "hold"] | None = None,
    ) -> None:
        """
        Args:
            phi: dispersion of the counts, at least 1; e^(1/phi) has mean at most 1 whenever e has (Jensen).
            tolerance: instead of the rule's.
            swapped: accuse stable of the excess; that is, look for a fall in the canary.
            on_fail: instead of the rule's.
        """
        self.on_fail = on_fail or rule.on_fail
        self.swapped = swapped
        self.bad = 0  # bad events of the accused arm
        self.log_e = 0.0
        self.kernel = rule.kernel
        self.tolerance = rule.tolerance if tolerance is None else tolerance
        self.odds_ratios = config.odds_ratios
        self.margin = config.risk_budget / 10 if rule.margin is None else rule.margin
        self._phi = phi
        self._log_cap = math.log(config.window_cap)
        self._horizon = config.horizon_windows
        self._windows = 0
        self._log_bets = [-math.inf] * len(self.odds_ratios)  # one per odds ratio, summed over the starts so far

    def observe(self, stable: Pair, canary: Pair) -> None:
        """Bet on one more window. Without traffic on both sides there is nothing to compare and to bet on."""
        observe_all([(self, stable, canary)])

    def bet(self, accused: Pair, log_e_of_window: Sequence[float]) -> None:
        """What `observe` does with a window whose log e-values, one for each odds ratio, are known."""
        self.bad += accused.bad
        log_start = self._log_start_prior()
        self._windows += 1
        self._log_bets = [
            log_add(log_bet, log_start) + min(self._log_cap, log_e / self._phi)
            for log_bet, log_e in zip(self._log_bets, log_e_of_window, strict=True)
        ]
        log_average = log_sum(self._log_bets) - math.log(len(self._log_bets))
        self.log_e = log_add(log_average, self._log_unstarted())

    def _log_start_prior(self) -> float:
        """Prior of harm that begins in the coming window: half for the first, half spread over the horizon."""
        if self._windows >= self._horizon:
            return -math.inf
        return math.log((0.5 if self._windows == 0 else 0.0) + 0.5 / self._horizon)

    def _log_unstarted(self) -> float:
        """Prior of harm that begins later than the windows so far: money not yet bet."""
        left = self._horizon - self._windows
        return math.log(0.5 * left / self._horizon) if left > 0 else -math.inf


def observe_all(windows: Iterable[tuple[Stream, Pair, Pair]]) -> None:
    """Let streams of one configuration bet on a window (stable, canary) each. Together they cost a fraction."""
    waiting = []
    for stream, stable, canary in windows:
        innocent, accused = (canary, stable) if stream.swapped else (stable, canary)
        if not accused.total or not (innocent.total or stream.kernel == "bounded"):
            continue
        match stream.kernel:
            case "rare":
                allowed = {"tolerance": stream.tolerance, "margin": stream.margin}
                stream.bet(accused, rare(innocent, accused, odds_ratios=stream.odds_ratios, **allowed))
            case "bounded":
                stream.bet(accused, bounded(accused, odds_ratios=stream.odds_ratios, limit=stream.margin))
            case "exact":
                waiting.append((stream, innocent, accused))
    if waiting:
        comparisons = [(innocent, accused, stream.tolerance) for stream, innocent, accused in waiting]
        of_all = exact_of_all(comparisons, odds_ratios=waiting[0][0].odds_ratios)
        for (stream, _, accused), log_e in zip(waiting, of_all, strict=True):
            stream.bet(accused, log_e)
