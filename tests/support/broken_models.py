"""Models with mistakes that users make when they write their first one."""

import os

import torch

from examples.diabetes.model import Diabetes


class Logits(Diabetes):
    """Has no softmax."""

    def predict(self, batch: torch.Tensor) -> torch.Tensor:
        return torch.stack([batch[:, 0], -batch[:, 0]], dim=1)


class Flat(Diabetes):
    """Returns one dimension too few."""

    def predict(self, batch: torch.Tensor) -> torch.Tensor:
        return super().predict(batch)[:, 0]


class Restless(Diabetes):
    """Normalises by the rest of the batch, as a network in training mode does."""

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


class NoModel:
    """Derives from nothing."""
