"""Writes what a model's traffic is compared with later: rows as they were before the release, and its answers to them.

Training calls it. The rows must be held out: of rows that it learnt, a model is surer than of any traffic.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.contract import REFERENCE_FILE, Reference, Schema, write_lines
from service.kinds import Label, Prediction

MAX_ROWS = 5000  # more would sharpen no finding, and travels with every Bento


def write_reference(
    folder: Path, rows: NDArray[np.float32], predictions: Sequence[Prediction], truths: Sequence[Label]
) -> None:
    """Write `reference.jsonl` beside the `schema.json` in `folder`.

    Columns that the schema keeps out of the prediction log are left out here too. Of more than `MAX_ROWS` rows
    a random sample is kept; the same rows give the same sample.

    Args:
        rows: held-out rows, shape (rows, features).
        predictions: the model's answer to each.
        truths: what the answer should have been.

    Raises: ValueError when the three differ in length.
    """
    if not len(rows) == len(predictions) == len(truths):
        raise ValueError(f"{len(rows)} rows, {len(predictions)} predictions and {len(truths)} truths do not match")
    plain = [i for i, feature in enumerate(Schema.read(folder).features) if feature.logged == "plain"]
    count = min(len(rows), MAX_ROWS)
    kept = sorted(np.random.default_rng(0).choice(len(rows), count, replace=False).tolist())
    write_lines(
        folder / REFERENCE_FILE,
        (Reference(features=tuple(rows[i, plain].tolist()), prediction=predictions[i], truth=truths[i]) for i in kept),
    )
