"""All evidence about one signal so far: counts, streams of suspicion, and the bound on its excess.

Called by `judge.Judge`, which weighs signals against each other. Knows nothing of other signals or of steps.
"""

import math

from rollout.judge.bets import bets_for
from rollout.judge.bound import ExcessBound
from rollout.judge.fail import Stream
from rollout.judge.logarithms import log_sum
from rollout.judge.types import JudgeConfig, Pair, SignalRule, Window

_RATE_MEMORY = 0.9  # how much of the last window's traffic estimate the next one keeps


class SignalEvidence:
    """What was seen of one signal. Memory does not grow with the number of windows."""

    def __init__(self, name: str, rule: SignalRule, config: JudgeConfig, *, phi: float, known: Pair) -> None:
        self.name = name
        self.phi = phi
        self.stable = self.canary = Pair(0, 0)
        self.latest_s: float | None = None
        self.decided_at_s: float | None = None
        self.bound = _bound(config, phi, known) if rule.budgeted else None
        self._streams = _streams(rule, config, phi) if rule.weight else ()
        self.limit = rule.limit
        self._min_bad = config.min_bad
        self._end_s = -math.inf
        self._recent_requests = self._recent_s = 0.0

    @property
    def has_data(self) -> bool:
        """Whether there is traffic to judge: on both sides, where they are compared."""
        return bool(self.canary.total and (self.stable.total or self.limit is not None))

    @property
    def canary_per_s(self) -> float:
        """Canary requests a second, of late."""
        return self._recent_requests / self._recent_s if self._recent_s else 0.0

    @property
    def log_e(self) -> float:
        """Of all streams together."""
        if not self._streams:
            return 0.0
        return log_sum(stream.log_e for stream in self._streams) - math.log(len(self._streams))

    def observe(self, window: Window) -> list[tuple[Stream, Pair, Pair]]:
        """Add the next window. Raises ValueError for one that was seen already or that cannot be.

        Returns: the bets of its streams, which are left to `fail.observe_all`.
        """
        _check(window, self._end_s)
        self._end_s = window.end_s
        self.stable += window.stable
        self.canary += window.canary
        if window.canary.total:
            self.latest_s = window.end_s
        self._recent_requests = _RATE_MEMORY * self._recent_requests + window.canary.total
        self._recent_s = _RATE_MEMORY * self._recent_s + window.window_s
        if self.bound:
            self.bound.observe(window.stable, window.canary)
        return [(stream, window.stable, window.canary) for stream in self._streams]

    def temper_pass(self, pass_phi: float) -> None:
        """Take the dispersion `pass_phi` for PASS, where it is larger than `phi`."""
        if self.bound:
            self.bound.phi = max(self.phi, pass_phi)

    def decide(self, end_s: float) -> None:
        """Note when the evidence first sufficed to FAIL."""
        if self.decided_at_s is None:
            self.decided_at_s = end_s

    def log_guilt(self, *, rollback_only: bool = False) -> float:
        """The part of `log_e` that may FAIL: from streams with enough bad events; -inf for none.

        Args:
            rollback_only: leave out the streams on which a person must decide.
        """
        guilty = [
            stream.log_e
            for stream in self._streams
            if stream.bad >= self._min_bad and (stream.on_fail == "rollback" or not rollback_only)
        ]
        return log_sum(guilty) - math.log(len(self._streams)) if guilty else -math.inf


def _bound(config: JudgeConfig, phi: float, known: Pair) -> ExcessBound:
    return ExcessBound(config.alpha_pass, phi=phi, bets=bets_for(config.risk_budget, known))


def _streams(rule: SignalRule, config: JudgeConfig, phi: float) -> tuple[Stream, ...]:
    sides = (False, True) if rule.two_sided else (False,)
    streams = [Stream(rule, config, phi=phi, swapped=swapped) for swapped in sides]
    if rule.on_fail == "hold" and rule.gross_tolerance is not None:
        streams += [
            Stream(rule, config, phi=phi, swapped=swapped, tolerance=rule.gross_tolerance, on_fail="rollback")
            for swapped in sides
        ]
    return tuple(streams)


def _check(window: Window, last_end_s: float) -> None:
    if window.end_s == last_end_s:
        raise ValueError(f"{window.signal}: two windows end at {window.end_s}; events must not count twice")
    for arm, pair in (("stable", window.stable), ("canary", window.canary)):
        if not 0 <= pair.bad <= pair.total:
            raise ValueError(f"{window.signal}: {arm} has {pair.bad} bad of {pair.total} events")
