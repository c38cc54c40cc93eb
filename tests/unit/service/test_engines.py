"""A model's network runs on the chosen engine, or on eager if that fails."""

from pathlib import Path

import numpy as np
import pytest
import torch

from service.engines import Engine, move_or_stay_eager
from service.optimise.export import write_file
from service.optimise.measure import Evidence, answers
from tests.support.small_network import WIDTH, Small, write_evidence

OTHERS = [engine for engine in Engine if engine is not Engine.EAGER]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with the files of every engine."""
    made = write_evidence(tmp_path_factory.mktemp("model"))
    for engine in OTHERS:
        if engine.file:
            write_file(engine, Small(made).network, torch.zeros(2, WIDTH), made / engine.file)
    return made


@pytest.mark.parametrize("engine", OTHERS)
def test_an_engine_gives_the_same_answers_as_eager(engine: Engine, folder: Path) -> None:
    """This holds for other batch sizes than at build time; lower precision may change a few answers."""
    evidence, model = Evidence.read(folder), Small(folder)
    assert move_or_stay_eager(engine, model, folder, evidence.rows[:5]) is engine
    right = [
        answer.label == label for answer, label in zip(answers(model, evidence.rows), evidence.labels, strict=True)
    ]
    assert np.mean(right) >= 0.97


@pytest.mark.parametrize("fault", ["a missing file", "a damaged file", "an unknown engine"])
def test_eager_serves_if_the_engine_cannot(
    fault: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The answers are those of eager, and the log names the engine and the reason."""
    evidence, model, eager = Evidence.read(folder), Small(folder), Small(folder)
    if fault == "a damaged file":
        (tmp_path / "network.onnx").write_bytes(b"not a network")
    engine = "from-the-future" if fault == "an unknown engine" else "onnx"
    assert move_or_stay_eager(engine, model, tmp_path, evidence.rows[:5]) is Engine.EAGER
    assert answers(model, evidence.rows) == answers(eager, evidence.rows)
    output = capsys.readouterr().out
    assert ("engine_unavailable" in output, engine in output) == (True, True)


def test_an_engine_that_fails_leaves_the_network_unchanged(folder: Path, tmp_path: Path) -> None:
    """The fallback never runs with 8-bit or half-precision weights."""
    model = Small(folder)
    before = {name: weights.clone() for name, weights in model.network.state_dict().items()}
    evidence = Evidence.read(folder)
    model.predict = lambda batch: torch.full((len(batch), 3), torch.nan)  # type: ignore[method-assign] # a fault
    assert move_or_stay_eager(Engine.BFLOAT16, model, tmp_path, evidence.rows) is Engine.EAGER
    assert all(torch.equal(weights, before[name]) for name, weights in model.network.state_dict().items())
