"""The rows that a load test sends, with their true labels, in the format of a model's own samples file.

Every row is a list of finite numbers, texts and nulls. Their meaning does not matter here.
"""

from dataclasses import dataclass
from pathlib import Path

import orjson
from pydantic import ValidationError

from contract import model_files
from contract.answer_types import Label
from contract.complaints import complaints
from loadtest.errors import SamplesError

MOST_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Sample:
    """One row and its true label."""

    row: bytes  # the features as a JSON array, encoded only once because many requests send it
    label: Label
    tolerance: float = 0.0  # an answer that is a number is right if it is at most this far from `label`

    def is_right(self, answered: Label) -> bool:
        if isinstance(self.label, str):
            return str(answered) == self.label
        return not isinstance(answered, str) and abs(answered - self.label) <= self.tolerance


def load_samples(path: Path) -> tuple[Sample, ...]:
    """Read one sample from each line of `path`: `{"features": [0.0, ...], "label": "3"}`.

    A label that is a number may have a `tolerance`: an answer at most this far from the label is right.

    Raises: SamplesError if the file is missing or empty, or has a line that is not such a sample.
    """
    samples: list[Sample] = []
    width: int | None = None
    try:
        with path.open("rb") as lines:
            for number, text in enumerate(lines, start=1):
                if number > MOST_ROWS:
                    raise _error("the samples file is too long", f"{path} has over {MOST_ROWS:,} lines")
                try:
                    line = model_files.Sample.model_validate_json(text)
                except ValidationError as error:
                    first = complaints(error, model_files.Sample, whole="the line")[0]
                    saw = f"{path} line {number}: {first}"
                    raise _error("a line of the samples file is not a sample", saw) from error
                width = width or len(line.features)
                if len(line.features) != width:
                    saw = f"{path} line {number} has {len(line.features)} features, the first line has {width}"
                    raise _error("the samples differ in length", saw)
                samples.append(Sample(orjson.dumps(line.features), line.label, line.tolerance))
    except OSError as error:
        raise _error("the samples file cannot be read", f"{path.absolute()}: {error.strerror}") from error
    if not samples:
        raise _error("the samples file is empty", f"{path} has no line")
    return tuple(samples)


def _error(what: str, saw: str) -> SamplesError:
    return SamplesError(
        what,
        saw=saw,
        do='give --samples or KANARIA_SAMPLES a file of {"features": [values], "label": text or number} lines',
    )
