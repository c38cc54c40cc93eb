"""Computes the bets of many streams over a run of ticks at once, before any of them takes effect.

The e-value of a window depends on that window's counts alone, and the bets of a stream on no other stream. So all
windows of a run can be computed together, much faster than one by one and with bit-identical results. The definition
of a bet remains in `fail.observe_all`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rollout.judge.fail import LOST, MANY, Stream, bets_after
from rollout.judge.kernels import Comparisons
from rollout.judge.own_noise import INDEPENDENT, OwnNoise, of_comparison
from rollout.judge.types import Pair
from rollout.judge.windows import Floats, Windows


@dataclass(frozen=True, slots=True)
class Bettors:
    """The streams that bet on one signal. A tick without a window of the signal leaves them unchanged."""

    streams: Sequence[Stream]
    noise: OwnNoise = INDEPENDENT  # tempers the bets


class Run:
    """The bets of all streams of a judge over a run of ticks."""

    def __init__(self, bettors: Sequence[Bettors], windows: Windows) -> None:
        """
        Args:
            bettors: one for each signal of `windows`, in the same order.
            windows: the ticks of the run.
        """
        self._ticks = len(windows)
        streams = [(place, stream) for place, each in enumerate(bettors) for stream in each.streams]
        exact = [(place, stream) for place, stream in streams if stream.kernel == "exact"]
        are_many = len(exact) >= MANY
        tempering = _tempering([each.noise for each in bettors], windows)
        self._together = _Together(exact, windows, tempering) if are_many else None
        self._alone = [
            _Alone(stream, windows.counts[:, place], tempering[:, :, place])
            for place, stream in streams
            if not (are_many and stream.kernel == "exact")
        ]

    @property
    def are_whole(self) -> bool:
        """Whether `observe_all` would use arrays in the same ticks, so that results are bit-identical."""
        return self._together is None or self._together.are_whole

    def log_e(self, log_weights: Mapping[Stream, float]) -> Floats:
        """Log of the weighted sum of all streams' e-values after each tick, up to rounding; shape (ticks,)."""
        parts = [np.full(self._ticks, -np.inf)]
        parts += [log_weights[each.stream] + np.array(each.log_e) for each in self._alone]
        if self._together:
            weights = np.array([log_weights[stream] for stream in self._together.streams])
            parts += [*(self._together.log_e + weights).T]
        found: Floats = np.logaddexp.reduce(parts)
        return found

    def arrive(self, tick: int) -> None:
        """Let the bets up to this tick take effect. Ticks must be passed in rising order; earlier ones are included."""
        for alone in self._alone:
            alone.arrive(tick)
        if self._together:
            self._together.arrive(tick)


class _Alone:
    """The bets of one stream, computed as single numbers."""

    def __init__(self, stream: Stream, counts: NDArray[np.int64], tempering: Floats) -> None:
        """
        Args:
            counts: counts of its signal, see `Windows`; shape (ticks, 4).
            tempering: see `_tempering`; shape (2, ticks).
        """
        self.stream, self._spent = stream, 0
        self.log_e: list[float] = []  # after each tick
        self._after: list[tuple[int, int, list[float]]] = []  # after each tick: bets made, bad events, log of the bets
        made, bad, log_bets, log_e = 0, stream.bad, stream.log_bets, stream.log_e
        priors = stream.starts.ahead(len(counts))
        for window, phi, windows_per_burst in zip(counts.tolist(), *tempering.tolist(), strict=True):
            if arms := stream.arms(Pair(*window[:2]), Pair(*window[2:])):
                taken = (*priors[made], stream.log_cap / windows_per_burst, phi)
                log_bets, log_e = bets_after(log_bets, stream.log_e_of(*arms), taken)
                made, bad = made + 1, bad + arms[1].bad
            self.log_e.append(log_e)
            self._after.append((made, bad, log_bets))

    def arrive(self, tick: int) -> None:
        made, self.stream.bad, self.stream.log_bets = self._after[tick]
        self.stream.log_e = self.log_e[tick]
        self.stream.starts.skip(made - self._spent)
        self._spent = made


