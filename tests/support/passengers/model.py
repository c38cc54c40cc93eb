"""A small model of a table with categories and missing values: did a passenger of the Titanic survive?"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

from service.contract import Feature, Model

WEIGHTS_FILE = "weights.safetensors"
# The columns of the table. Some ages, one fare and two ports are unknown.
FEATURES = (
    Feature(name="pclass", minimum=1, maximum=3),
    Feature(name="sex", categories=("female", "male")),
    Feature(name="age", minimum=0, maximum=120, may_be_missing=True),
    Feature(name="fare", minimum=0, maximum=1000, may_be_missing=True),
    Feature(name="embarked", categories=("C", "Q", "S"), may_be_missing=True),
)
MORE_FEATURES = (Feature(name="siblings", minimum=0, maximum=20), Feature(name="parents", minimum=0, maximum=20))
DEFAULTS = {"siblings": 0.0, "parents": 0.0}  # for callers that do not know these two yet
INPUTS = 8  # of a row of `FEATURES`; each further feature adds one


def inputs(rows: NDArray[np.float32]) -> torch.Tensor:
    """The network's input for rows in the order of `FEATURES`, then `MORE_FEATURES`; shape (rows, inputs)."""
    pclass, sex, age, fare, port, *more = torch.from_numpy(rows).unbind(dim=1)
    is_missing = age.isnan()
    return torch.stack(
        [
            pclass,
            sex,
            age.nan_to_num(30.0) / 50,
            is_missing.float(),
            fare.nan_to_num(14.0).log1p(),
            *((port == place).float() for place in range(3)),  # a missing port is none of them
            *more,
        ],
        dim=1,
    )


class Passengers(Model):
    """Logistic regression."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.network = nn.Linear(INPUTS + len(self.schema.features) - len(FEATURES), 2)
        self.network.load_state_dict(load_file(folder / WEIGHTS_FILE))

    def preprocess(self, rows: NDArray[np.float32]) -> torch.Tensor:
        return inputs(rows)

    def predict(self, batch: torch.Tensor) -> torch.Tensor:
        return self.network(batch).softmax(dim=1)
