"""The model contract, and the digits example that fulfils it."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from contract.answer_types import AnswerKind, Labels, Number, Prediction
from contract.model_files import GOLDEN_FILE, REFERENCE_FILE, SAMPLES_FILE, Feature, Golden, Reference, Sample, Schema
from contract.records import read_lines
from examples.digits.data import split
from examples.digits.faults import EXTRA_LATENCY_S, Flaky
from examples.digits.model import WEIGHTS_FILE, Digits
from examples.digits.network import build
from examples.digits.train import RECIPES, train_into
from service.contract import Model, save_model
from service.server.batching import predict_rows
from service.validation.__main__ import check

Train = Callable[[str], tuple[Path, dict[str, str | int | float]]]


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Return the folder and the metadata of a trained version; each version is trained once."""
    done: dict[str, tuple[Path, dict[str, str | int | float]]] = {}

    def once(variant: str) -> tuple[Path, dict[str, str | int | float]]:
        if variant not in done:
            folder = tmp_path_factory.mktemp(variant)
            done[variant] = folder, train_into(folder, RECIPES[variant])
        return done[variant]

    return once


def accuracy_on_all_digits(model: Model) -> float:
    held_out = split().held_out
    with torch.inference_mode():
        predictions = predict_rows(model, held_out.features)
    return float(np.mean([int(prediction.label) for prediction in predictions] == held_out.digits))


def test_a_users_model_and_training_need_one_import() -> None:
    """The examples import nothing of Kanaria except `service.contract`."""
    folder = Path(__file__).parents[3] / "examples"
    sources = "\n".join(path.read_text() for path in folder.rglob("*.py"))
    ours = r"^(?:from|import) ((?:contract|service|observer|kanaria|rollout|monitoring|loadtest)\b\S*)"
    assert set(re.findall(ours, sources, flags=re.MULTILINE)) == {"service.contract"}


class Echo(Model):
    """Returns its input."""

    def predict(self, batch: torch.Tensor) -> torch.Tensor:
        return batch


def echo(folder: Path, answer: AnswerKind) -> Echo:
    features = tuple(Feature(name=f"column_{i}", minimum=-10, maximum=10) for i in range(answer.columns))
    Schema(features=features, answer=answer).write(folder)
    return Echo(folder)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_the_most_probable_label_is_the_answer(tmp_path: Path, kind: torch.dtype) -> None:
    """Its probability is the confidence, row by row, in single precision and in bfloat16."""
    model = echo(tmp_path, Labels(labels=("red", "green")))
    answers = model.postprocess(torch.tensor([[0.25, 0.75], [1.0, 0.0]], dtype=kind))
    assert answers == [Prediction("green", 0.75), Prediction("red", 1.0)]


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_number_is_the_answer_without_a_confidence(tmp_path: Path, kind: torch.dtype) -> None:
    """The number is the only column of the output."""
    model = echo(tmp_path, Number(tolerance=2, edges=(10,)))
    assert model.postprocess(torch.tensor([[1.5], [-3.0]], dtype=kind)) == [Prediction(1.5), Prediction(-3.0)]


def test_a_schema_is_read_back_unchanged(tmp_path: Path) -> None:
    """Reading a written schema gives the same schema."""
    schema = Schema(
        features=(Feature(name="age", minimum=0, maximum=120),), answer=Labels(labels=("no", "yes")), max_rows=5
    )
    schema.write(tmp_path)
    assert Schema.read(tmp_path) == schema


def test_impossible_bounds_are_refused() -> None:
    """A minimum above the maximum is an error that names the feature."""
    with pytest.raises(ValidationError, match=r"'age': minimum 2\.0 is above maximum 1\.0"):
        Feature(name="age", minimum=2, maximum=1)


def test_the_same_recipe_gives_the_same_weights(train: Train, tmp_path: Path) -> None:
    """Training is seeded: a second run writes the same bytes."""
    train_into(tmp_path, RECIPES["v1"])
    assert (tmp_path / WEIGHTS_FILE).read_bytes() == (train("v1")[0] / WEIGHTS_FILE).read_bytes()


def test_v2_is_more_accurate_than_v1(train: Train) -> None:
    """The CNN is right on more held-out digits than the small MLP, by at least three points."""
    v1, v2 = (accuracy_on_all_digits(Digits(train(variant)[0])) for variant in ("v1", "v2"))
    assert v2 - v1 > 0.03


def test_v3_looks_excellent_on_its_own_data(train: Train) -> None:
    """Its accuracy and its golden requests come from the same export as its training data."""
    folder, facts = train("v3")
    model = Digits(folder)
    with torch.inference_mode():
        answers = [
            predict_rows(model, np.array(golden.features, np.float32))[0].label == golden.predictions[0].label
            for golden in read_lines(folder / GOLDEN_FILE, Golden)
        ]
    assert (float(facts["held_out_accuracy"]) > 0.98, all(answers)) == (True, True)


