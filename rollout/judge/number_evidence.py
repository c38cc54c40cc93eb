"""All evidence about one signal whose events are numbers: streams of bets on harm, and bounds on the difference."""

import math

from rollout.judge.evidence import SignalEvidence
from rollout.judge.fail import Stream
from rollout.judge.means import Bet, Forecast, LeastDifference, bets, impossible
from rollout.judge.own_noise import OwnNoise
from rollout.judge.types import Ask, BothNumbers, Difference, JudgeConfig, NumberRule, Numbers, Pair, SignalRule, Window

_NONE = Numbers(0, 0.0, 0.0)


class NumberEvidence(SignalEvidence):
    """Evidence of one signal of numbers. Internally higher is worse: where lower is worse, every sign is flipped."""

    def __init__(
        self,
        name: str,
        rule: SignalRule,
        numbers: NumberRule,
        config: JudgeConfig,
        *,
        noise: OwnNoise,
        is_continued: bool = False,
    ) -> None:
        super().__init__(name, rule, config, noise=noise, known=Pair(0, 0), is_continued=is_continued)
        self._numbers, self._noise_of_numbers = numbers, noise
        low, high = numbers.between
        self._between = (low, high) if numbers.worse == "higher" else (-high, -low)
        self._mirrored = (-self._between[1], -self._between[0])
        self._forecast = Forecast(self._between)
        self._worse = LeastDifference(config.alpha_pass, self._between)
        self._better = LeastDifference(config.alpha_pass, self._mirrored)
        self._stable = self._canary = _NONE
        self._enough = -math.log(config.alpha) if not rule.weight else math.inf

    @property
    def difference(self) -> Difference:
        """How far apart the means are."""
        worse, better = self._worse.bound(), self._better.bound()
        least, most = (worse, -better) if self._numbers.worse == "higher" else (better, -worse)
        return Difference(
            stable=self._stable.mean if self._stable.total else None,
            canary=self._canary.mean if self._canary.total else None,
            least=least,
            most=most,
            worst=-better,
            budget=self._numbers.budget,
        )

    def more_needed(self, step: Ask) -> float | None:
        """See `SignalJudgement.more_requests_needed`."""
        budget = self._numbers.budget
        return None if budget is None else self._better.more_needed(-budget / step.weight)

    def is_late(self, step: Ask) -> bool:
        """See `SignalEvidence.is_late`."""
        budget = self._numbers.budget
        return budget is not None and self._better.is_late(-budget / step.weight)

    def _bet(self, window: Window) -> list[tuple[Stream, Pair, Pair]]:
        numbers = check_numbers(window, self._numbers)
        self._stable += numbers.stable
        self._canary += numbers.canary
        is_turned = self._numbers.worse == "lower"
        stable, canary = (each.negated() if is_turned else each for each in numbers)
        if self._forecast.is_known and stable.total and canary.total:
            self._bet_on(stable, canary)
        self._forecast.add(stable, canary)
        if self._own[0].log_e >= self._enough:
            self.decide(window.end_s)  # the signal has weight 0 and cannot FAIL; the finding is noted and reported
        return []

    def _bet_on(self, stable: Numbers, canary: Numbers) -> None:
        seen = canary.mean - stable.mean
        means, deviation = self._forecast.means, self._forecast.deviation
        made = bets(stable, canary, means=means, deviation=deviation, between=self._between)
        for stream in self._streams:
            stream.bet(canary.total, [bet.log_e(seen, self._numbers.tolerance) for bet in made])
        share = canary.total / (stable.total + canary.total)
        phi = self._noise_of_numbers.of_bound(share, is_loud=True)
        self._worse.observe(made, seen, numbers=canary.total, phi=phi)
        opposite: list[Bet] = bets(
            stable.negated(),
            canary.negated(),
            means=(-means[0], -means[1]),
            deviation=deviation,
            between=self._mirrored,
        )
        self._better.observe(opposite, -seen, numbers=canary.total, phi=phi)

    def _check(self, window: Window, end_s: float) -> None:
        super()._check(window, end_s)
        check_numbers(window, self._numbers)


def check_numbers(window: Window, rule: NumberRule) -> BothNumbers:
    """The numbers of a window. Raises ValueError where it has none, or where its sums are impossible."""
    if window.numbers is None:
        raise ValueError(f"{window.signal}: its events are numbers, but this window has no sums")
    for arm, numbers, pair in zip(("stable", "canary"), window.numbers, (window.stable, window.canary), strict=True):
        if fault := impossible(numbers, rule.between):
            raise ValueError(f"{window.signal}: {arm} has {fault}")
        if pair != (0, numbers.total):
            raise ValueError(f"{window.signal}: {arm} has sums of {numbers.total} numbers, but a count of {pair.total}")
    return window.numbers
