"""Models dependence between requests: drift and bursts, as factors on the ratios of both versions.

They are drawn for every window, whatever the canary's weight, so a step does not start or end a burst.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_DRAWN = 1024  # windows drawn at once
_MOST_FAIL = 0.5  # ratio in a blip

Ratios = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Noise:
    """How requests depend on each other. By default they do not."""

    shared_icc: float = 0.0  # strength of bursts on both versions at once: correlation of two requests in a burst
    own_icc: float = 0.0  # the same for bursts on one version
    burst_s: float = 5.0  # length of a burst, at least a window
    blip_s: float = 0.0  # length of a blip, in which half of all events are bad; 0: no blips
    blip_every_s: float = 300.0  # time between two blips, on average
    are_blips_shared: bool = True  # whether blips hit both versions at once
    retries: float = 1.0  # mean size of a cluster of failures, at least 1; on both versions
    drift: float = 1.0  # both error ratios swing between 1/drift and drift times their value, at least 1
    drift_period_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class Levels:
    """Factors with mean 1 (of drift: geometric mean) on one kind of ratio; shape (windows,)."""

    stable: Ratios
    canary: Ratios


class NoiseFactors:
    """The factors of one release, window after window."""

    def __init__(self, noise: Noise, *, ratio: float, drifts: bool, window_s: float, rng: np.random.Generator) -> None:
        """
        Args:
            ratio: long-run ratio that bursts multiply, 0 to 1.
            drifts: whether the drift applies to it.
        """
        self._noise, self._ratio, self._window_s, self._rng = noise, ratio, window_s, rng
        self._drift = noise.drift if drifts else 1.0
        self._phase = rng.uniform(0, 2 * np.pi)
        self._stable = self._canary = np.empty(0)

    def levels(self, first: int, windows: int) -> Levels:
        """The factors of windows `first` to `first + windows`."""
        while len(self._stable) < first + windows:
            shared = self._drifting(len(self._stable)) * self._bursts(self._noise.shared_icc)
            of_stable = self._blips()
            of_canary = of_stable if self._noise.are_blips_shared else self._blips()
            self._stable = np.append(self._stable, shared * self._bursts(self._noise.own_icc) * of_stable)
            self._canary = np.append(self._canary, shared * self._bursts(self._noise.own_icc) * of_canary)
        span = slice(first, first + windows)
        return Levels(self._stable[span], self._canary[span])

    def _drifting(self, first: int) -> Ratios:
        at_s = np.arange(first, first + _DRAWN) * self._window_s
        swing = np.sin(2 * np.pi * at_s / self._noise.drift_period_s + self._phase)
        return np.asarray(self._drift**swing, dtype=np.float64)

    def _blips(self) -> Ratios:
        """1 outside blips; inside, a factor that raises the ratio to `_MOST_FAIL` for the blip's part of the window."""
        if not self._noise.blip_s or not self._ratio:
            return np.ones(_DRAWN)
        blips = self._rng.poisson(_DRAWN * self._window_s / self._noise.blip_every_s)
        starts_s = self._rng.uniform(0, _DRAWN * self._window_s, size=blips)[:, np.newaxis]
        edges_s = np.arange(_DRAWN + 1) * self._window_s
        overlap_s = np.minimum(edges_s[1:], starts_s + self._noise.blip_s) - np.maximum(edges_s[:-1], starts_s)
        share = np.minimum(1.0, np.maximum(0.0, overlap_s).sum(axis=0) / self._window_s)
        return np.asarray(1 + share * (_MOST_FAIL / self._ratio - 1), dtype=np.float64)

    def _bursts(self, icc: float) -> Ratios:
        """Beta-distributed ratios, each held for a burst, over their mean."""
        if not icc or not 0 < self._ratio < 1:
            return np.ones(_DRAWN)
        length = max(1, round(self._noise.burst_s / self._window_s))
        spread = (1 - icc) / icc
        ratios = self._rng.beta(self._ratio * spread, (1 - self._ratio) * spread, size=-(-_DRAWN // length))
        return np.repeat(ratios / self._ratio, length)[:_DRAWN]
