"""Which engine to take, given what each did. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.engines import Engine

# What changes more must be worth it: an engine replaces a plainer one only when it is faster by this factor.
MIN_GAIN = 1.1


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one engine did with one model."""

    engine: Engine
    ms: Mapping[int, float]  # from rows to answers, by the number of rows in a batch
    accuracy: float  # on the held-out samples, 0-1
    golden_changed: int = 0  # golden requests that get another answer

    def speedup(self, eager: "Measurement") -> float:
        """How many times as fast as eager; the geometric mean over the batch sizes."""
        return math.exp(sum(math.log(eager.ms[rows] / ms) for rows, ms in self.ms.items()) / len(self.ms))


@dataclass(frozen=True, slots=True)
class Failure:
    """An engine that does not take this model."""

    engine: Engine
    reason: str


Trial = Measurement | Failure


def refusal(trial: Trial, eager: Measurement, tolerance: float) -> str | None:
    """Why an engine may not serve this model; None when it may.

    Args:
        tolerance: the most accuracy that may be lost against eager, 0-1.
    """
    if isinstance(trial, Failure):
        return f"does not run: {trial.reason}"
    if trial.golden_changed:
        return f"answers {trial.golden_changed} golden requests differently"
    lost = eager.accuracy - trial.accuracy
    if lost > tolerance + 1e-9:  # rounding of a difference of shares is no loss
        return f"loses {100 * lost:.2f} points of accuracy, more than {100 * tolerance:g}"
    return None


def choose(trials: Sequence[Trial], eager: Measurement, tolerance: float) -> Measurement:
    """The fastest engine that may serve; eager when none of the others is worth it."""
    best = eager
    for trial in trials:
        if isinstance(trial, Failure) or refusal(trial, eager, tolerance) is not None:
            continue
        if trial.speedup(eager) >= MIN_GAIN * best.speedup(eager):
            best = trial
    return best