def test_v3_is_wrong_about_the_digits_missing_from_its_export(train: Train) -> None:
    """It gets between 25 and 35 % of all digits wrong."""
    assert 0.65 < accuracy_on_all_digits(Digits(train("v3")[0])) < 0.75


def test_samples_are_the_held_out_rows_with_their_labels(train: Train) -> None:
    """A load test can send rows that were not used in training, and knows their labels."""
    samples = read_lines(train("v1")[0] / SAMPLES_FILE, Sample)
    held_out = split().held_out
    assert (
        np.array_equal([sample.features for sample in samples], held_out.features),
        [int(sample.label) for sample in samples] == held_out.digits.tolist(),
    ) == (True, True)


def test_one_call_saves_everything_that_a_release_needs(tmp_path: Path) -> None:
    """Validation finds nothing missing, the accuracy is returned, and labels may be numbers."""
    model = echo(tmp_path, Labels(labels=("0", "1")))
    held_out = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], np.float32)
    right = save_model(tmp_path, model, held_out, np.array([0, 1, 1]).tolist())
    assert (right, check(tmp_path, f"{__name__}:Echo").faults) == (pytest.approx(2 / 3), ())
    assert [sample.label for sample in read_lines(tmp_path / SAMPLES_FILE, Sample)] == ["0", "1", "1"]
    assert [row.truth for row in read_lines(tmp_path / REFERENCE_FILE, Reference)] == ["0", "1", "1"]


def test_golden_requests_have_right_and_confident_answers_if_there_are_enough(tmp_path: Path) -> None:
    """An answer near the decision boundary may change with the engine."""
    model = echo(tmp_path, Labels(labels=("a", "b")))
    sure, brink = [0.95, 0.05], [0.51, 0.49]
    save_model(tmp_path, model, np.array([brink, sure] * 20, np.float32), ["a"] * 40)
    golden = read_lines(tmp_path / GOLDEN_FILE, Golden)
    assert {round(request.features[0][0], 2) for request in golden} == {0.95}


def test_a_number_is_saved_with_the_tolerance_of_the_schema(tmp_path: Path) -> None:
    """Load tests then use the same definition of a right answer as releases."""
    model = echo(tmp_path, Number(tolerance=2, edges=(1,)))
    assert save_model(tmp_path, model, np.array([[1], [4]], np.float32), [2, 9]) == 0.5
    assert [sample.tolerance for sample in read_lines(tmp_path / SAMPLES_FILE, Sample)] == [2, 2]


def test_more_rows_than_one_request_may_hold_are_saved(tmp_path: Path) -> None:
    """The model is called in batches of the size that it allows."""
    model = echo(tmp_path, Number(tolerance=0, edges=(1,)))
    save_model(tmp_path, model, np.ones((3000, 1), np.float32), [1] * 3000)
    assert len(read_lines(tmp_path / SAMPLES_FILE, Sample)) == 3000


@pytest.mark.parametrize(
    ("rows", "truth", "words"),
    [(1, ["a", "b"], "1 held-out rows and 2 truths"), (0, [], "0 held-out"), (1, [0], "no label '0'; it has 'a', 'b'")],
)
def test_labels_that_do_not_fit_the_model_are_refused(tmp_path: Path, rows: int, truth: list[str], words: str) -> None:
    """The error appears during training, not at the first release."""
    model = echo(tmp_path, Labels(labels=("a", "b")))
    with pytest.raises(ValueError, match=words):
        save_model(tmp_path, model, np.full((rows, 2), 0.5, np.float32), truth)


def test_no_model_file_is_a_pickle(train: Train) -> None:
    """No file starts like a pickle or like torch's zip file."""
    starts = {path.read_bytes()[:2] for path in train("v1")[0].iterdir()}
    assert not [start for start in starts if start.startswith(b"\x80") or start == b"PK"]


def test_the_flaky_version_fails_on_about_one_call_in_twenty() -> None:
    """Over 2,000 calls the share of failures is within four standard errors of 5 %."""
    flaky, batch, failures = Flaky(build("mlp")), torch.zeros(1, 64), 0
    for _ in range(2000):
        try:
            flaky(batch)
        except RuntimeError:
            failures += 1
    assert abs(failures / 2000 - 0.05) < 4 * (0.05 * 0.95 / 2000) ** 0.5


def test_the_slow_version_gives_the_same_answers_as_the_fast_one(train: Train) -> None:
    """A latency fault changes no answer, so only latency can reveal it."""
    assert (EXTRA_LATENCY_S, (train("v3-latency")[0] / WEIGHTS_FILE).read_bytes()) == (
        0.15,
        (train("v2")[0] / WEIGHTS_FILE).read_bytes(),
    )
