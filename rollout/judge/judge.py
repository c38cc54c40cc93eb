"""The judge: windows of counts in, one verdict with its evidence out.

The controller and `kanaria judge` call it. It knows no clock, no traffic and no release: the same windows give the
same judgement, so a controller that was killed replays its ledger and goes on with the identical verdict.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import Literal

from rollout.judge import words
from rollout.judge.evidence import SignalEvidence
from rollout.judge.fail import observe_all
from rollout.judge.logarithms import log_sum
from rollout.judge.portfolio import Portfolio
from rollout.judge.settings import check_settings
from rollout.judge.types import JudgeConfig, Judgement, Pair, SignalJudgement, SignalRule, Verdict, Window
from rollout.judge.verdicts import overall, signal_verdict

_INDEPENDENT: Mapping[str, float] = MappingProxyType({})
_UNKNOWN: Mapping[str, Pair] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Failure:
    """The moment of FAIL. Final, but that a person's decision may become a rollback."""

    signal: str
    reason: str
    log_e: float
    on_fail: Literal["rollback", "hold"]


class Judge:
    """Judges one release, window after window, as often as one likes: looking costs nothing.

    A harmless canary is EVER failed with probability at most `config.alpha`. A step that breaks the risk budget is
    EVER passed with probability at most `config.alpha_pass` for each budgeted signal. FAIL is final.
    """

    def __init__(
        self, config: JudgeConfig, phi: Mapping[str, float] = _INDEPENDENT, known: Mapping[str, Pair] = _UNKNOWN
    ) -> None:
        """
        Args:
            config: settings; every family that will be observed needs its rule.
            phi: dispersion of each signal, see `noise.dispersion`; 1 for those not named.
            known: by signal, what stable counted before the release: PASS comes sooner where it is like what follows.

        Raises: ValueError for settings under which nothing would be proven.
        """
        check_settings(config, phi)
        self._config = config
        self._phi = phi
        self._known = known
        self._pass_phi = _INDEPENDENT
        self._threshold = -math.log(config.alpha)
        self._signals: dict[str, SignalEvidence] = {}
        self._portfolio = Portfolio({family: rule.weight for family, rule in config.rules.items()})
        self._failure: _Failure | None = None

    def observe(self, windows: Iterable[Window]) -> None:
        """Take in new windows, oldest first. Those that end together are one tick: give them in one call, in any order.

        Raises: ValueError for a family without a rule, impossible counts, or a signal's window seen already.
        """
        for end_s, tick in groupby(windows, key=lambda window: window.end_s):
            self._observe_tick(end_s, list(tick))

    def temper_pass(self, pass_phi: Mapping[str, float]) -> None:
        """From now on take these dispersions for PASS where they are larger, for what was seen before too.

        Args:
            pass_phi: by signal, see `noise.user_dispersion`: it grows with the time over which users repeat.

        Raises: ValueError for a number under 1.
        """
        check_settings(self._config, pass_phi)
        self._pass_phi = pass_phi
        for name, signal in self._signals.items():
            signal.temper_pass(pass_phi.get(name, 1.0))

    def judgement(self, *, next_weight: float | None, expected: Collection[str] = ()) -> Judgement:
        """What all windows so far say. Changes nothing.

        Args:
            next_weight: canary share of the traffic, above 0 and up to 1, that the release wants to move to;
                None: no step is asked for, and PASS only means that nothing speaks against the canary.
            expected: signals or families that must have data on both sides before anything passes.

        Raises: ValueError for a weight out of range or an expected family without a rule.
        """
        if next_weight is not None and not 0 < next_weight <= 1:
            raise ValueError(f"next_weight is a share above 0 and up to 1, got {next_weight}")
        signals = {name: self._signal_judgement(signal, next_weight) for name, signal in self._signals.items()}
        missing = self._missing(expected, next_weight)
        verdict, reason = self._conclude(signals, missing, next_weight)
        signals |= {name: self._never_seen() for name in missing if not self._named(name)}
        return Judgement(
            verdict=verdict,
            reason=reason,
            log_e=self._log_e(),
            threshold=self._threshold,
            signals=MappingProxyType(signals),
            failed_signal=self._failure.signal if self._failure else None,
            failed_log_e=self._failure.log_e if self._failure else None,
            on_fail=self._failure.on_fail if self._failure else "rollback",
        )

    def _observe_tick(self, end_s: float, tick: Sequence[Window]) -> None:
        for window in tick:  # newcomers get their share before anybody knows what this tick brings
            if window.signal not in self._signals:
                self._admit(window.signal)
        observe_all(bet for window in tick for bet in self._signals[window.signal].observe(window))
        self._look_for_failure(end_s)

    def _admit(self, name: str) -> None:
        rule = self._rule(name)
        self._portfolio.admit(name, _family(name), lambda present: self._signals[present].log_e)
        self._signals[name] = SignalEvidence(
            name, rule, self._config, phi=self._phi.get(name, 1.0), known=self._known.get(name, Pair(0, 0))
        )
        self._signals[name].temper_pass(self._pass_phi.get(name, 1.0))

    def _look_for_failure(self, end_s: float) -> None:
        guilt = self._guilt()
        for name, log_guilt in guilt.items():
            if log_guilt >= self._threshold:
                self._signals[name].decide(end_s)
        if self._failure and self._failure.on_fail == "rollback":
            return
        rollback_guilt = self._guilt(rollback_only=True)
        if log_sum(rollback_guilt.values()) >= self._threshold:
            self._failure = self._fail(rollback_guilt, "rollback", end_s)
        elif self._failure is None and log_sum(guilt.values()) >= self._threshold:
            self._failure = self._fail(guilt, "hold", end_s)

    def _guilt(self, *, rollback_only: bool = False) -> dict[str, float]:
        """What each signal adds, as a log, to the evidence that may FAIL."""
        return {
            name: self._portfolio.log_share(name) + signal.log_guilt(rollback_only=rollback_only)
            for name, signal in self._signals.items()
        }

    def _fail(self, guilt: Mapping[str, float], on_fail: Literal["rollback", "hold"], end_s: float) -> _Failure:
        leading = self._signals[max(guilt, key=lambda name: guilt[name])]
        leading.decide(end_s)
        log_e = log_sum(guilt.values())
        reason = words.failed(leading.name, leading.stable, leading.canary, log_e, limit=leading.limit)
        return _Failure(leading.name, reason, log_e, on_fail)

    def _log_e(self) -> float:
        if not self._signals:
            return 0.0
        return log_sum(self._portfolio.log_share(name) + signal.log_e for name, signal in self._signals.items())

    def _conclude(
        self, signals: Mapping[str, SignalJudgement], missing: Sequence[str], next_weight: float | None
    ) -> tuple[Verdict, str]:
        if self._failure:
            return Verdict.FAIL, self._failure.reason
        if missing or not any(signal.has_data for signal in self._signals.values()):
            lacking = {name: signals[self._named(name)[0].name] if self._named(name) else None for name in missing}
            return Verdict.NO_DATA, words.no_data(lacking or signals)
        return overall(self._config, signals, next_weight)

    def _missing(self, expected: Collection[str], next_weight: float | None) -> list[str]:
        """Signals or families that PASS needs and that lack data on either side."""
        for name in expected:
            self._rule(name)
        budgeted = [name for name, rule in self._config.rules.items() if rule.budgeted and next_weight is not None]
        needed = dict.fromkeys((*expected, *budgeted))
        return [name for name in needed if not any(signal.has_data for signal in self._named(name))]

    def _named(self, name: str) -> list[SignalEvidence]:
        """The signals seen so far that `name`, of a signal or of a family, stands for."""
        return [signal for signal in self._signals.values() if name in (signal.name, _family(signal.name))]

    def _rule(self, name: str) -> SignalRule:
        rule = self._config.rules.get(_family(name))
        if rule is None:
            raise ValueError(f"no rule for signal {name!r}; families with a rule: {', '.join(self._config.rules)}")
        return rule

    def _signal_judgement(self, signal: SignalEvidence, next_weight: float | None) -> SignalJudgement:
        upper = more_needed = None
        if signal.bound:
            upper = signal.bound.upper()
            if next_weight is not None:
                more_needed = signal.bound.more_needed(self._config.risk_budget / next_weight)
        return SignalJudgement(
            verdict=signal_verdict(
                self._config,
                has_failed=signal.decided_at_s is not None,
                has_data=signal.has_data,
                log_e=signal.log_e,
                upper=upper,
                next_weight=next_weight,
            ),
            log_e=signal.log_e,
            threshold=self._threshold - self._portfolio.log_share(signal.name),
            stable=signal.stable,
            canary=signal.canary,
            excess_upper=upper,
            more_requests_needed=more_needed,
            decided_at_s=signal.decided_at_s,
            phi=signal.phi,
            canary_per_s=signal.canary_per_s,
            latest_s=signal.latest_s,
            limit=signal.limit,
        )

    def _never_seen(self) -> SignalJudgement:
        return SignalJudgement(
            verdict=Verdict.NO_DATA,
            log_e=0.0,
            threshold=self._threshold,
            stable=Pair(0, 0),
            canary=Pair(0, 0),
            excess_upper=None,
            more_requests_needed=None,
            decided_at_s=None,
        )


def _family(name: str) -> str:
    return name.partition(":")[0]
