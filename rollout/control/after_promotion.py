"""Judges a canary that has all the traffic by earlier failures: stable has no requests left to compare it with.

The comparison with stable is exact under any drift, but it ends with stable's traffic. From then on a share of failures
is harmless if it is at most `WATCHED_TOLERANCE` times the known share, plus the risk budget. The known share is the
larger of two: stable's share before and during the release, and the share of all users in the five minutes that ended
two minutes ago, under stable or its successor. The first rests on many requests. The second follows a drift, with
enough delay that harm is found before it counts as known.

Proven, where stable's requests fail independently and each with the same probability: a version whose requests each
fail with at most `WATCHED_TOLERANCE` times that probability plus the budget is failed with a chance of at most twice
`alpha`, once for the test and once for the limit of stable's share. That limit holds at any stopping time, because the
moment at which the release reaches 100 % depends on these very failures. The share of the last minutes needs no proof:
it only makes the watch more lenient.

Assumed: no harmless change of the traffic multiplies the failures by more than that within minutes. Where one does, the
rollback is a mistake, but it leads to a known version that is still warm. Harm that grows more slowly is left to the
guard and to the alerts on the objectives.
"""

import math
from collections import deque
from collections.abc import Iterable
from typing import Self

from rollout.judge import JudgeConfig, Judgement, Pair, SignalJudgement, SignalRule, Verdict, Window, words
from rollout.judge.fail import Stream
from rollout.judge.limits import lower_limit, upper_limit_at_any_time
from rollout.ledger.state import Release
from rollout.signals.catalogue import WATCHED_ERRORS, WATCHED_TOLERANCE, catalogue
from rollout.spec import RolloutSpec

_LAG_S = 120.0  # younger failures may be harm that is about to be found
_SPAN_S = 300.0
_NOTHING = Pair(0, 0)
_RULE = SignalRule(kernel="bounded", weight=1.0)


def watched(windows: Iterable[Window]) -> list[Window]:
    """The windows that a watch judges."""
    return [window for window in windows if window.signal == "errors"]


class RecentFailures:
    """Failures of a few minutes ago: stable's while it had traffic, then those of its successor.

    Time is the sum of the windows' lengths, so setting a clock makes no failure older or younger.
    """

    def __init__(self) -> None:
        # Counts with the time at the end of their window: too young to count as known, and known.
        self._young, self._aged = deque[tuple[float, Pair]](), deque[tuple[float, Pair]]()
        self._known = _NOTHING  # the sum of `_aged`
        self._now_s = 0.0

    def add(self, windows: Iterable[Window], *, is_alone: bool) -> None:
        """Add new windows of any signals; `is_alone`: the canary had all the traffic."""
        for window in watched(windows):
            self._now_s += window.window_s
            self._young.append((self._now_s, window.canary if is_alone else window.stable))
        until_s = self._now_s - _LAG_S
        while self._young and self._young[0][0] <= until_s:
            self._aged.append(aged := self._young.popleft())
            self._known += aged[1]
        while self._aged and self._aged[0][0] <= until_s - _SPAN_S:
            self._known = self._known.less(self._aged.popleft()[1])

    def known(self) -> Pair:
        """Failed and all requests of the five minutes that ended two minutes before the end of the last window."""
        return self._known


class Watch:
    """Evidence that a canary fails more often since it got all the traffic."""

    def __init__(self, spec: RolloutSpec, *, phi: float, known: Pair) -> None:
        """
        Args:
            spec: the release's plan.
            phi: dispersion of the errors, at least 1.
            known: failed and all requests of stable.
        """
        self._budget = spec.risk_budget.share
        self._phi = phi
        self._known = upper_limit_at_any_time(known, spec.alpha, phi=phi)
        self._config = JudgeConfig(alpha=spec.alpha)
        self._stream = Stream(_RULE, self._config, phi=self._phi)
        self._seen = _NOTHING
        self._suspect, self._allowed = _NOTHING, 0.0  # counts, and failures allowed, since too many requests fail
        self._signal: SignalJudgement | None = None

    @classmethod
    def of(cls, release: Release) -> Self:
        """The watch of a calibrated release."""
        return cls(release.spec, phi=release.phi.get("errors", 1.0), known=release.stable_errors)

    def harmless_ratio(self, recent: Pair) -> float:
        """Share of failed requests, 0 to 1, up to which the canary counts as harmless.

        The fewer requests of stable are known, the larger it is. Recent failures raise it only to what they prove.

        Args:
            recent: see `RecentFailures.known`.
        """
        known = max(self._known, lower_limit(recent, self._config.alpha, phi=self._phi))
        return min(1.0, WATCHED_TOLERANCE * known + self._budget)

    def weight_changed(self) -> None:
        """See `Judge.weight_changed`; the canary has all the traffic again."""
        self._stream.weight_changed()

    def observe(self, windows: Iterable[Window], recent: RecentFailures) -> None:
        """Add windows of any signals, oldest first."""
        for window in watched(windows):
            if window.canary.total:
                self._judge(window, self.harmless_ratio(recent.known()))

    def judgement(self) -> Judgement | None:
        """The judgement on all windows so far; FAIL is final. None before the first window."""
        signal = self._signal
        if signal is None:
            return None
        has_failed = signal.verdict is Verdict.FAIL
        return Judgement(
            verdict=signal.verdict,
            reason=words.failed(self._seen_of(signal), signal.log_e)
            if has_failed
            else words.unsuspicious(signal.canary.total),
            log_e=signal.log_e,
            threshold=signal.threshold,
            signals={WATCHED_ERRORS: signal},
            failed_signal=WATCHED_ERRORS if has_failed else None,
            failed_log_e=signal.log_e if has_failed else None,
        )

    @staticmethod
    def _seen_of(signal: SignalJudgement) -> str:
        called = catalogue().words(WATCHED_ERRORS)
        return words.comparison(WATCHED_ERRORS, called, signal.stable, signal.canary, signal.limit)

    def _judge(self, window: Window, limit: float) -> None:
        if self._signal and self._signal.verdict is Verdict.FAIL:
            return
        self._stream.margin = limit
        self._stream.observe(window.stable, window.canary)
        self._seen += window.canary
        self._suspect += window.canary
        self._allowed += limit * window.canary.total
        if self._suspect.bad <= self._allowed:
            self._suspect, self._allowed = _NOTHING, 0.0
        threshold = -math.log(self._config.alpha)
        has_failed = self._stream.log_e >= threshold and self._suspect.bad >= self._config.min_bad
        self._signal = SignalJudgement(
            verdict=Verdict.FAIL if has_failed else Verdict.PASS,
            log_e=self._stream.log_e,
            threshold=threshold,
            stable=_NOTHING,
            canary=self._suspect if has_failed else self._seen,
            limit=self._allowed / self._suspect.total if has_failed else limit,
            decided_at_s=window.end_s if has_failed else None,
            latest_s=window.end_s,
        )
