"""Faults that make a good network fail at run time, to show that a release catches them.

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
HEALTHY_CALLS = 100  # more than a start and a preflight need
EXTRA_LATENCY_S = 0.15


class Flaky(nn.Module):
    """Raises on one call in twenty after some time in use, as a leak would. No short test reveals it."""

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
    """Answers 150 ms later, as if it called a remote feature store."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = network

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        time.sleep(EXTRA_LATENCY_S)
        logits: torch.Tensor = self._network(batch)
        return logits


def with_fault(network: nn.Module, fault: Fault) -> nn.Module:
    """Return `network` with the fault that `fault` names."""
    match fault:
        case "none":
            return network
        case "errors":
            return Flaky(network)
        case "latency":
            return Slow(network)
