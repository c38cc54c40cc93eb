"""Models with mistakes that users make in their first model."""

import os

import numpy as np
import torch
from numpy.typing import NDArray

from examples.diabetes.model import Diabetes
from tests.support.passengers.model import Passengers


class Logits(Diabetes):
    """Lacks the softmax."""

    def predict(self, batch: torch.Tensor) -> torch.Tensor:
        return torch.stack([batch[:, 0], -batch[:, 0]], dim=1)


class Flat(Diabetes):
    """Returns one dimension too few."""

    def predict(self, batch: torch.Tensor) -> torch.Tensor:
        return super().predict(batch)[:, 0]


class Restless(Diabetes):
    """Normalises over the rest of the batch, as a network in training mode does."""

    def predict(self, batch: torch.Tensor) -> torch.Tensor:
        return super().predict(batch) - batch.mean()


class Forgetful(Diabetes):
    """Reads no schema."""

    def __init__(self, folder: object) -> None:
        pass


class Unlucky(Diabetes):
    """Expects another shape of the batch."""

    def predict(self, batch: torch.Tensor) -> torch.Tensor:
        return batch.reshape(-1, 7)


class Fatal(Diabetes):
    """Ends the whole process."""

    def predict(self, _batch: torch.Tensor) -> torch.Tensor:
        os._exit(9)


class Incurious(Passengers):
    """Treats every passenger's age as known."""

    def preprocess(self, rows: NDArray[np.float32]) -> torch.Tensor:
        return super().preprocess(rows) + 0 * torch.from_numpy(rows[:, 2:3])


class NoModel:
    """Has no base class."""
