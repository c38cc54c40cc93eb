"""Random traffic for two versions: users' requests, and how stable and canary answer, window after window.

The caller passes the canary's share and gets the counts that a metric source would have read. Requests arrive as a
Poisson process and are split at random. Failures, slow answers and predictions are then drawn from the version's
ratios, which `noise` changes.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rollout.compare import copied
from rollout.judge import Pair, Window
from rollout.simulate.noise import Noise, NoiseFactors, Ratios

_CHUNK = 64  # windows drawn at once for one weight; after a change of the weight the rest is discarded
_START_S = 1_800_000_000.0  # an arbitrary Unix time

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one version answers, as long-run ratios from 0 to 1."""

    error_ratio: float = 0.0
    slow_ratios: tuple[tuple[int, float], ...] = ()  # (bound in ms, share slower); bounds rise, shares do not
    class_shares: tuple[float, ...] = ()  # of the predictions; they sum to 1
    low_confidence_ratio: float | None = None  # of the predictions; None: not measured
    wrong_label_ratio: float = 0.0  # of the labelled predictions
    rejected_ratio: float | None = None  # of the requests that did not fail; None: not counted
    own_ratios: tuple[tuple[str, float], ...] = ()  # (user's own signal, share of answers that are bad)

    def harm_over(self, other: "Behaviour") -> float:
        """Share of requests that this version answers worse than `other`: the largest of the differences."""
        slower = [mine - theirs for (_, mine), (_, theirs) in zip(self.slow_ratios, other.slow_ratios, strict=True)]
        moved = [abs(mine - theirs) for mine, theirs in zip(self.class_shares, other.class_shares, strict=True)]
        unsure = (self.low_confidence_ratio or 0.0) - (other.low_confidence_ratio or 0.0)
        wrong = self.wrong_label_ratio - other.wrong_label_ratio
        refused = (self.rejected_ratio or 0.0) - (other.rejected_ratio or 0.0)
        own = [mine - theirs for (_, mine), (_, theirs) in zip(self.own_ratios, other.own_ratios, strict=True)]
        return max(0.0, self.error_ratio - other.error_ratio, refused, unsure, wrong, sum(moved) / 2, *slower, *own)


@dataclass(frozen=True, slots=True)
class Scenario:
    """The traffic of one kind of release."""

    rps: float  # requests a second to both versions together
    stable: Behaviour
    canary: Behaviour  # from `harm_after_s` on; until then the canary behaves like stable
    harm_after_s: float = 0.0  # since the canary's first request
    noise: Noise = field(default_factory=Noise)
    window_s: float = 5.0
    label_share: float = 0.0  # share of the predictions whose true label arrives
    are_labels_paired: bool = False  # whether labels of copied requests tell which of the two versions was right
    is_canary_counted: bool = True  # False: it serves its share, but its counts never arrive

    @property
    def harm(self) -> float:
        """Share of the canary's requests that it answers worse than stable would."""
        return self.canary.harm_over(self.stable)


