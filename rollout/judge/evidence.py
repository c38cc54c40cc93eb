"""All evidence about one signal so far: counts, streams of bets on harm, and the bound on its excess."""

import math
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from functools import partial

from rollout.judge.bets import bets_for
from rollout.judge.bound import ExcessBound
from rollout.judge.fail import Stream
from rollout.judge.limits import events_needed, upper_limit_at_any_time
from rollout.judge.logarithms import log_sum
from rollout.judge.own_noise import INDEPENDENT, OwnNoise
from rollout.judge.runs import Bettors
from rollout.judge.types import Ask, Difference, JudgeConfig, Pair, SignalRule, Window
from rollout.judge.windows import Windows

_RATE_MEMORY = 0.9  # how much of the last window's traffic estimate the next one keeps


class SignalEvidence:
    """Counts and evidence of one signal. Memory does not grow with the number of windows."""

    def __init__(
        self,
        name: str,
        rule: SignalRule,
        config: JudgeConfig,
        *,
        noise: OwnNoise,
        known: Pair,
        is_continued: bool = False,
        steps: Sequence[Ask] = (),
    ) -> None:
        self.name, self._config = name, config
        self.stable = self.canary = Pair(0, 0)
        self.latest_s: float | None = None
        self.decided_at_s: float | None = None
        self.bound = _bound(config, noise, known, steps) if rule.budgeted and not rule.numbers else None
        is_judged = bool(rule.weight or rule.numbers)
        self._own = _streams(rule, config) if is_judged else ()
        self._continued = _streams(rule, config, is_continued=True) if is_judged and is_continued else ()
        self._fewer = _better(rule, config) if rule.tells_better else None
        self._streams = (*self._own, *self._continued)
        self._log_e: float | None = None  # cached; None: the streams have bet since it was computed
        self.limit = rule.limit
        self._is_to_be_proven, self._alpha_pass = rule.is_to_be_proven, config.alpha_pass
        self._are_numbers = rule.numbers is not None
        self._noise, self._is_noisy = noise, noise != INDEPENDENT
        self._min_bad, self._most_excess = config.min_bad, config.most_excess
        self.end_s = -math.inf  # of the last window, Unix seconds
        self._recent_requests = self._recent_s = 0.0

    @property
    def has_data(self) -> bool:
        """Whether there is traffic to judge: on both sides, or on canary alone where the limit is a fixed share."""
        return bool(self.canary.total and (self.stable.total or self.limit is not None))

    @property
    def difference(self) -> Difference | None:
        """How far apart the means are, where events are numbers."""
        return None

    @property
    def share_upper(self) -> float | None:
        """See `SignalJudgement`."""
        if not (self._is_to_be_proven and self.canary.total):
            return None
        return upper_limit_at_any_time(self.canary, self._alpha_pass)

    @property
    def more_until_within_limit(self) -> float:
        """About how many more events would prove that the share of bad events is within the limit."""
        return events_needed(self.canary, self.limit or 1.0, self._alpha_pass)

    def more_needed(self, step: Ask) -> float | None:
        """See `SignalJudgement.more_requests_needed`."""
        return self.bound.more_needed(self._most_excess(step)) if self.bound else None

    def is_late(self, step: Ask) -> bool:
        """Whether a canary as good as stable would very likely have proven `step` by now."""
        return self.bound.is_late(self._most_excess(step)) if self.bound else False

    @property
    def canary_per_s(self) -> float:
        """Canary requests a second, over the recent windows."""
        return self._recent_requests / self._recent_s if self._recent_s else 0.0

    @property
    def log_e(self) -> float:
        """Log e-value of all streams together."""
        if self._log_e is None:
            self._log_e = _mean(self._own) if self._own else 0.0
        return self._log_e

    @property
    def continued_log_e(self) -> float:
        """Log of what each unit carried from an earlier release is worth now, see `carried`; -inf: nothing carried."""
        return _mean(self._continued) if self._continued else -math.inf

    @property
    def better_log_e(self) -> float:
        """Log e-value against "the canary is right no more often than stable"; 0 where its events cannot show it."""
        return self._fewer.log_e if self._fewer else 0.0

    def apart(self) -> "SignalEvidence":
        """An independent copy of this evidence."""
        return deepcopy(self, {id(self._config): self._config})

    def weight_changed(self) -> None:
        """See `Judge.weight_changed`."""
        self._recent_requests = self._recent_s = 0.0  # the canary now gets another share of the traffic
        for stream in self._every_stream:
            stream.weight_changed()

    def observe(self, window: Window) -> list[tuple[Stream, Pair, Pair]]:
        """Add the next window. Raises ValueError for one that was seen already or has impossible counts.

        Returns: the bets that its streams must still make; pass them to `fail.observe_all`.
        """
        self._check(window, self.end_s)
        self._count(window.stable, window.canary)
        self._pass([(window.end_s, window.window_s, window.canary.total)])
        if self.bound:
            self.bound.observe(window.stable, window.canary)
        if self._is_noisy:
            phi, windows = self._noise.tempering(window)
            for stream in self._every_stream:
                stream.temper(phi, windows_per_burst=windows)
        return self._bet(window)

    def check(self, windows: Iterable[Window]) -> None:
        """Raise the errors that `observe` would raise for these windows; add nothing."""
        end_s = self.end_s
        for window in windows:
            self._check(window, end_s)
            end_s = window.end_s

    @property
    def bettors(self) -> Bettors:
        """Its streams and their noise, for a `Run`."""
        return Bettors(self._streams, self._noise)

    def follow(self, windows: Windows, place: int) -> None:
        """Count windows that were checked before, and on which the streams have already bet.

        Args:
            place: column of this signal in `windows`.
        """
        is_there = windows.is_there[:, place]
        counts = windows.counts[is_there, place]
        if len(counts):
            bad, total, own_bad, own_total = counts.sum(axis=0).tolist()
            self._count(Pair(bad, total), Pair(own_bad, own_total))
            ends_s, lengths_s = windows.ends_s[is_there], windows.lengths_s[is_there, place]
            self._pass(zip(ends_s.tolist(), lengths_s.tolist(), counts[:, 3].tolist(), strict=True))
            if self.bound:
                for bad, total, own_bad, own_total in counts.tolist():
                    self.bound.observe(Pair(bad, total), Pair(own_bad, own_total))

    def log_weights(self, *, own: float, continued: float) -> Iterator[tuple[Stream, float]]:
        """Each stream with the log of its e-value's weight.

        Args:
            own: log weight of `log_e`.
            continued: log weight of `continued_log_e`.
        """
        for streams, log_weight in ((self._own, own), (self._continued, continued)):
            for stream in streams:
                yield stream, log_weight - math.log(len(streams))

    def _count(self, stable: Pair, canary: Pair) -> None:
        self._log_e = None
        self.stable += stable
        self.canary += canary

    def _pass(self, windows: Iterable[tuple[float, float, int]]) -> None:
        """Note the time and the canary's traffic of windows: (end, Unix seconds; length, seconds; canary events)."""
        requests, seconds = self._recent_requests, self._recent_s
        for end_s, length_s, total in windows:
            self.end_s = end_s
            if total:
                self.latest_s = end_s
            requests = _RATE_MEMORY * requests + total
            seconds = _RATE_MEMORY * seconds + length_s
        self._recent_requests, self._recent_s = requests, seconds

    def _bet(self, window: Window) -> list[tuple[Stream, Pair, Pair]]:
        """The bets that `observe` returns."""
        bets = [(stream, window.stable, window.canary) for stream in self._streams]
        if self._fewer:
            bad, total = window.canary
            canary = window.canary if self._fewer.swapped else Pair(total - bad, total)
            bets.append((self._fewer, window.stable, canary))
        return bets

    @property
    def _every_stream(self) -> tuple[Stream, ...]:
        return (*self._streams, self._fewer) if self._fewer else self._streams

    def _check(self, window: Window, end_s: float) -> None:
        """Raise ValueError for impossible counts, or where the window before ended at the same `end_s`."""
        if window.end_s == end_s:
            raise ValueError(f"{window.signal}: two windows end at {window.end_s}; events must not count twice")
        for arm, pair in (("stable", window.stable), ("canary", window.canary)):
            if not 0 <= pair.bad <= pair.total:
                raise ValueError(f"{window.signal}: {arm} has {pair.bad} bad of {pair.total} events")
        if window.numbers and not self._are_numbers:
            raise ValueError(f"{window.signal}: its rule is about bad events; this window has sums of numbers")

    def temper_pass(self, pass_phi: float) -> None:
        """Use the dispersion `pass_phi` for PASS where it is larger than the dispersion of the windows so far."""
        if self.bound:
            self.bound.least_phi = pass_phi

    def decide(self, end_s: float) -> None:
        """Note the first time at which the evidence was enough to FAIL."""
        if self.decided_at_s is None:
            self.decided_at_s = end_s

    def log_e_to_fail(self, *, rollback_only: bool = False, is_continued: bool = False) -> float:
        """The part of `log_e` that may FAIL: from streams with enough bad events; -inf for none.

        Args:
            rollback_only: leave out the streams on which a person must decide.
            is_continued: the part of `continued_log_e` instead.
        """
        streams = self._continued if is_continued else self._own
        logs = [
            stream.log_e
            for stream in streams
            if stream.bad >= self._min_bad and (stream.on_fail == "rollback" or not rollback_only)
        ]
        return log_sum(logs) - math.log(len(streams)) if logs else -math.inf


