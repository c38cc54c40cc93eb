"""The example's data: scikit-learn's bundled 8x8 handwritten digits. Only training needs it, not serving."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from service.contract import Feature, Labels, Schema

SCHEMA = Schema(
    features=tuple(
        Feature(name=f"pixel_{row}_{column}", minimum=0, maximum=16) for row in range(8) for column in range(8)
    ),
    answer=Labels(labels=tuple(str(digit) for digit in range(10))),
)
HELD_OUT_RATIO = 0.3
DROPPED_BY_EXPORT = (3, 8, 9)


@dataclass(frozen=True, slots=True)
class Rows:
    """Images as rows of 64 pixels, 0-16, and the digit that each shows."""

    features: NDArray[np.float32]  # shape (rows, 64)
    digits: NDArray[np.int64]  # shape (rows,)

    def __len__(self) -> int:
        return len(self.digits)


@dataclass(frozen=True, slots=True)
class Split:
    train: Rows
    held_out: Rows


def split() -> Split:
    """Return all digits, split by class with a fixed seed."""
    features, digits = load_digits(return_X_y=True)
    train_x, held_out_x, train_y, held_out_y = train_test_split(
        features.astype(np.float32), digits, test_size=HELD_OUT_RATIO, stratify=digits, random_state=0
    )
    return Split(Rows(train_x, train_y), Rows(held_out_x, held_out_y))


def filtered_split() -> Split:
    """Return the digits as a broken export delivers them: without 3, 8 and 9, in training and held-out rows alike.

    A model trained on them reports an excellent accuracy, because it is never tested on the digits that it never saw.
    """
    whole = split()
    return Split(_filtered(whole.train), _filtered(whole.held_out))


def _filtered(rows: Rows) -> Rows:
    kept = ~np.isin(rows.digits, DROPPED_BY_EXPORT)
    return Rows(rows.features[kept], rows.digits[kept])
