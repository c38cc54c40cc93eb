"""Kayenta: Netflix' canary judge of Spinnaker, a Mann-Whitney U test on two series of points.

Written from `NetflixACAJudge.scala`, `MannWhitneyClassifier.scala`, `MannWhitney.scala`, `EffectSizes.scala` and
`WeightedSumScorer.scala` of github.com/spinnaker/kayenta, v2.46.0, and from spinnaker.io's "How canary judgment works"
and "Best practices for configuring canary" (3bc6188). One metric, critical, NaN removed: the scoring of groups of
metrics, the removal of outliers and the effect size `cles` are left out. It does not depend on other tools.

Kayenta finds the ends of its interval with Brent's method and a tolerance of 1e-4. With few errors these ends and the
estimate lie within this tolerance of 0, so this module uses the same method and tolerance, not a better one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import NormalDist, fmean
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from benchmarks.judge.tool import Outcome
from rollout.judge import Pair

_TOLERANCE = 0.25  # these two are fixed in NetflixACAJudge
_CONFIDENCE = 0.98
_ROOT_TOLERANCE = 1e-4  # absolute
_TIE_BREAKING = 1e-5  # relative size of the noise that is added to two constant series
_PASS, _MARGINAL = 95, 75  # initial scores, from the guide

Series = NDArray[np.float64]


class Label(Enum):
    """How one metric of the canary compares with the baseline's."""

    PASS = "Pass"  # noqa: S105 - a verdict, not a password
    HIGH = "High"
    LOW = "Low"
    NODATA = "Nodata"


@dataclass(frozen=True, slots=True)
class MetricConfig:
    """`analysisConfigurations.canary` of one metric. Defaults are Kayenta's."""

    direction: Literal["increase", "decrease", "either"] = "either"
    allowed_increase: float = 1.0  # ratio of the means that High needs at least
    allowed_decrease: float = 1.0  # ratio of the means that Low needs at most


@dataclass(frozen=True, slots=True)
class Shift:
    """How far the experiment lies above the control: 98 % confidence interval and Hodges-Lehmann estimate."""

    lower: float
    upper: float
    estimate: float


def classify(
    control: Sequence[float] | Series, experiment: Sequence[float] | Series, config: MetricConfig = MetricConfig()
) -> Label:
    """Compare the canary's points with the baseline's; NaN marks a point without data."""
    baseline, canary = _without_nan(control), _without_nan(experiment)
    if not len(baseline) or not len(canary):
        return Label.NODATA
    if np.array_equal(np.sort(baseline), np.sort(canary)) or len({*baseline, *canary}) == 1:
        return Label.PASS
    shift = mann_whitney(canary, baseline)
    band = _TOLERANCE * abs(shift.estimate)
    ratio = _ratio_of_means(canary, baseline)
    if config.direction != "decrease" and shift.lower > band and not ratio < config.allowed_increase:
        return Label.HIGH
    if config.direction != "increase" and shift.upper < -band and not ratio > config.allowed_decrease:
        return Label.LOW
    return Label.PASS


def score(label: Label) -> int:
    """The score of an analysis whose only metric is critical: without data it fails."""
    return 100 if label is Label.PASS else 0


def mann_whitney(x: Series, y: Series) -> Shift:
    """Invert the test: the shifts of `x` that it would not reject, and the one that fits best."""
    if len(set(x)) == 1 and len(set(y)) == 1:
        noise = np.random.default_rng(0)
        x, y = (constant + noise.normal(0, abs(constant[0]) * _TIE_BREAKING, len(constant)) for constant in (x, y))
    quantile = NormalDist().inv_cdf((1 - _CONFIDENCE) / 2)
    return Shift(lower=_bound(x, y, -quantile), upper=_bound(x, y, quantile), estimate=_crossing(x, y, 0.0))


def _bound(x: Series, y: Series, quantile: float) -> float:
    low, high = x.min() - y.max(), x.max() - y.min()
    if _statistic(low, quantile, x, y) <= 0:
        return float(low)
    if _statistic(high, quantile, x, y) >= 0:
        return float(high)
    return _crossing(x, y, quantile)


