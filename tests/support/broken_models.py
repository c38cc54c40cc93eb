"""Models with the slips that people make when they write their first one."""

import os

import torch

from tests.diabetes.model import Diabetes


class Logits(Diabetes):
    """Forgot the softmax."""

    def predict(self, batch: torch.Tensor) -> torch.Tensor:
        return torch.stack([batch[:, 0], -batch[:, 0]], dim=1)


class Flat(Diabetes):
    """Squeezed the only column away."""

    def predict(self, batch: torch.Tensor) -> torch.Tensor:
        return super().predict(batch)[:, 0]


class Restless(Diabetes):
    """Normalises by whatever else is in the batch, as a network in training mode does."""

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
    """Takes the whole process with it."""

    def predict(self, _batch: torch.Tensor) -> torch.Tensor:
        os._exit(9)


class NoModel:
    """Derives from nothing."""