class _Together:
    """The bets of all streams with the kernel `exact`, as arrays over ticks, streams and odds ratios.

    A bet far below what is left for harm that begins later need not be precise. The error is lost in rounding, both in
    the evidence and, once the next start is added, in the bet itself.
    """

    def __init__(self, exact: Sequence[tuple[int, Stream]], windows: Windows, tempering: Floats) -> None:
        """
        Args:
            exact: the streams, each with the column of its signal in `windows`.
            tempering: see `_tempering`.
        """
        self.streams = [stream for _, stream in exact]
        of_signal = [place for place, _ in exact]
        arms = [(2, 3, 0, 1) if stream.swapped else (0, 1, 2, 3) for stream in self.streams]
        arms_of_streams = windows.counts.astype(np.float64)[:, np.array(of_signal)[:, np.newaxis], arms]
        other_bad, other, tested_bad, tested = np.moveaxis(arms_of_streams, 2, 0)
        can_bet = (other > 0) & (tested > 0)
        self._made = can_bet.cumsum(axis=0)  # number of bets up to each tick
        self.are_whole = bool(np.isin(can_bet.sum(axis=1), range(1, MANY), invert=True).all())
        self._bad = np.where(can_bet, tested_bad, 0.0).cumsum(axis=0) + [stream.bad for stream in self.streams]
        starts, left = self._priors(can_bet)
        phi, windows_per_burst = tempering[:, :, of_signal, np.newaxis]
        log_caps = self.streams[0].log_cap / windows_per_burst
        tolerances = np.broadcast_to([stream.tolerance for stream in self.streams], tested.shape)
        compared = Comparisons(
            other_bad, other, tested_bad, tested, tolerances, odds_ratios=self.streams[0].odds_ratios
        )
        # An upper bound on the bets before each tick, as if every window had its largest possible e-value. For the
        # first tick it is exact.
        before = self._before(starts, np.minimum(log_caps, compared.most / phi))
        lost = np.where(can_bet, left, 0.0)[:, :, np.newaxis] - LOST
        is_wanted = compared.most >= (lost - before) * phi
        change = np.minimum(log_caps, compared.log_e(is_wanted) / phi)
        if len(windows) > 1:
            before = self._before(starts, change)
        self._bets = before + change
        self.log_e = self._log_e(left)
        self._spent = [0] * len(self.streams)

    def _priors(self, can_bet: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Log priors of harm that begins in each window, -inf where there is no bet, and of all later harm."""
        of_streams = [stream.starts.ahead(len(can_bet)) for stream in self.streams]
        alike = {id(priors): priors for priors in of_streams}  # nearly all streams have the same past
        rows = {each: row for row, each in enumerate(alike)}
        row = [rows[id(priors)] for priors in of_streams]
        priors = np.array([*alike.values()])[row, self._made - 1]
        return np.where(can_bet, priors[:, :, 0], -np.inf), priors[:, :, 1]

    def _before(self, starts: Floats, change: Floats) -> Floats:
        """Log of the bets at each tick, including harm that begins in it, before its windows change them."""
        before = np.empty_like(change)
        bets = np.array([stream.log_bets for stream in self.streams])
        for tick, log_starts in enumerate(starts[:, :, np.newaxis]):
            np.logaddexp(bets, log_starts, out=before[tick])
            bets = before[tick] + change[tick]
        return before

    def _log_e(self, left: Floats) -> Floats:
        """Log e-value of each stream after each tick."""
        first = np.array([stream.log_e for stream in self.streams])
        with np.errstate(invalid="ignore"):  # where a stream has never bet
            largest = self._bets.max(axis=2, keepdims=True)
            mean = largest + np.log(np.exp(self._bets - largest).mean(axis=2, keepdims=True))
            return np.where(self._made > 0, np.logaddexp(mean[:, :, 0], left), first)

    def arrive(self, tick: int) -> None:
        after = zip(*(each[tick].tolist() for each in (self._bets, self.log_e, self._bad, self._made)), strict=True)
        for stream, spent, (log_bets, log_e, bad, made) in zip(self.streams, self._spent, after, strict=True):
            stream.log_bets, stream.log_e, stream.bad = log_bets, log_e, int(bad)
            stream.starts.skip(made - spent)
        self._spent = self._made[tick].tolist()


def _tempering(noise: Sequence[OwnNoise], windows: Windows) -> Floats:
    """`OwnNoise.tempering` of each window, with its signal's noise; shape (2, ticks, signals)."""
    own = windows.counts[:, :, 3]
    both = windows.counts[:, :, 1] + own
    clusters, blips, burst_s = np.array([(each.clusters, each.blips, each.burst_s) for each in noise]).T
    phi = of_comparison(clusters, blips, own / np.maximum(1.0, both))
    windows_per_burst = np.divide(burst_s, windows.lengths_s, out=np.ones_like(phi), where=windows.lengths_s > 0)
    return np.array((phi, np.maximum(1.0, windows_per_burst)))