class Traffic:
    """The traffic of one simulated release. The same scenario, seed and weights give the same counts."""

    def __init__(self, scenario: Scenario, seed: int | tuple[int, ...]) -> None:
        """
        Args:
            seed: used only by this release, for example (seed of the study, number of the release).
        """
        self.scenario = scenario
        self.elapsed_s = 0.0  # since the canary's first request
        before, errors, slowness, requests = np.random.SeedSequence(seed).spawn(4)
        self._before = np.random.default_rng(before)
        self._rng = np.random.default_rng(requests)
        self._errors = self._factors(np.random.default_rng(errors), scenario.stable.error_ratio, drifts=True)
        self._slowness = self._factors(np.random.default_rng(slowness), _slow_ratio(scenario.stable), drifts=False)
        self._drawn: Iterator[tuple[Window, ...]] = iter(())
        self._drawn_for: tuple[float, bool, float] | None = None

    @property
    def now_s(self) -> float:
        """Unix seconds."""
        return _START_S + self.elapsed_s

    @property
    def is_harmful(self) -> bool:
        """Whether the canary's harm has begun."""
        return self.elapsed_s >= self.scenario.harm_after_s

    def harmed(self, weight: float, seconds: float) -> float:
        """How many users' requests the canary is expected to answer worse than stable would in the next `seconds`.

        Args:
            weight: canary share of the requests, 0 to 1; copies do no harm.
        """
        harmful_s = self.elapsed_s + seconds - max(self.elapsed_s, self.scenario.harm_after_s)
        return self.scenario.rps * weight * self.scenario.harm * max(0.0, harmful_s)

    def window(
        self, weight: float, *, mirror: bool = False, seconds: float | None = None, compare: float = 0.0
    ) -> tuple[Window, ...]:
        """The next window: its new events, one `Window` for each signal that has any.

        Args:
            weight: canary share of the requests, 0 to 1.
            mirror: stable answers every request, and the canary gets a copy of each.
            seconds: its length; None: the scenario's.
            compare: share of each version's requests that the other version also gets; see `rollout.compare`.
        """
        if seconds is not None and seconds != self.scenario.window_s:
            (alone,) = self._draw(weight, mirror=mirror, seconds=seconds, compare=compare)
            self.skip(seconds)
            return alone
        drawn_for = weight, mirror, compare
        drawn = next(self._drawn, None) if self._drawn_for == drawn_for else None
        if drawn is None:
            self._drawn, self._drawn_for = self._draw(weight, mirror=mirror, compare=compare), drawn_for
            drawn = next(self._drawn)
        self.elapsed_s += self.scenario.window_s
        return drawn

    def skip(self, seconds: float) -> None:
        """Let time pass without counting anything."""
        self.elapsed_s += seconds
        self._drawn_for = None

    def history(self, seconds: float) -> dict[str, list[Window]]:
        """Stable alone, before the release: the windows of each signal, oldest first."""
        scenario, windows = self.scenario, round(seconds / self.scenario.window_s)
        errors = self._factors(self._before, scenario.stable.error_ratio, drifts=True).levels(0, windows)
        slowness = self._factors(self._before, _slow_ratio(scenario.stable), drifts=False).levels(0, windows)
        requests = scenario.rps * scenario.window_s
        stable = self._answers(self._before, scenario.stable, requests, errors.stable, slowness.stable)
        silent = {signal: (0 * bad, 0 * total) for signal, (bad, total) in stable.items()}
        by_signal: dict[str, list[Window]] = {}
        for tick in self._ticks(stable, silent, -windows * scenario.window_s, scenario.window_s):
            for window in tick:
                by_signal.setdefault(window.signal, []).append(window)
        return by_signal

    def _factors(self, rng: np.random.Generator, ratio: float, *, drifts: bool) -> NoiseFactors:
        return NoiseFactors(self.scenario.noise, ratio=ratio, drifts=drifts, window_s=self.scenario.window_s, rng=rng)

    def _draw(
        self, weight: float, *, mirror: bool, seconds: float | None = None, compare: float = 0.0
    ) -> Iterator[tuple[Window, ...]]:
        """The next windows until the canary's behaviour changes, or one window of `seconds`."""
        scenario = self.scenario
        window_s = scenario.window_s if seconds is None else seconds
        healthy_s = scenario.harm_after_s - self.elapsed_s
        windows = _CHUNK if healthy_s <= 0 else min(_CHUNK, math.ceil(healthy_s / window_s))
        windows = windows if seconds is None else 1
        errors, slowness = (
            factors.levels(round(self.elapsed_s / scenario.window_s), windows)
            for factors in (self._errors, self._slowness)
        )
        to_stable, to_canary = (
            (scenario.rps, scenario.rps) if mirror else (scenario.rps * (1 - weight), scenario.rps * weight)
        )
        behaviour = scenario.canary if self.is_harmful else scenario.stable
        stable = self._answers(self._rng, scenario.stable, to_stable * window_s, errors.stable, slowness.stable)
        canary = self._answers(self._rng, behaviour, to_canary * window_s, errors.canary, slowness.canary)
        if scenario.are_labels_paired and (mirror or compare):
            labelled = stable["wrong_label"][1] if mirror else self._labelled_copies(weight, compare, window_s, windows)
            stable["paired_label"], canary["paired_label"] = self._pairs(behaviour, labelled)
        if not scenario.is_canary_counted:
            canary = {signal: (0 * bad, 0 * total) for signal, (bad, total) in canary.items()}
        return self._ticks(stable, canary, self.elapsed_s, window_s)

    def _answers(
        self, rng: np.random.Generator, version: Behaviour, mean: float, errors: Ratios, slowness: Ratios
    ) -> dict[str, tuple[Counts, Counts]]:
        """Bad and all events of each signal of one version; each of shape (windows,).

        Args:
            mean: requests in a window, on average.
        """
        retries, label_share = self.scenario.noise.retries, self.scenario.label_share
        requests = rng.poisson(mean, len(errors))
        clusters = rng.binomial(requests, np.minimum(1.0, version.error_ratio * errors / retries))
        repeated = _repetitions(rng, clusters, retries)
        total, failed = requests + repeated, clusters + repeated
        counts = {"errors": (failed, total)}
        slow, share = total, 1 / slowness
        for bound, ratio in version.slow_ratios:
            slow = rng.binomial(slow, np.minimum(1.0, ratio / share))
            counts[f"latency:{bound}"] = (slow, total)
            share = np.full_like(slowness, ratio)
        answered = total - failed
        if version.rejected_ratio is not None:
            rejected = rng.binomial(answered, version.rejected_ratio)
            counts["rejected"] = (rejected, total)
            answered = answered - rejected
        if version.class_shares:
            for label, rows in enumerate(rng.multinomial(answered, version.class_shares).T):
                counts[f"class:{label}"] = (rows, answered)
        if version.low_confidence_ratio is not None:
            counts["low_confidence"] = (rng.binomial(answered, version.low_confidence_ratio), answered)
        if label_share:
            labelled = rng.binomial(answered, label_share)
            counts["wrong_label"] = (rng.binomial(labelled, version.wrong_label_ratio), labelled)
        for signal, ratio in version.own_ratios:  # as noisy as errors, because it is unknown what they count
            clusters = rng.binomial(answered, np.minimum(1.0, ratio * errors / retries))
            counts[signal] = (np.minimum(answered, clusters + _repetitions(rng, clusters, retries)), answered)
        return counts

    def _labelled_copies(self, weight: float, compare: float, window_s: float, windows: int) -> Counts:
        """Requests of a step that both versions answered and whose label arrives; shape (windows,)."""
        shares = copied(compare, weight)
        copies = (1 - weight) * shares.of_stable + weight * shares.of_canary
        return self._rng.poisson(self.scenario.rps * window_s * copies * self.scenario.label_share, windows)

    def _pairs(self, canary: Behaviour, labelled: Counts) -> tuple[tuple[Counts, Counts], tuple[Counts, Counts]]:
        """The labelled copies for which only one version was right: those that the canary got wrong, and all.

        The two versions make mistakes independently.
        """
        mine, theirs = canary.wrong_label_ratio, self.scenario.stable.wrong_label_ratio
        lost, won = mine * (1 - theirs), theirs * (1 - mine)
        drawn = self._rng.multinomial(labelled, (lost, won, 1 - lost - won))
        nothing = 0 * labelled
        return (nothing, nothing), (drawn[:, 0], drawn[:, 0] + drawn[:, 1])

    def _ticks(
        self,
        stable: Mapping[str, tuple[Counts, Counts]],
        canary: Mapping[str, tuple[Counts, Counts]],
        first_s: float,
        window_s: float,
    ) -> Iterator[tuple[Window, ...]]:
        """The windows that end together, one tick after another."""
        columns = {signal: [column.tolist() for column in (*stable[signal], *canary[signal])] for signal in stable}
        windows = len(stable["errors"][0])
        for tick in range(windows):
            end_s = _START_S + first_s + (tick + 1) * window_s
            yield tuple(
                Window(end_s, window_s, signal, Pair(bad_s[tick], total_s[tick]), Pair(bad_c[tick], total_c[tick]))
                for signal, (bad_s, total_s, bad_c, total_c) in columns.items()
                if total_s[tick] or total_c[tick]
            )


def _slow_ratio(version: Behaviour) -> float:
    return version.slow_ratios[0][1] if version.slow_ratios else 0.0


def _repetitions(rng: np.random.Generator, clusters: Counts, mean_size: float) -> Counts:
    """How often the failures of each window were repeated; clusters have geometric sizes."""
    if mean_size == 1:
        return 0 * clusters
    return np.where(clusters > 0, rng.negative_binomial(np.maximum(clusters, 1), 1 / mean_size), 0)
