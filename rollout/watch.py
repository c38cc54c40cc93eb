"""A canary that has all the traffic, judged by what users met before: nothing is left to compare it with.

The controller asks it at 100 % and after promotion. Pure.

The comparison is exact under any drift, and ends with stable's traffic. From then on a share of failures is harmless
that is at most `TOLERANCE` times the one that was known before, plus the risk budget. Known is the larger of two: what
stable failed before and during the release, and what users met in the five minutes that ended two minutes ago, from
stable and from its successor. The first knows much, the second follows a drift; harm is found before it gets there.

What is proven: a version whose requests fail, each with at most `TOLERANCE` times stable's probability plus the budget,
is failed with a chance of at most twice `alpha` (once for the test, once for what is known of stable). What is assumed:
that no honest change of the traffic multiplies the failures by more within minutes. Where one does, the way back was a
mistake, but to a version that is known and warm. Harm that grows slower than that is left to the guard and to the
alerts on the objectives.
"""

import math
from collections import deque
from collections.abc import Iterable
from types import MappingProxyType

from rollout.judge import JudgeConfig, Judgement, Pair, SignalJudgement, SignalRule, Verdict, Window, words
from rollout.judge.fail import Stream
from rollout.judge.limits import lower_limit, upper_limit
from rollout.state import Release

WATCHED_ERRORS = "watched_errors"  # the signal
TOLERANCE = 2.0  # error ratios double and halve in half an hour; twofold within minutes is news
_LAG_S = 120.0  # what is younger may be harm that is about to be found
_SPAN_S = 300.0
_NOTHING = Pair(0, 0)
_RULE = SignalRule(kernel="bounded", weight=1.0)


def watched(windows: Iterable[Window]) -> list[Window]:
    """What a watch looks at."""
    return [window for window in windows if window.signal == "errors"]


class Lately:
    """What users met a few minutes ago: stable's failures while it had traffic, then those of its successor."""

    def __init__(self) -> None:
        self._errors: deque[tuple[float, Pair]] = deque()

    def add(self, windows: Iterable[Window], *, is_alone: bool) -> None:
        """Take in new windows of any signals; `is_alone`: the canary had all the traffic."""
        for window in watched(windows):
            self._errors.append((window.end_s, window.canary if is_alone else window.stable))
            while self._errors[0][0] <= window.end_s - _LAG_S - _SPAN_S:
                self._errors.popleft()

    def known_at(self, now_s: float) -> Pair:
        """Failed and all requests of the five minutes that ended two minutes before `now_s`, Unix seconds."""
        return sum(
            (errors for end_s, errors in self._errors if now_s - _LAG_S - _SPAN_S < end_s <= now_s - _LAG_S), _NOTHING
        )


class Watch:
    """Evidence that the canary of `release` fails more since it has all the traffic."""

    def __init__(self, release: Release) -> None:
        spec = release.spec
        self._budget = spec.risk_budget
        self._phi = release.phi.get("errors", 1.0)
        self._known = upper_limit(release.stable_errors, spec.alpha, phi=self._phi)
        self._config = JudgeConfig(
            alpha=spec.alpha, horizon_windows=max(1, round((spec.soak + spec.watch) / spec.window))
        )
        self._stream = Stream(_RULE, self._config, phi=self._phi)
        self._seen = _NOTHING
        self._suspect, self._allowed = _NOTHING, 0.0  # since more began to fail than is harmless
        self._signal: SignalJudgement | None = None

    def harmless_ratio(self, lately: Pair) -> float:
        """Share of failed requests, 0 to 1, up to which the canary is not worse than what was known.

        The less is known of stable, the more is harmless. Only what is proven of late raises it further.

        Args:
            lately: see `Lately.known_at`.
        """
        known = max(self._known, lower_limit(lately, self._config.alpha, phi=self._phi))
        return min(1.0, TOLERANCE * known + self._budget)

    def observe(self, windows: Iterable[Window], lately: Lately) -> None:
        """Take in windows of any signals, oldest first."""
        for window in watched(windows):
            if window.canary.total:
                self._judge(window, self.harmless_ratio(lately.known_at(window.end_s - window.window_s)))

    def judgement(self) -> Judgement | None:
        """What all windows so far say; FAIL is final. None before the first."""
        signal = self._signal
        if signal is None:
            return None
        has_failed = signal.verdict is Verdict.FAIL
        return Judgement(
            verdict=signal.verdict,
            reason=words.failed(WATCHED_ERRORS, signal.stable, signal.canary, signal.log_e, limit=signal.limit)
            if has_failed
            else words.unopposed(signal.canary.total),
            log_e=signal.log_e,
            threshold=signal.threshold,
            signals=MappingProxyType({WATCHED_ERRORS: signal}),
            failed_signal=WATCHED_ERRORS if has_failed else None,
            failed_log_e=signal.log_e if has_failed else None,
        )

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
            excess_upper=None,
            more_requests_needed=None,
            decided_at_s=window.end_s if has_failed else None,
            phi=self._phi,
            latest_s=window.end_s,
        )
