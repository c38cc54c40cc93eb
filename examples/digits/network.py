"""The example's networks: a small MLP, a better CNN, and a transformer fifty times as large for benchmarks.

Each maps (rows, 64) pixels in 0-1 to 10 logits.
"""

from typing import Literal

import torch
from torch import nn

Architecture = Literal["mlp", "cnn", "transformer"]


def build(architecture: Architecture) -> nn.Module:
    """Return an untrained network."""
    match architecture:
        case "mlp":
            return nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
        case "cnn":
            return nn.Sequential(
                nn.Unflatten(1, (1, 8, 8)),
                nn.Conv2d(1, 16, kernel_size=3, padding=1),
                nn.ReLU(),
                nn.Conv2d(16, 32, kernel_size=3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Dropout(0.25),
                nn.Linear(512, 64),
                nn.ReLU(),
                nn.Linear(64, 10),
            )
        case "transformer":
            return Transformer(width=192, layers=4)


class Transformer(nn.Module):
    """A vision transformer over the sixteen patches of 2x2 pixels."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Linear(4, width)
        self.place = nn.Parameter(0.02 * torch.randn(16, width))
        self.encode = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0, batch_first=True, norm_first=True)
            for _ in range(layers)
        )
        self.classify = nn.Linear(width, 10)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        patches = pixels.reshape(-1, 4, 2, 4, 2).transpose(2, 3).reshape(-1, 16, 4)
        tokens = self.embed(patches) + self.place
        for layer in self.encode:
            tokens = layer(tokens)
        logits: torch.Tensor = self.classify(tokens.mean(dim=1))
        return logits
