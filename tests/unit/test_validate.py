"""`kanaria validate`: what it takes a target for, and how it ends."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from kanaria.app import app
from tests.diabetes.train import RECIPES, train_into

MODEL = "tests.diabetes.model:Diabetes"


def validate(*arguments: str) -> tuple[int, str]:
    """Exit code and all that was said, in one line."""
    done = CliRunner().invoke(app, ["validate", *arguments])
    return done.exit_code, " ".join(f"{done.output} {done.exception or ''}".split())


def test_a_folder_of_a_model_is_checked_with_the_class_that_is_named(tmp_path: Path) -> None:
    """Exit code 0 and what was found; a file less, and it is 2 with what to do."""
    train_into(tmp_path, RECIPES["v1"])
    assert validate(str(tmp_path), "--implementation", MODEL) == (
        0,
        f"{tmp_path} keeps the model contract: 20 golden requests answered as recorded, 92 of 133 samples right",
    )
    (tmp_path / "samples.jsonl").unlink()
    code, said = validate(str(tmp_path), "--implementation", MODEL)
    assert (code, "samples.jsonl is missing" in said, "do: let training call write_lines" in said) == (2, True, True)


def test_a_plan_is_still_a_plan(tmp_path: Path) -> None:
    """By its path."""
    plan = tmp_path / "plan.yaml"
    plan.write_text("alpha: 200%")
    code, said = validate(str(plan))
    assert (code, "alpha" in said) == (2, True)


@pytest.mark.parametrize("target", ["nothing.yaml", "no:model"])
def test_a_target_that_is_not_there_is_named(target: str) -> None:
    """A file or a tag, with what there is."""
    code, said = validate(target)
    assert (code != 0, target in said) == (True, True)


@pytest.mark.parametrize(
    ("bentofile", "saw"),
    [(None, "FileNotFoundError"), ("args: {model: 'digits:latest', implementation: 'a:B'}", "is about digits")],
)
def test_a_model_whose_class_nobody_names_is_asked_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bentofile: str | None, saw: str
) -> None:
    """The bentofile.yaml here is missing, or of another model."""
    model = tmp_path / "models" / "diabetes" / "v1"
    model.mkdir(parents=True)
    (model / "model.yaml").touch()
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    if bentofile:
        (tmp_path / "bentofile.yaml").write_text(bentofile)
    code, said = validate("diabetes:v1")
    assert (code != 0, saw in said, "--implementation package.module:Class" in said) == (True, True, True)


def test_a_class_that_ends_the_process_is_an_error_of_its_own(tmp_path: Path) -> None:
    """Whatever somebody's code does, there is a sentence about it."""
    train_into(tmp_path, RECIPES["v1"])
    code, said = validate(str(tmp_path), "--implementation", "tests.support.broken_models:Fatal")
    assert code != 0
    assert "did not end saw: exit code 9" in said
