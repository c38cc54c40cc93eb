"""The example's model: what the contract asks for, and nothing more. Copy this file to serve your own."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from service.contract import Model
from service.digits.faults import Fault, with_fault
from service.digits.network import Architecture, build
from service.kinds import Record

WEIGHTS_FILE = "weights.safetensors"
VARIANT_FILE = "variant.json"


class Variant(Record):
    """What sets one version of this model apart from another, besides its weights."""

    architecture: Architecture
    fault: Fault = "none"


class Digits(Model):
    """Recognises a handwritten digit in 64 pixels."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        variant = Variant.model_validate_json((folder / VARIANT_FILE).read_bytes())
        network = build(variant.architecture)
        network.load_state_dict(load_file(folder / WEIGHTS_FILE))
        self.network = with_fault(network.eval(), variant.fault)

    def preprocess(self, rows: NDArray[np.float32]) -> torch.Tensor:
        return torch.from_numpy(rows / 16)

    def predict(self, batch: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(batch)
        return logits.softmax(dim=1)
