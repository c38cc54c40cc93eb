"""Labels of a release in which answers count only at an age: how many count, wait, came too late or are missing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rollout.format import count, span
from rollout.judge import Pair, Window
from rollout.signals.options import LABELS_CAME, WrongLabel
from rollout.spec import RolloutSpec


@dataclass(frozen=True, slots=True)
class Labels:
    """The canary's labels so far. The counts are of slightly different moments, so they differ by a few."""

    after_s: float  # the age at which an answer counts, seconds
    of_age: int  # answers that are at least that old
    counted: int  # labels of these answers
    waiting: int  # labels of younger answers
    late: int  # labels that arrived after their answer had been counted without one

    @property
    def sentence(self) -> str:
        """The counts as one sentence."""
        without = max(0, self.of_age - self.counted)
        late = f"; {_labels(self.late)} came too late to count" if self.late else ""
        return (
            f"Labels count once their answer is {span(self.after_s)} old: {count(self.counted)} of the canary's do, "
            f"{_labels(self.waiting)} of younger answers wait, {count(without)} answers of that age have none{late}."
        )


def labels_of(spec: RolloutSpec, ticks: Iterable[Sequence[Window]]) -> Labels | None:
    """The labels of a release; None where each label counts as it arrives.

    Args:
        spec: the release's plan.
        ticks: the windows of each tick, oldest first.
    """
    options = spec.signals.get(WrongLabel)
    if options is None or not options.after:
        return None
    counted = came = Pair(0, 0)
    answers: list[tuple[float, int]] = []  # the end of each window, Unix seconds, and the answers in it
    for windows in ticks:
        counted = sum((window.canary for window in windows if window.signal == "wrong_label"), counted)
        came = sum((window.canary for window in windows if window.signal == LABELS_CAME), came)
        answers += [
            (window.end_s, window.canary.total - window.canary.bad) for window in windows if window.signal == "errors"
        ]
    of_age_s = answers[-1][0] - options.after if answers else 0.0
    return Labels(
        after_s=options.after,
        of_age=sum(number for end_s, number in answers if end_s <= of_age_s),
        counted=counted.total,
        waiting=max(0, came.total - came.bad - counted.total),
        late=came.bad,
    )


def _labels(number: int) -> str:
    return f"{count(number)} {'label' if number == 1 else 'labels'}"
