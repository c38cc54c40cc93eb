"""Which engine to choose, given the measurements of each."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.engines import Engine

# An engine that changes the network more replaces another only if it is faster by this factor.
MIN_GAIN = 1.1


@dataclass(frozen=True, slots=True)
class Measurement:
    """The speed and accuracy of one model on one engine."""

    engine: Engine
    ms: Mapping[int, float]  # time of one call, by the number of rows in the batch
    accuracy: float  # on the held-out samples, 0-1
    golden_changed: int = 0  # golden requests that get a different answer

    def speedup(self, eager: "Measurement") -> float:
        """The speed relative to eager: the geometric mean over the batch sizes."""
        return math.exp(sum(math.log(eager.ms[rows] / ms) for rows, ms in self.ms.items()) / len(self.ms))


@dataclass(frozen=True, slots=True)
class Failure:
    """An engine that cannot run this model."""

    engine: Engine
    reason: str


Trial = Measurement | Failure


def refusal(trial: Trial, eager: Measurement, tolerance: float) -> str | None:
    """The reason why an engine may not serve this model; None: it may.

    Args:
        tolerance: the most accuracy that may be lost against eager, 0-1.
    """
    if isinstance(trial, Failure):
        return f"does not run: {trial.reason}"
    if trial.golden_changed:
        return f"answers {trial.golden_changed} golden requests differently"
    lost = eager.accuracy - trial.accuracy
    if lost > tolerance + 1e-9:  # a rounding error is not a loss
        return f"loses {100 * lost:.2f} points of accuracy, more than {100 * tolerance:g}"
    return None


def choose(trials: Sequence[Trial], eager: Measurement, tolerance: float) -> Measurement:
    """The fastest engine that may serve; eager if no other is enough faster."""
    best = eager
    for trial in trials:
        if isinstance(trial, Failure) or refusal(trial, eager, tolerance) is not None:
            continue
        if trial.speedup(eager) >= MIN_GAIN * best.speedup(eager):
            best = trial
    return best
