"""Ways in which a good network fails at run time, so that a release can be seen to catch them.

A fault is part of a trained version (`v3-errors`, `v3-latency`), as a bug would be: nothing outside
this folder can switch it on.
"""

import random
import time
from typing import Literal

import torch
from torch import nn

Fault = Literal["none", "errors", "latency"]

ERROR_RATIO = 0.05
HEALTHY_CALLS = 100  # more than starting and a preflight take
EXTRA_LATENCY_S = 0.15


class Flaky(nn.Module):
    """Raises on one call in twenty once it has been in use for a while, as a leak would: no short trial shows it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = network
        self._calls = 0
        self._random = random.Random(0)  # noqa: S311 - a seeded fault, not a secret

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self._calls += 1
        if self._calls > HEALTHY_CALLS and self._random.random() < ERROR_RATIO:
            raise RuntimeError("the example's injected fault: this call fails")
        logits: torch.Tensor = self._network(batch)
        return logits


class Slow(nn.Module):
    """Answers 150 ms later, as a call to a far-away feature store would."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = network

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        time.sleep(EXTRA_LATENCY_S)
        logits: torch.Tensor = self._network(batch)
        return logits


def with_fault(network: nn.Module, fault: Fault) -> nn.Module:
    """Return `network`, failing in the way that `fault` names."""
    match fault:
        case "none":
            return network
        case "errors":
            return Flaky(network)
        case "latency":
            return Slow(network)
