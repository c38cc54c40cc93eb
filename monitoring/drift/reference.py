"""Reads a model's reference data from two of its files: `schema.json` and `reference.jsonl`."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from contract import model_files
from contract.model_files import REFERENCE_FILE, Schema
from contract.records import read_lines
from monitoring.drift.column import Column
from monitoring.drift.errors import NoReference
from monitoring.drift.sample import answer_columns, feature_columns
from monitoring.drift.truth import Answered


@dataclass(frozen=True, slots=True)
class Reference:
    """The rows on which a model was tested, with its answers and the truth."""

    columns: dict[str, Column]  # with the names that a sample of the prediction log uses
    answers: Answered  # the same answers with the truth


def read_reference(folder: Path) -> Reference:
    """Read the reference of the model in `folder`. Raises NoReference."""
    try:
        schema = Schema.read(folder, unknown="ignore")
        rows = read_lines(folder / REFERENCE_FILE, model_files.Reference, unknown="ignore")
        plain = [schema.features[place] for place in schema.logged_as("plain")]
        words = [feature.name for feature in plain if feature.categories]
        features = feature_columns([row.features for row in rows], [one.name for one in plain], words=words)
    except (OSError, ValueError) as error:
        raise NoReference(
            "the model has no reference data to compare with",
            saw=f"{folder / REFERENCE_FILE}: {error}",
            do="train it again with `save_model`, which writes the reference, and release that version",
        ) from error
    answers = answer_columns([asdict(row.prediction) for row in rows])
    request = np.arange(len(rows))  # each row is a request of its own
    return Reference(
        columns={name: Column(values, request) for name, values in (answers | features).items()},
        answers=Answered.of([row.prediction.label for row in rows], [row.truth for row in rows], request),
    )
