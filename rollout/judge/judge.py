"""The judge: windows of counts in, one verdict with its evidence out.

It reads no clock, and judges only the families of signals whose rules it is given. The same windows give the same
judgement, so a controller that was killed replays its ledger and continues with the identical verdict.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import Literal

from rollout.judge import words
from rollout.judge.evidence import SignalEvidence
from rollout.judge.fail import observe_all
from rollout.judge.logarithms import log_add, log_sum
from rollout.judge.number_evidence import NumberEvidence
from rollout.judge.own_noise import INDEPENDENT, OwnNoise
from rollout.judge.portfolio import Portfolio
from rollout.judge.settings import check_dispersions, check_noise, check_settings
from rollout.judge.types import (
    Ask,
    Difference,
    Improvement,
    JudgeConfig,
    Judgement,
    Pair,
    SignalJudgement,
    SignalRule,
    Verdict,
    Window,
)
from rollout.judge.verdicts import overall, signal_verdict

_NO_NOISE: Mapping[str, OwnNoise] = MappingProxyType({})
_INDEPENDENT: Mapping[str, float] = MappingProxyType({})
_UNKNOWN: Mapping[str, Pair] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Failure:
    """The moment of FAIL. It is final, except that a hold may still become a rollback."""

    signal: str
    reason: str
    log_e: float
    on_fail: Literal["rollback", "hold"]


class Judge:
    """Judges one release, window after window. Asking for a judgement often does not weaken its guarantees.

    A harmless canary is EVER failed with probability at most `config.alpha`. The bound of a budgeted signal is EVER
    below the canary's mean excess over the windows so far with probability at most `config.alpha_pass`. So where the
    excess does not change, this is also the probability that a step that breaks the risk budget is EVER passed. PASS
    promises nothing about harm that grows later: that is for FAIL to find. FAIL is final, but for one exception: where
    labels prove that the canary is better (with a probability of at most `config.alpha` EVER, if it is not), signals
    which only say that the versions differ are excused from then on.
    """

    def __init__(
        self,
        config: JudgeConfig,
        noise: Mapping[str, OwnNoise] = _NO_NOISE,
        known: Mapping[str, Pair] = _UNKNOWN,
        *,
        carried: Mapping[str, float] = _INDEPENDENT,
        steps: Sequence[Ask] = (),
        is_better: bool = False,
    ) -> None:
        """
        Args:
            config: settings; every family that will be observed needs its rule.
            noise: of each signal, see `own_noise`, or of a family for those of it that are not named; others have none.
            known: by signal, stable's counts before the release: PASS comes sooner where the release has similar ones.
            carried: by signal, log of the evidence that an earlier release of the same versions won, see `carried`.
            steps: that are likely to be asked about; where they are known, PASS comes sooner.
            is_better: labels have proven the canary better before the first window.

        Raises: ValueError for settings under which nothing would be proven.
        """
        check_settings(config)
        check_noise(noise)
        self._config = config
        self._noise = noise
        self._known = known
        self._carried = carried
        self._steps = steps
        self._pass_phi = _INDEPENDENT
        self._threshold = -math.log(config.alpha)
        self._signals: dict[str, SignalEvidence] = {}
        self._portfolio = Portfolio({family: rule.weight for family, rule in config.rules.items()})
        self._failure: _Failure | None = None
        self._telling = tuple(family for family, rule in config.rules.items() if rule.tells_better)
        self._is_better = is_better

    def weight_changed(self) -> None:
        """The windows from now on have another canary weight: harm that begins with it is found as early as at first.

        Whether to call this must not depend on the counts of these windows.
        """
        for signal in self._signals.values():
            signal.weight_changed()

    def observe(self, windows: Iterable[Window]) -> None:
        """Take in new windows, oldest first. Those that end together are one tick: give them in one call, in any order.

        Raises: ValueError for a family without a rule, impossible counts, or a window that was seen already.
        """
        for end_s, tick in groupby(windows, key=lambda window: window.end_s):
            self._observe_tick(end_s, list(tick))

    def temper_pass(self, pass_phi: Mapping[str, float]) -> None:
        """Use these dispersions for PASS from now on where they are larger, also for the windows seen before.

        Args:
            pass_phi: by signal, see `noise.user_dispersion`: it grows with the time over which users repeat.

        Raises: ValueError for a number under 1.
        """
        check_dispersions(pass_phi)
        self._pass_phi = pass_phi
        for name, signal in self._signals.items():
            signal.temper_pass(pass_phi.get(name, 1.0))

    def judgement(
        self,
        *,
        next_weight: float | None,
        expected: Collection[str] = (),
        requests: float = 0.0,
        later: Sequence[Ask] = (),
    ) -> Judgement:
        """The verdict on all windows so far. Changes nothing.

        Args:
            next_weight: canary share of the traffic, above 0 and up to 1, that the release wants to move to;
                None: no step is asked for, and PASS only means that nothing is suspicious.
            expected: signals or families that must have data on both sides before anything passes.
            requests: of users, that the canary will have answered at the end of that step; 0: not known.
            later: steps for which the missing requests are wanted too; they change no verdict.

        Raises: ValueError for a weight out of range or an expected family without a rule.
        """
        if next_weight is not None and not 0 < next_weight <= 1:
            raise ValueError(f"next_weight is a share above 0 and up to 1, got {next_weight}")
        step = None if next_weight is None else Ask(next_weight, requests)
        signals = {name: self._signal_judgement(signal, step) for name, signal in self._signals.items()}
        missing = self._missing(expected, next_weight)
        verdict, reason = self._conclude(signals, missing, step)
        signals |= {name: self._never_seen() for name in missing if not self._named(name)}
        return Judgement(
            verdict=verdict,
            reason=reason,
            log_e=self._log_e(),
            threshold=self._threshold,
            signals=signals,
            failed_signal=self._failure.signal if self._failure else None,
            failed_log_e=self._failure.log_e if self._failure else None,
            on_fail=self._failure.on_fail if self._failure else "rollback",
            later_needed=tuple(self._more_needed(step) for step in later) if later else None,
            improvement=self._improvement() if self._telling else None,
            may_be_better=self._may_be_better(),
        )

    def _more_needed(self, step: Ask) -> float:
        """Canary requests until all budgets allow `step`; inf where that is late, and before any was seen."""
        if any(signal.is_late(step) for signal in self._signals.values()):
            return math.inf
        needed = [signal.more_needed(step) for signal in self._signals.values()]
        return max((more for more in needed if more is not None), default=math.inf)

    @property
    def is_better(self) -> bool:
        """See `Judgement.is_better`."""
        return self._is_better

    def excess_upper(self) -> float:
        """The bound on the canary's mean excess over the windows so far, the largest of all budgeted signals."""
        bounds = [signal.bound.upper() for signal in self._signals.values() if signal.bound]
        return max(bounds, default=1.0)

    def _observe_tick(self, end_s: float, tick: Sequence[Window]) -> None:
        if new := [window.signal for window in tick if window.signal not in self._signals]:
            self._admit(dict.fromkeys(new))
        observe_all(bet for window in tick for bet in self._signals[window.signal].observe(window))
        self._follow_improvement()
        self._detect_failure(end_s)

    def _follow_improvement(self) -> None:
        """Once the canary is proven better, what only says that it differs is excused, also where it has failed it."""
        if self._is_better or not any(family in self._signals for family in self._telling):
            return
        self._is_better = self._improvement_log_e() >= self._threshold
        if self._is_better and self._failure and self._is_excused(self._failure.signal):
            self._failure = None

    def _improvement_log_e(self) -> float:
        """Of the mean over the families that tell; those that were not seen have bet nothing."""
        seen = [self._signals[family].better_log_e if family in self._signals else 0.0 for family in self._telling]
        return log_sum(seen) - math.log(len(seen))

    def _improvement(self) -> Improvement:
        return Improvement(self._improvement_log_e(), self._threshold, self._is_better)

    def _is_excused(self, name: str) -> bool:
        return self._is_better and self._rule(name).is_only_different

    def _may_be_better(self) -> bool:
        """See `Judgement`."""
        rule = self._rule(self._failure.signal) if self._failure and self._telling else None
        if rule is None or not rule.is_only_different or rule.on_fail == "rollback":
            return False
        return any(signal.stable.total for name, signal in self._signals.items() if self._rule(name).is_of_labels)

    def _admit(self, names: Iterable[str]) -> None:
        """Give new signals their shares, before the counts of their first tick are used."""
        by_family: defaultdict[str, list[str]] = defaultdict(list)
        for name in names:
            by_family[_family(name)].append(name)
        for family, new in by_family.items():
            rule = self._rule(new[0])
            self._portfolio.admit(new, family, lambda present: self._signals[present].log_e)
            for name in new:
                self._signals[name] = self._new(name, rule)
                self._signals[name].temper_pass(self._pass_phi.get(name, 1.0))

    def _new(self, name: str, rule: SignalRule) -> SignalEvidence:
        noise = self._noise.get(name, self._noise.get(_family(name), INDEPENDENT))
        is_continued = name in self._carried
        if rule.numbers:
            return NumberEvidence(name, rule, rule.numbers, self._config, noise=noise, is_continued=is_continued)
        known = self._known.get(name, Pair(0, 0))
        return SignalEvidence(
            name, rule, self._config, noise=noise, known=known, is_continued=is_continued, steps=self._steps
        )

    def _detect_failure(self, end_s: float) -> None:
        if self._log_e() < self._threshold:
            return  # what may FAIL is a part of it
        evidence = self._evidence_to_fail()
        for name, log_e in evidence.items():
            if log_e >= self._threshold:
                self._signals[name].decide(end_s)
        if self._failure and self._failure.on_fail == "rollback":
            if self._rule(self._failure.signal).is_only_different:
                self._detect_harm(end_s)
            return
        for_rollback = self._evidence_to_fail(rollback_only=True)
        if log_sum(for_rollback.values()) >= self._threshold:
            self._failure = self._fail(for_rollback, "rollback", end_s)
        elif self._failure is None and log_sum(evidence.values()) >= self._threshold:
            self._failure = self._fail(evidence, "hold", end_s)

    def _detect_harm(self, end_s: float) -> None:
        """Let signals of harm that FAIL by themselves take the place of a difference, which labels may still excuse."""
        evidence = self._evidence_to_fail(rollback_only=True)
        harm = {name: log_e for name, log_e in evidence.items() if not self._rule(name).is_only_different}
        if log_sum(harm.values()) >= self._threshold:
            self._failure = self._fail(harm, "rollback", end_s)

    def _evidence_to_fail(self, *, rollback_only: bool = False) -> dict[str, float]:
        """By signal, its part of the evidence that may FAIL, as a log."""
        evidence = {
            name: self._portfolio.log_share(name) + signal.log_e_to_fail(rollback_only=rollback_only)
            for name, signal in self._signals.items()
            if not self._is_excused(name)
        }
        for name, log_won in self._carried.items():
            if name in evidence:
                continued = self._signals[name].log_e_to_fail(rollback_only=rollback_only, is_continued=True)
                evidence[name] = log_add(evidence[name], log_won + continued)
        return evidence

    def _fail(self, evidence: Mapping[str, float], on_fail: Literal["rollback", "hold"], end_s: float) -> _Failure:
        leading = self._signals[max(evidence, key=lambda name: evidence[name])]
        leading.decide(end_s)
        log_e = log_sum(evidence.values())
        seen = words.seen(leading.name, self._rule(leading.name), self._signal_judgement(leading, None))
        place = words.concentrated(leading.name, self._canary(), self._config.rules)
        reason = words.failed("; ".join(filter(None, (seen, place))), log_e)
        return _Failure(leading.name, reason, log_e, on_fail)

    def _canary(self) -> dict[str, Pair]:
        return {name: signal.canary for name, signal in self._signals.items()}

    def _log_e(self) -> float:
        parts = [self._log_part(signal) for name, signal in self._signals.items() if not self._is_excused(name)]
        evidence = log_sum(parts)
        return evidence if evidence > -math.inf else 0.0

    def _log_part(self, signal: SignalEvidence) -> float:
        """Log of what a signal adds to the combined evidence."""
        own = self._portfolio.log_share(signal.name) + signal.log_e
        if not self._carried:
            return own
        return log_add(own, self._carried.get(signal.name, -math.inf) + signal.continued_log_e)

    def _log_e_of(self, signal: SignalEvidence) -> float:
        """Log e-value of one signal, with what was carried as if the signal had won it alone."""
        share = self._portfolio.log_share(signal.name)
        return self._log_part(signal) - share if share > -math.inf else signal.log_e

    def _conclude(
        self, signals: Mapping[str, SignalJudgement], missing: Sequence[str], step: Ask | None
    ) -> tuple[Verdict, str]:
        if self._failure:
            return Verdict.FAIL, self._failure.reason
        if missing or not any(signal.has_data for signal in self._signals.values()):
            lacking = {name: signals[self._named(name)[0].name] if self._named(name) else None for name in missing}
            return Verdict.NO_DATA, words.no_data(lacking or signals)
        verdict, reason = overall(self._config, signals, step)
        if any(judged.is_excused for judged in signals.values()):
            reason = f"{words.better(signals, self._config.rules)}; {reason}"
        return verdict, reason

    def _missing(self, expected: Collection[str], next_weight: float | None) -> list[str]:
        """Signals or families that PASS needs and that lack data on either side."""
        for name in expected:
            self._rule(name)
        budgeted = [
            name
            for name, rule in self._config.rules.items()
            if rule.budgeted and next_weight is not None and (name not in self._config.may_lack or self._named(name))
        ]
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

    def _signal_judgement(self, signal: SignalEvidence, step: Ask | None) -> SignalJudgement:
        log_e, difference = self._log_e_of(signal), signal.difference
        upper = signal.bound.upper() if signal.bound else None
        share_upper, is_excused = signal.share_upper, self._is_excused(signal.name)
        is_over_limit = share_upper is not None and share_upper > (signal.limit or 1.0) and not is_excused
        is_within_budget = step is None or (not is_over_limit and self._is_within_budget(upper, difference, step))
        more_needed = None
        if step is not None:
            more_needed = signal.more_until_within_limit if is_over_limit else signal.more_needed(step)
        is_judged = self._portfolio.log_share(signal.name) > -math.inf and not is_excused
        return SignalJudgement(
            verdict=signal_verdict(
                self._config,
                has_failed=is_judged and signal.decided_at_s is not None,
                has_data=signal.has_data,
                log_e=-math.inf if is_excused else log_e,
                is_within_budget=is_within_budget,
            ),
            log_e=log_e,
            threshold=self._threshold - self._portfolio.log_share(signal.name),
            stable=signal.stable,
            canary=signal.canary,
            excess_upper=upper,
            more_requests_needed=more_needed,
            decided_at_s=signal.decided_at_s,
            canary_per_s=signal.canary_per_s,
            latest_s=signal.latest_s,
            limit=signal.limit,
            share_upper=share_upper,
            difference=difference,
            is_excused=is_excused,
        )

    def _is_within_budget(self, upper: float | None, difference: Difference | None, step: Ask) -> bool:
        if difference and difference.budget is not None:
            return step.weight * difference.worst <= difference.budget
        return upper is None or upper <= self._config.most_excess(step)

    def _never_seen(self) -> SignalJudgement:
        return SignalJudgement(
            verdict=Verdict.NO_DATA,
            log_e=0.0,
            threshold=self._threshold,
            stable=Pair(0, 0),
            canary=Pair(0, 0),
        )


def _family(name: str) -> str:
    return name.partition(":")[0]