def _bound(config: JudgeConfig, noise: OwnNoise, known: Pair, steps: Sequence[Ask]) -> ExcessBound:
    bets = bets_for(config.risk_budget, known, [config.most_excess(step) for step in steps])
    return ExcessBound(config.alpha_pass, noise=noise, bets=bets)


def _streams(rule: SignalRule, config: JudgeConfig, *, is_continued: bool = False) -> tuple[Stream, ...]:
    sides = (False, True) if rule.two_sided else (False,)
    make = partial(Stream, rule, config, is_continued=is_continued)
    streams = [make(swapped=swapped) for swapped in sides]
    if rule.on_fail == "hold" and (rule.gross_tolerance, rule.gross_margin) != (None, None):
        gross = partial(make, tolerance=rule.gross_tolerance, margin=rule.gross_margin, on_fail="rollback")
        streams += [gross(swapped=swapped) for swapped in sides]
    return tuple(streams)


def _better(rule: SignalRule, config: JudgeConfig) -> Stream:
    """Evidence that the canary has fewer bad events than stable, with no tolerance.

    For the kernel `bounded` each event is a request about which exactly one version was wrong, so one half means equal.
    """
    if rule.kernel == "bounded":
        return Stream(rule, config, margin=0.5)
    return Stream(rule, config, tolerance=1.0, swapped=True)


def _mean(streams: Sequence[Stream]) -> float:
    if len(streams) == 1:
        return streams[0].log_e
    return log_sum([stream.log_e for stream in streams]) - math.log(len(streams))
