"""A version that can be switched to fail or to load slowly from outside."""

import os
import random
import time
from pathlib import Path

import torch

from examples.digits.model import Digits

SWITCHES = "CHAOS_SWITCHES"  # environment variable: the folder of the two files below
LOADS_SLOWLY = "loads-slowly"  # how long a version takes to load, seconds
FAILS = "fails"  # the tag whose requests fail
FAILED_RATIO = 0.6


class Switchable(Digits):
    """The example's model. It is healthy until a file says otherwise."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._switches = Path(os.environ.get(SWITCHES, "no-switches"))
        slowly = self._switches / LOADS_SLOWLY
        if slowly.exists():
            time.sleep(float(slowly.read_text()))

    def predict(self, batch: torch.Tensor) -> torch.Tensor:
        """Raises for most requests while this version is switched to fail."""
        fails = self._switches / FAILS
        if fails.exists() and fails.read_text() == os.environ["KANARIA_VERSION"] and random.random() < FAILED_RATIO:
            raise RuntimeError("switched on: this request fails")
        return super().predict(batch)
