"""A model with a small network that answers as if it were trained, for tests of engines."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from contract.answer_types import Labels
from contract.model_files import Feature, Schema
from service.contract import Model, save_model
from service.optimise.measure import answers

WIDTH, LABELS, SAMPLES = 8, ("a", "b", "c"), 200


class Small(Model):
    """Two layers with fixed random weights; `contrast` spreads its logits apart."""

    contrast = 4.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.network = nn.Sequential(nn.Linear(WIDTH, 32), nn.ReLU(), nn.Linear(32, len(LABELS))).eval()

    def predict(self, batch: torch.Tensor) -> torch.Tensor:
        return (self.contrast * self.network(batch)).softmax(dim=1)


class Brittle(Small):
    """Decides by the last digits of large numbers, which fewer bits would round away."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.network = nn.Sequential(self.network, Shifted())

    contrast = 1e3


class Shifted(nn.Module):
    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return 1e-3 * logits + 1.0


def write_evidence(folder: Path, model: type[Small] = Small) -> Path:
    """Write the files that training leaves beside the weights; the model's own answers are the truth."""
    features = tuple(Feature(name=f"x{column}", minimum=-10, maximum=10) for column in range(WIDTH))
    Schema(features=features, answer=Labels(labels=LABELS), max_rows=64).write(folder)
    rows = np.random.default_rng(0).normal(size=(SAMPLES, WIDTH)).astype(np.float32)
    save_model(folder, model(folder), rows, [answer.label for answer in answers(model(folder), rows)])
    return folder
