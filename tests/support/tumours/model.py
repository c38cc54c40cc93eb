"""A small model with two labels: is a tumour benign or malignant, from thirty measurements of its cells."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from service.contract import Model

WEIGHTS_FILE = "weights.safetensors"


class Tumours(Model):
    """Logistic regression."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.network = nn.Linear(len(self.schema.features), 2)
        self.network.load_state_dict(load_file(folder / WEIGHTS_FILE))

    def predict(self, batch: torch.Tensor) -> torch.Tensor:
        return self.network(batch).softmax(dim=1)
