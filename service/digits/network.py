"""The example's two networks: a small MLP and a better CNN. Both map (rows, 64) pixels in 0-1 to 10 logits."""

from typing import Literal

from torch import nn

Architecture = Literal["mlp", "cnn"]


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
