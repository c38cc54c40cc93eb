"""What a model was tested on, read from the files that travel with it: `schema.json` and `reference.jsonl`.

Reads plain JSON, never a model's code. The format stands in docs/drift.md.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from monitoring.drift.column import Column
from monitoring.drift.errors import NoReference
from monitoring.drift.sample import answer_columns, feature_columns
from monitoring.drift.truth import Answered

REFERENCE_FILE = "reference.jsonl"
SCHEMA_FILE = "schema.json"


class _File(BaseModel):
    """What is read here of a file; it may hold more."""

    model_config = ConfigDict(frozen=True)


class _Feature(_File):
    name: str
    logged: str = "plain"


class _Schema(_File):
    features: tuple[_Feature, ...]


class _Row(_File):
    features: tuple[float, ...]
    prediction: dict[str, str | float | None]
    truth: str | float


@dataclass(frozen=True, slots=True)
class Reference:
    """The rows that a model was tested on, with its answers and the truth."""

    columns: dict[str, Column]  # named like those of a sample of the prediction log
    answers: Answered  # the same answers beside the truth

    def __len__(self) -> int:
        return len(self.answers.truth)


def read_reference(folder: Path) -> Reference:
    """Read the reference of the model in `folder`. Raises NoReference."""
    try:
        schema = _Schema.model_validate_json((folder / SCHEMA_FILE).read_bytes())
        lines = (folder / REFERENCE_FILE).read_bytes().splitlines()
        rows = [_Row.model_validate_json(line) for line in lines]
        names = [feature.name for feature in schema.features if feature.logged == "plain"]
        features = feature_columns([row.features for row in rows], names)
    except (OSError, ValueError) as error:
        raise NoReference(
            "the model carries nothing to compare with",
            saw=f"{folder / REFERENCE_FILE}: {error}",
            do="train it again so that it writes its reference (service/reference.py), and release that",
        ) from error
    answers = answer_columns([row.prediction for row in rows])
    request = np.arange(len(rows))  # each row by itself
    return Reference(
        columns={name: Column(values, request) for name, values in (answers | features).items()},
        answers=Answered.of([row.prediction["label"] for row in rows], [row.truth for row in rows], request),
    )
