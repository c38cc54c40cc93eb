"""The example's model. To serve your own, write a class like `Digits`.

`Variant` is not part of the contract: it lets one class load the demonstration's networks and faults.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from examples.digits.faults import Fault, with_fault
from examples.digits.network import Architecture, build
from service.contract import Model, Record

WEIGHTS_FILE = "weights.safetensors"
VARIANT_FILE = "variant.json"


class Variant(Record):
    """How one version of this model differs from another, besides its weights."""

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
