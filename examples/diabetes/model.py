"""An example model whose answer is a number: the progression of diabetes from ten measurements, by a linear model."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from service.contract import Model

WEIGHTS_FILE = "weights.safetensors"


class Diabetes(Model):
    """Predicts the progression of the disease after a year, 25 to 346 in its training data."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.network = nn.Linear(len(self.schema.features), 1)
        self.network.load_state_dict(load_file(folder / WEIGHTS_FILE))

    def predict(self, batch: torch.Tensor) -> torch.Tensor:
        return self.network(batch)
