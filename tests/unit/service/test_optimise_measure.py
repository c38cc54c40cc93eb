"""The loss of accuracy of real engines is measured on a real network."""

from functools import partial
from pathlib import Path

import pytest
import torch

from contract.model_files import SAMPLES_FILE
from service.contract import Model
from service.engines import Engine
from service.optimise.choice import Failure, Measurement, refusal
from service.optimise.errors import OptimiseError
from service.optimise.measure import Evidence, try_all
from tests.support.small_network import Brittle, Small, write_evidence


class Unexportable(Small):
    """A model whose network branches on the values of its input."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.network = Branching(self.network)


class Branching(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner(batch)
        return logits if float(batch.sum()) > 0 else logits.flip(0).flip(0)


class Closed(Model):
    """A model without a `network` attribute."""

    def predict(self, batch: torch.Tensor) -> torch.Tensor:
        return torch.full((len(batch), 3), 1 / 3)


def test_an_engine_that_answers_differently_is_refused(tmp_path: Path) -> None:
    """The network depends on the fourth digit, and bfloat16 has three."""
    folder = write_evidence(tmp_path, Brittle)
    eager, (halved,) = try_all(partial(Brittle, folder), Evidence.read(folder), tmp_path, (Engine.BFLOAT16,))
    assert isinstance(halved, Measurement)
    assert (eager.accuracy, halved.accuracy < 0.9) == (1.0, True)
    assert refusal(halved, eager, tolerance=0.05) is not None


def test_an_engine_that_cannot_run_the_network_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    """The other engines are still measured."""
    folder = write_evidence(tmp_path, Unexportable)
    engines = (Engine.BFLOAT16, Engine.ONNX)
    _, (halved, exported) = try_all(partial(Unexportable, folder), Evidence.read(folder), tmp_path, engines)
    assert isinstance(halved, Measurement)
    assert isinstance(exported, Failure)
    assert exported.reason


def test_every_batch_size_that_the_model_accepts_is_measured(tmp_path: Path) -> None:
    """The schema allows 64 rows, so a batch of 128 is not measured."""
    folder = write_evidence(tmp_path)
    eager, _ = try_all(partial(Small, folder), Evidence.read(folder), tmp_path, ())
    assert (list(eager.ms), all(ms > 0 for ms in eager.ms.values())) == ([1, 8, 32], True)


def test_a_model_without_a_network_gets_advice_what_to_write(tmp_path: Path) -> None:
    """The contract does not require a network; optimising does."""
    folder = write_evidence(tmp_path)
    with pytest.raises(OptimiseError, match=r"self\.network\(batch\)"):
        try_all(partial(Closed, folder), Evidence.read(folder), tmp_path, ())


def test_accuracy_needs_samples(tmp_path: Path) -> None:
    """Without held-out rows there is no accuracy to compare, so nothing is optimised."""
    folder = write_evidence(tmp_path)
    (folder / SAMPLES_FILE).write_bytes(b"")
    with pytest.raises(OptimiseError, match="held-out samples"):
        Evidence.read(folder)
