"""Writes `reference.jsonl`: held-out rows with a model's own answers, against which drift is measured.

It is not in `model_files`, because it needs numpy, and short commands should not wait for that import.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contract.answer_types import Label, Prediction
from contract.model_files import REFERENCE_FILE, Reference, Schema
from contract.records import write_lines

MAX_REFERENCE_ROWS = 5000  # more would not improve the drift reports, and every Bento carries them


def write_reference(
    folder: Path, rows: NDArray[np.float32], predictions: Sequence[Prediction], truths: Sequence[Label]
) -> None:
    """Write `reference.jsonl` beside the `schema.json` in `folder`: the data with which traffic is later compared.

    The rows must be held out: a model is more confident on its training rows than on traffic. Columns that the schema
    does not log `plain` are left out. If there are more than `MAX_REFERENCE_ROWS` rows, a random sample is kept; the
    same rows give the same sample.

    Args:
        rows: held-out rows as the model gets them (`Schema.numbers`), shape (rows, features).
        predictions: the model's answer to each.
        truths: what the answer should have been.

    Raises: ValueError when the three differ in length.
    """
    if not len(rows) == len(predictions) == len(truths):
        raise ValueError(f"{len(rows)} rows, {len(predictions)} predictions and {len(truths)} truths do not match")
    schema = Schema.read(folder)
    plain = schema.logged_as("plain")
    count = min(len(rows), MAX_REFERENCE_ROWS)
    kept = sorted(np.random.default_rng(0).choice(len(rows), count, replace=False).tolist())
    values = [schema.values(rows[at].tolist()) for at in kept]
    write_lines(
        folder / REFERENCE_FILE,
        (
            Reference(features=tuple(row[i] for i in plain), prediction=predictions[at], truth=truths[at])
            for row, at in zip(values, kept, strict=True)
        ),
    )