def _crossing(x: Series, y: Series, quantile: float) -> float:
    """A shift within the tolerance of where the statistic changes its sign."""
    low, high = x.min() - y.max(), x.max() - y.min()
    root: float = brentq(_statistic, low, high, args=(quantile, x, y), xtol=_ROOT_TOLERANCE)
    return root


def _statistic(shift: float, quantile: float, x: Series, y: Series) -> float:
    """Standardised U of `x - shift` against `y`, with corrections for continuity and ties, less `quantile`."""
    shifted = x - shift
    excess = np.sign(shifted[:, None] - y[None, :]).sum() / 2  # U less its mean
    _, ties = np.unique(np.concatenate([shifted, y]), return_counts=True)
    m, n = len(x), len(y)
    tied = (ties.astype(np.float64) ** 3 - ties).sum() / ((m + n) * (m + n - 1))
    deviation = math.sqrt(m * n / 12 * (m + n + 1 - tied))
    return float((excess - np.sign(excess) / 2) / deviation - quantile)


def _ratio_of_means(canary: Series, baseline: Series) -> float:
    """NaN if either mean is 0; no limit is compared with NaN."""
    above, below = fmean(canary), fmean(baseline)
    return above / below if above and below else math.nan


def _without_nan(points: Sequence[float] | Series) -> Series:
    series = np.asarray(points, dtype=np.float64)
    return series[~np.isnan(series)]


class KayentaStage:
    """Canary analysis stages, one for each weight: the canary beside a baseline of stable's code and of equal size."""

    def __init__(
        self,
        seed: int | tuple[int, ...],
        *,
        steps: tuple[int, ...],
        point_s: float,
        points_per_run: int,
        runs: int,
    ) -> None:
        """
        Args:
            seed: decides which of stable's requests the baseline gets.
            steps: weights, percent; after the last stage the canary takes all traffic.
            point_s: length of one point, seconds: an error ratio in percent.
            points_per_run: points between two analyses; each analysis takes in all points of the stage so far.
            runs: analyses in each stage.
        """
        self._rng = np.random.default_rng(seed)
        self._steps, self._point_s = steps, point_s
        self._points_per_run, self._points_per_stage = points_per_run, points_per_run * runs
        self._step = 0
        self._point_ends_s = point_s
        self._baseline_now = self._canary_now = Pair(0, 0)
        self._baseline: list[float] = []
        self._canary: list[float] = []

    @property
    def weight_percent(self) -> int:
        return self._steps[self._step]

    def observe(self, elapsed_s: float, stable: Pair, canary: Pair) -> Outcome | None:
        self._baseline_now += self._sample(stable)
        self._canary_now += canary
        if elapsed_s < self._point_ends_s:
            return None
        self._point_ends_s += self._point_s
        self._baseline.append(_error_percent(self._baseline_now))
        self._canary.append(_error_percent(self._canary_now))
        self._baseline_now = self._canary_now = Pair(0, 0)
        return self._judge() if len(self._canary) % self._points_per_run == 0 else None

    def _judge(self) -> Outcome | None:
        total = score(classify(self._baseline, self._canary, MetricConfig(direction="increase")))
        is_final = len(self._canary) == self._points_per_stage
        if total < _MARGINAL or (is_final and total < _PASS):
            return "rolled_back"
        if not is_final:
            return None
        if self._step == len(self._steps) - 1:
            return "promoted"
        self._step += 1
        self._baseline, self._canary = [], []
        return None

    def _sample(self, stable: Pair) -> Pair:
        """The part of stable's requests that a baseline of the canary's size answers."""
        share = self.weight_percent / (100 - self.weight_percent)
        requests = int(self._rng.binomial(stable.total, share))
        bad = int(self._rng.hypergeometric(stable.bad, stable.total - stable.bad, requests)) if requests else 0
        return Pair(bad, requests)


def _error_percent(pair: Pair) -> float:
    return 100 * pair.bad / pair.total if pair.total else math.nan
