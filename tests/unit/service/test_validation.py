"""Validation names each mistake in a model and says how to fix it."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
import torch

from examples.diabetes.train import RECIPES, train_into
from service.validation.__main__ import Found, check
from tests.support.passengers.train import train_into as train_passengers

MODEL = "examples.diabetes.model:Diabetes"
BROKEN = "tests.support.broken_models"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    train_into(folder, RECIPES["v2"])
    return folder


@pytest.fixture
def folder(tmp_path: Path, trained: Path) -> Path:
    """A model that a test may damage."""
    return shutil.copytree(trained, tmp_path / "model")


def edit(file: str, old: str, new: str) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1))

    return damage


def labelled(folder: Path) -> None:
    """Turn it into a model that answers with labels."""
    schema = orjson.loads((folder / "schema.json").read_bytes())
    (folder / "schema.json").write_bytes(orjson.dumps(schema | {"answer": {"kind": "label", "labels": ["a", "b"]}}))
    row = orjson.loads((folder / "samples.jsonl").read_bytes().splitlines()[0])["features"]
    (folder / "samples.jsonl").write_bytes(orjson.dumps({"features": row, "label": "a"}))
    golden = {"features": [row], "predictions": [{"label": "a", "confidence": 0.5}]}
    (folder / "golden.jsonl").write_bytes(orjson.dumps(golden))
    reference = {"features": row[1:], "prediction": {"label": "a", "confidence": 0.5}, "truth": "a"}
    (folder / "reference.jsonl").write_bytes(orjson.dumps(reference))


def only_fault(found: Found) -> str:
    (fault,) = found.faults
    return f"{fault.what} | {fault.saw} | {fault.do}"


def test_a_model_that_fulfils_the_contract_has_no_fault(trained: Path) -> None:
    """Its golden requests get the expected answers, and most samples are right."""
    found = check(trained, MODEL)
    assert (found.faults, found.golden, found.samples) == ((), 20, 133)
    assert 0.6 < found.right / found.samples < 0.9


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "schema.json").unlink(), "schema.json is missing | golden.jsonl, reference.jsonl"),
        (lambda folder: (folder / "golden.jsonl").unlink(), "let training call save_model(folder, model"),
        (lambda folder: (folder / "samples.jsonl").write_text(""), "samples.jsonl is empty"),
        (
            lambda folder: (folder / "golden.jsonl").write_text('{"features":[],"predictions":[]}\n'),
            "golden.jsonl line 1 is not a Golden | `features`",
        ),
        (edit("schema.json", '"age"', '"sex"'), "two features have the same name: sex"),
        (edit("schema.json", '"number"', '"vector"'), "schema.json is not a schema"),
        (edit("golden.jsonl", '"label"', '"value"'), "golden.jsonl line 1 is not a Golden | `predictions.0.label`"),
        (edit("samples.jsonl", '"features":[54.0,', '"features":['), "samples.jsonl line 1 has another number of"),
        (
            edit("samples.jsonl", "[54.0,", "[540.0,"),
            "age has a value that no request may have | 540, expected 0 to 120",
        ),
        (edit("samples.jsonl", '"label":321.0', '"label":"321"'), "a text where answers are numbers"),
        (
            edit("samples.jsonl", '"tolerance":60.0', '"tolerance":0'),
            "samples.jsonl line 1 has another tolerance than schema.json | 0 | write it with save_model",
        ),
        (edit("golden.jsonl", '"label":2', '"label":9'), "the model does not give the golden answers | golden row 0"),
        (lambda folder: (folder / "reference.jsonl").unlink(), "reference.jsonl is missing"),
        (
            edit("reference.jsonl", '"features":[', '"features":[1.0,'),
            "does not have the 9 features that are logged plain | 10",
        ),
        (edit("reference.jsonl", '"truth":', '"truth":"high","was":'), "reference.jsonl line 1 is not a Reference"),
        (lambda folder: (folder / "old.bin").write_bytes(pickle.dumps({})), "old.bin is a pickle"),
        (lambda folder: torch.save({}, folder / "weights.pt"), "weights.pt is a pickle"),
        (lambda folder: (folder / "weights.safetensors").unlink(), "does not load the model"),
    ],
)
def test_each_mistake_in_the_files_is_named(folder: Path, damage: Callable[[Path], object], words: str) -> None:
    """The fault says what happened, what was seen and what to do."""
    damage(folder)
    assert words in only_fault(check(folder, MODEL))


@pytest.mark.parametrize(
    ("implementation", "words"),
    [
        ("examples.diabetes.model:Diabetis", "cannot be imported"),
        ("tests.diabetis.model:Diabetes", "No module named 'tests.diabetis'"),
        (f"{BROKEN}:NoModel", "derive the class from service.contract.Model"),
        (f"{BROKEN}:Forgetful", "begin __init__ with super().__init__(folder)"),
        (f"{BROKEN}:Flat", "return a tensor of shape (rows, labels) or (rows, 1)"),
        (f"{BROKEN}:Restless", "call .eval() on the network"),
        (f"{BROKEN}:Unlucky", "the model fails on its own rows"),
    ],
)
def test_each_mistake_in_the_class_is_named(trained: Path, implementation: str, words: str) -> None:
    """The fault says what happened, what was seen and what to do."""
    faults = check(trained, implementation).faults
    assert words in f"{faults[0].what} | {faults[0].saw} | {faults[0].do}"


def test_logits_are_not_accepted_as_probabilities(folder: Path) -> None:
    """Confidences computed from logits would be meaningless."""
    labelled(folder)
    assert "end predict with .softmax(dim=1)" in only_fault(check(folder, f"{BROKEN}:Logits"))


@pytest.fixture
def passengers(tmp_path: Path) -> Path:
    """A model with categories and missing values; no golden request or sample has a missing value."""
    train_passengers(tmp_path, "v2")
    for name in ("golden.jsonl", "samples.jsonl"):
        lines = (tmp_path / name).read_text().splitlines(keepends=True)
        (tmp_path / name).write_text("".join(line for line in lines if "null" not in line))
    return tmp_path


def test_a_model_must_answer_every_value_that_its_schema_allows(passengers: Path) -> None:
    """This includes values that no golden request has: a missing age would fail its first request in production."""
    assert check(passengers, "tests.support.passengers.model:Passengers").faults == ()
    words = only_fault(check(passengers, f"{BROKEN}:Incurious"))
    assert "the model does not answer every value of age that the schema allows" in words


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"male"', '"man"', "sex has a value that no request may have | 'man', expected one of 'female', 'male' | add"),
        (
            '"male"',
            "null",
            "sex has a value that no request may have | None, expected one of 'female', 'male' | set",
        ),
        ('"male"', "1", "sex has a value that no request may have | 1, expected"),
    ],
)
def test_a_value_that_is_not_a_category_is_named(passengers: Path, old: str, new: str, words: str) -> None:
    """The fault says what to do about it."""
    edit("samples.jsonl", old, new)(passengers)
    assert words in only_fault(check(passengers, "tests.support.passengers.model:Passengers"))
