"""Remarks on a valid model: counts that can hardly differ between two versions, so that a release shows little."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from contract.answer_types import Labels
from contract.model_files import REFERENCE_FILE, SCHEMA_FILE, Reference, Schema

MOST = 0.5  # with this share of the reference in one bin, or more, a shift of the answers may go unseen


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that the model's author may want to change. The model can be served as it is."""

    what: str
    saw: str
    do: str
    signal: str  # the plan's signal that the remark is about


def remarks(schema: Schema, reference: Sequence[Reference]) -> Iterator[Remark]:
    """Remarks on signals that show little or nothing about this model, judged by the answers in its reference."""
    answer, given = schema.answer, [row.prediction for row in reference]
    if not given:
        return
    if len(answer.classes) == 1:
        yield Remark(
            "every answer counts as the same class, so `class` shows nothing",
            f"one class: {answer.classes[0]}",
            f"name every label in {SCHEMA_FILE}, or leave the signal out of the plan: `class: null`",
            "class",
        )
    if all(prediction.confidence is None for prediction in given):
        yield Remark(
            "no answer has a confidence, so `low_confidence` shows nothing",
            f"none in {REFERENCE_FILE}",
            "leave the signal out of the plan: `low_confidence: null`",
            "low_confidence",
        )
    if isinstance(answer, Labels):
        return
    (bin_, rows), *_ = Counter(answer.class_of(prediction.label) for prediction in given).most_common(1)
    if rows > MOST * len(given):
        yield Remark(
            "most answers count in one bin, so `class` hardly shows a shift of the answers",
            f"{rows} of {len(given)} rows of {REFERENCE_FILE} are in the bin `{bin_}`",
            f"choose `edges` in {SCHEMA_FILE} between the answers: `Number.binned(answers, tolerance=...)`",
            "class",
        )
    numbers = [float(prediction.label) for prediction in given]
    if len(given) > 1 and max(numbers) - min(numbers) <= answer.tolerance:
        for signal in ("wrong_label", "disagreement"):
            yield Remark(
                f"any two answers are the same within the tolerance, so `{signal}` shows nothing",
                f"answers from {min(numbers):g} to {max(numbers):g}, tolerance {answer.tolerance:g}",
                f"choose a smaller `tolerance` in {SCHEMA_FILE}",
                signal,
            )
