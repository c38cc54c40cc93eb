"""The judge: windows of counts in, one verdict with its evidence out.

The judge reads no clock, and judges only families of signals for which it has a rule. The same windows give the same
judgement, so a controller that was killed replays its ledger and continues with the identical verdict.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from types import MappingProxyType

import numpy as np

from rollout.judge import words
from rollout.judge.callers import CallersApart
from rollout.judge.evidence import SignalEvidence
from rollout.judge.fail import observe_all
from rollout.judge.failing import Failing, Failure
from rollout.judge.number_evidence import NumberEvidence
from rollout.judge.own_noise import INDEPENDENT, OwnNoise
from rollout.judge.pool import Pool
from rollout.judge.runs import Run
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
from rollout.judge.windows import Windows

_NO_NOISE: Mapping[str, OwnNoise] = MappingProxyType({})
_INDEPENDENT: Mapping[str, float] = MappingProxyType({})
_UNKNOWN: Mapping[str, Pair] = MappingProxyType({})
_LONGEST_RUN = 64  # ticks; their arrays fit into the processor's cache
_ROUNDING = 1e-6  # allowance for rounding in a sum of logs; generous


class Judge:
    """Judges one release, window after window. Asking for a judgement often does not weaken its guarantees.

    A harmless canary is EVER failed with probability at most `config.alpha`. The bound of a budgeted signal is EVER
    below the canary's mean excess over the windows so far with probability at most `config.alpha_pass`. So where the
    excess does not change, this is also the probability that a step that breaks the risk budget is EVER passed. PASS
    promises nothing about harm that grows later; FAIL must find that. FAIL is final, with one exception: once labels
    prove that the canary is better (EVER with probability at most `config.alpha` if it is not), signals that only say
    that the versions differ are excused.
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
            config: settings; every family that will be observed needs a rule.
            noise: by signal, or by family for signals that are not named, see `own_noise`; others have no noise.
            known: by signal, stable's counts before the release: PASS comes sooner where the release has similar ones.
            carried: by signal, natural log of the evidence from an earlier release of the same versions, see `carried`.
            steps: steps that are likely to be asked about; where they are known, PASS comes sooner.
            is_better: labels proved the canary better before the first window.

        Raises: ValueError for settings under which the guarantees would not hold.
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
        self._pool = Pool(config.rules, carried, self._is_excused)
        self._signals = self._pool.signals
        self._usual: set[str] = set()  # known signals that may be judged many ticks at once
        self._callers = CallersApart(config.trusted_callers)
        self._failing = Failing(config, self._pool, self._callers, lambda signal: self._signal_judgement(signal, None))
        self._telling = tuple(family for family, rule in config.rules.items() if rule.tells_better)
        self._is_better = is_better

    def weight_changed(self) -> None:
        """Note that the coming windows have another canary weight, so that harm that begins with it is found early.

        Whether to call this must not depend on the counts of these windows.
        """
        apart = [pool.signals[name] for _, pool in self._callers.pools() for name in self._of_labels()]
        for signal in (*self._signals.values(), *apart):
            signal.weight_changed()

    def observe(self, windows: Iterable[Window]) -> None:
        """Add new windows, oldest first. Windows that end together are one tick: pass them in one call, in any order.

        `Windows` are processed much faster than single windows.

        Raises: ValueError for a family without a rule, impossible counts, or a window that was seen already.
        """
        if isinstance(windows, Windows):
            self._observe_windows(windows)
            return
        run: list[list[Window]] = []  # ticks that may be processed together
        for _, group in groupby(windows, key=attrgetter("end_s")):
            tick = list(group)
            if run and not self._can_follow(run, tick):
                self._observe_run(run)
                run = []
            run.append(tick)
        self._observe_run(run)

    def temper_pass(self, pass_phi: Mapping[str, float]) -> None:
        """Use these dispersions for PASS from now on where they are larger, also for the windows seen before.

        Args:
            pass_phi: by signal, see `noise.user_dispersion`; it grows the longer users repeat their requests.

        Raises: ValueError for a number below 1.
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
            requests: users' requests that the canary will have answered by the end of that step; 0: not known.
            later: further steps whose missing requests are reported; they do not affect the verdict.

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
            log_e=self._pool.log_e(),
            threshold=self._threshold,
            signals=signals,
            failed_signal=self._failure.signal if self._failure else None,
            failed_log_e=self._failure.log_e if self._failure else None,
            on_fail=self._failure.on_fail if self._failure else "rollback",
            without=self._failure.without if self._failure else None,
            later_needed=tuple(self._more_needed(step) for step in later) if later else None,
            improvement=self._improvement() if self._telling else None,
            may_be_better=self._may_be_better(),
        )

    def _more_needed(self, step: Ask) -> float:
        """Canary requests until all budgets allow `step`; inf where the proof is late, and before any request."""
        if any(signal.is_late(step) for signal in self._signals.values()):
            return math.inf
        needed = [signal.more_needed(step) for signal in self._signals.values()]
        return max((more for more in needed if more is not None), default=math.inf)

    @property
    def is_better(self) -> bool:
        """See `Judgement.is_better`."""
        return self._is_better

    def excess_upper(self) -> float:
        """The bound on the canary's mean excess over the windows so far: the largest of all budgeted signals."""
        bounds = [signal.bound.upper() for signal in self._signals.values() if signal.bound]
        return max(bounds, default=1.0)

    def _can_follow(self, run: Sequence[Sequence[Window]], tick: Sequence[Window]) -> bool:
        """Whether a tick may be processed together with the ticks before it, of which there is at least one."""
        return len(run) < _LONGEST_RUN and (len(run) > 1 or self._is_usual(run[0])) and self._is_usual(tick)

    def _is_usual(self, tick: Sequence[Window]) -> bool:
        """Whether a tick changes only the bets of known signals, and no shares, callers or labels."""
        return not self._callers.are_apart and self._usual.issuperset([window.signal for window in tick])

    def _observe_run(self, run: Sequence[Sequence[Window]]) -> None:
        if len(run) > 1:
            self._check([window for tick in run for window in tick])
            if self._observe_together(Windows.of(run, tuple(self._signals))):
                return
        for tick in run:
            self._observe_tick(tick[0].end_s, tick)

    def _observe_windows(self, every: Windows) -> None:
        windows, begin = every.without_empty_ticks(), 0
        while begin < len(windows):
            run = windows.part(begin, begin + _LONGEST_RUN)
            run = run.part(0, max(1, self._usual_ticks(run)))
            if not (len(run) > 1 and self._observe_together(self._checked(run))):
                for place, end_s in enumerate(run.ends_s.tolist()):
                    self._observe_tick(end_s, run.tick(place))
            begin += len(run)

    def _usual_ticks(self, windows: Windows) -> int:
        """How many of the first ticks may be processed together, see `_is_usual`."""
        others = [place for place, name in enumerate(windows.signals) if name not in self._usual]
        is_other = windows.is_there[:, others].any(axis=1)
        if self._callers.are_apart:
            return 0
        return int(is_other.argmax()) if is_other.any() else len(windows)

    def _check(self, windows: Iterable[Window]) -> None:
        """Raise the errors of `observe` for windows of known signals; add nothing."""
        by_signal: dict[str, list[Window]] = {name: [] for name in self._signals}
        for window in windows:
            by_signal[window.signal].append(window)
        for name, own in by_signal.items():
            self._signals[name].check(own)

    def _checked(self, run: Windows) -> Windows:
        """The same windows, with a column for every known signal. Raises as `observe` does."""
        windows = run.of_signals(self._signals)
        newest_s = max(signal.end_s for signal in self._signals.values())
        if not windows.are_sound or windows.ends_s[0] <= newest_s:
            self._check(windows)  # raises the error that says what is wrong
        return windows

    def _observe_together(self, run: Windows) -> bool:
        """Do what `_observe_tick` does for each tick, with bit-identical results; False: impossible, nothing changed.

        Args:
            run: checked windows of all known signals.
        """
        bets = Run([signal.bettors for signal in self._signals.values()], run)
        if not bets.are_whole:
            return False
        may_suffice = bets.log_e(self._pool.log_weights()) >= self._threshold - _ROUNDING
        begin = 0
        for end in (*np.flatnonzero(may_suffice[:-1]).tolist(), len(run) - 1):
            bets.arrive(end)
            part = run.part(begin, end + 1)
            for place, signal in enumerate(self._signals.values()):
                signal.follow(part, place)
            self._failing.detect(float(run.ends_s[end]))
            begin = end + 1
        return True

    def _observe_tick(self, end_s: float, tick: Sequence[Window]) -> None:
        if new := [window.signal for window in tick if window.signal not in self._signals]:
            self._admit(dict.fromkeys(new))
        self._callers.meet(tick, self._pool, self._of_labels())
        bets = [bet for window in tick for bet in self._signals[window.signal].observe(window)]
        for caller, pool in self._callers.pools():
            labelled = (window for window in tick if self._rule(window.signal).is_of_labels)
            bets += [bet for window in labelled for bet in pool.signals[window.signal].observe(window.without(caller))]
        observe_all(bets)
        self._follow_improvement()
        self._failing.detect(end_s)

    def _follow_improvement(self) -> None:
        """Once the canary is proven better, excuse signals that only say that it differs, even after their FAIL."""
        if self._is_better or not any(family in self._signals for family in self._telling):
            return
        self._is_better = self._improvement_log_e() >= self._threshold
        if self._is_better and self._failure and self._is_excused(self._failure.signal):
            self._failing.failure = None

    def _improvement_log_e(self) -> float:
        """The smallest log e-value for "better": of all labels, or of all without those of any single caller."""
        pools = self._pool, *self._callers.left_out().values()
        return min(pool.better_log_e(self._telling) for pool in pools)

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
        """Add new signals with their shares, before the counts of their first tick are used."""
        by_family: defaultdict[str, list[str]] = defaultdict(list)
        for name in names:
            by_family[_family(name)].append(name)
        for family, new in by_family.items():
            rule = self._rule(new[0])
            made = self._all_new(new, rule)
            self._pool.admit(family, made)
            if not (rule.numbers or rule.is_of_labels or rule.tells_better):
                self._usual.update(new)
            for _, pool in self._callers.pools():
                pool.admit(family, self._all_new(new, rule) if rule.is_of_labels else made)

    def _all_new(self, names: Iterable[str], rule: SignalRule) -> dict[str, SignalEvidence]:
        made = {name: self._new(name, rule) for name in names}
        for name, signal in made.items():
            signal.temper_pass(self._pass_phi.get(name, 1.0))
        return made

    def _new(self, name: str, rule: SignalRule) -> SignalEvidence:
        noise = self._noise.get(name, self._noise.get(_family(name), INDEPENDENT))
        is_continued = name in self._carried
        if rule.numbers:
            return NumberEvidence(name, rule, rule.numbers, self._config, noise=noise, is_continued=is_continued)
        known = self._known.get(name, Pair(0, 0))
        return SignalEvidence(
            name, rule, self._config, noise=noise, known=known, is_continued=is_continued, steps=self._steps
        )

    @property
    def _failure(self) -> Failure | None:
        return self._failing.failure

    def _of_labels(self) -> list[str]:
        """The signals of labels seen so far."""
        return [name for name in self._signals if self._rule(name).is_of_labels]

    def _conclude(
        self, signals: Mapping[str, SignalJudgement], missing: Sequence[str], step: Ask | None
    ) -> tuple[Verdict, str]:
        if self._failure:
            return Verdict.FAIL, self._failure.reason
        if missing or not any(signal.has_data for signal in self._signals.values()):
            lacking = {name: signals[self._named(name)[0].name] if self._named(name) else None for name in missing}
            return Verdict.NO_DATA, words.no_data(lacking or signals)
        if self._failing.unconfirmed:
            return Verdict.INCONCLUSIVE, self._failing.unconfirmed
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
        """The signals seen so far that have this name or belong to the family of this name."""
        return [signal for signal in self._signals.values() if name in (signal.name, _family(signal.name))]

    def _rule(self, name: str) -> SignalRule:
        rule = self._config.rules.get(_family(name))
        if rule is None:
            raise ValueError(f"no rule for signal {name!r}; families with a rule: {', '.join(self._config.rules)}")
        return rule

    def _signal_judgement(self, signal: SignalEvidence, step: Ask | None) -> SignalJudgement:
        log_e, difference = self._pool.log_e_of(signal.name), signal.difference
        without = self._callers.of_signal(signal.name) if self._rule(signal.name).is_of_labels else ()
        upper = signal.bound.upper() if signal.bound else None
        share_upper, is_excused = signal.share_upper, self._is_excused(signal.name)
        is_over_limit = share_upper is not None and share_upper > (signal.limit or 1.0) and not is_excused
        is_within_budget = step is None or (not is_over_limit and self._is_within_budget(upper, difference, step))
        more_needed = None
        if step is not None:
            more_needed = signal.more_until_within_limit if is_over_limit else signal.more_needed(step)
        is_judged = self._pool.log_share(signal.name) > -math.inf and not is_excused
        largest = max((log_e, *(each.log_e for each in without)))
        return SignalJudgement(
            verdict=signal_verdict(
                self._config,
                has_failed=is_judged and signal.decided_at_s is not None,
                has_data=signal.has_data,
                log_e=-math.inf if is_excused else largest,
                is_within_budget=is_within_budget,
            ),
            log_e=log_e,
            threshold=self._threshold - self._pool.log_share(signal.name),
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
            least_without=min(without, key=lambda each: each.log_e, default=None),
            most_without=max(without, key=lambda each: each.log_e, default=None),
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
