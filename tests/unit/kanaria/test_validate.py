"""`kanaria validate`: how it interprets its target, and how it ends."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from contract.recorded import RecordedFolder, RecordedRequest
from examples.diabetes.train import RECIPES, train_into
from kanaria.cli import app
from tests.support.paths import ROOT

MODEL = "examples.diabetes.model:Diabetes"


def validate(*arguments: str) -> tuple[int, str]:
    """The exit code and all output, on one line."""
    done = CliRunner().invoke(app, ["validate", *arguments])
    return done.exit_code, " ".join(f"{done.output} {done.exception or ''}".split())


def test_a_model_folder_is_checked_with_the_named_class(tmp_path: Path) -> None:
    """The exit code is 0 and the findings are printed. Without one of the files it is 2, with advice."""
    train_into(tmp_path, RECIPES["v1"])
    assert validate(str(tmp_path), "--implementation", MODEL) == (
        0,
        (
            "no answer has a confidence, so `low_confidence` shows nothing saw: none in reference.jsonl "
            "do: leave the signal out of the plan: `low_confidence: null` "
            f"{tmp_path} keeps the model contract: 20 golden requests answered as recorded, 92 of 133 samples right"
        ),
    )
    (tmp_path / "samples.jsonl").unlink()
    code, output = validate(str(tmp_path), "--implementation", MODEL)
    assert (code, "samples.jsonl is missing" in output, "do: let training call save_model" in output) == (
        2,
        True,
        True,
    )


def test_a_signal_that_the_plan_leaves_out_is_not_mentioned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan is the rollout.yaml of the current folder."""
    train_into(tmp_path, RECIPES["v1"])
    (tmp_path / "rollout.yaml").write_text("signals: {low_confidence: null}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # where the class is
    code, output = validate(str(tmp_path), "--implementation", MODEL)
    assert (code, "low_confidence" in output, "keeps the model contract" in output) == (0, False, True)


def test_a_path_of_a_plan_is_checked_as_a_plan(tmp_path: Path) -> None:
    """A path selects the plan."""
    plan = tmp_path / "plan.yaml"
    plan.write_text("alpha: 200%")
    code, output = validate(str(plan))
    assert (code, "alpha" in output) == (2, True)


BY_KEYS = {  # a plan, and the advice instead
    "sticky: header:x-api-key": "sticky: header:x-user-id",
    "segments: header:x-kanaria-caller": "segments: header:x-tenant",
}


@pytest.mark.parametrize(("asks_for_keys", "code"), [("true", 0), ("false", 2)])
@pytest.mark.parametrize("by_keys", BY_KEYS)
def test_a_plan_by_keys_needs_a_gateway_that_requires_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asks_for_keys: str, code: int, by_keys: str
) -> None:
    """With an open gateway no caller would stay on one version, and all requests would be in one segment, `absent`."""
    monkeypatch.setenv("KANARIA_NEEDS_API_KEY", asks_for_keys)
    monkeypatch.setenv("KANARIA_HOME", str(tmp_path / "home"))
    (plan := tmp_path / "plan.yaml").write_text(by_keys)
    found, output = validate(str(plan))
    assert (found, f"such as `{BY_KEYS[by_keys]}`" in output) == (code, code == 2)


def test_a_plan_is_explained_in_words(tmp_path: Path) -> None:
    """The author sees what the file means: half a percent, not half of all requests."""
    plan = tmp_path / "plan.yaml"
    plan.write_text("steps: [shadow, 12.5, 100]\nrisk_budget: 0.25%\nholdback: none\nwatch: 1h\non_deadline: rollback")
    code, output = validate(str(plan))
    for sentence in (
        "The canary first gets copies, whose answers no user sees, then 12.5 % and then 100 % of the requests.",
        "At most 0.25 % of all requests may be harmed: the canary gets more traffic only when, with 99 % certainty,",
        "rolls back a harmless version in at most 1 % of all releases. More than 20 % errors end every release,",
        "A version is judged for at least 4 min before it is promoted, or longer if the evidence takes longer;",
        "if a step still lacks evidence after 10 min, the version is rolled back.",
        "After promotion it is watched for 60 min; during this time the previous version gets no requests but is kept",
        "Judged: errors, rejected, route, latency, wrong_label, paired_label; class, low_confidence, disagreement,",
        "about which a person is asked; typical_latency, which is only reported.",
    ):
        assert sentence in output, sentence
    assert code == 0


@pytest.mark.parametrize(
    ("signals", "sentence"),
    [
        ("disagreement: {at_most: 60%}", "its gross limit, 50 %, lies within the 60 % that the plan calls harmless."),
        (
            "class: {tolerance: 6}",
            "However much `class` changes, a person is asked and nothing is rolled back because of it:",
        ),
        ("low_confidence: {tolerance: 2, gross: 1.5}", "its gross limit, 1.5 times stable's odds, lies within the 2"),
    ],
)
def test_a_gross_limit_that_limits_nothing_is_reported(tmp_path: Path, signals: str, sentence: str) -> None:
    """A person who widens the harmless range may think that the gross limit beyond it still applies."""
    plan = tmp_path / "plan.yaml"
    plan.write_text(f"signals: {{{signals}}}")
    code, output = validate(str(plan))
    assert (code, sentence in output) == (0, True), output
    plan.write_text(f"signals: {{{signals[:-1].replace(', gross: 1.5', '')}, gross: null}}}}")
    assert "However much" not in validate(str(plan))[1]
    plan.write_text(f"signals: {{{signals[:-1]}, on_fail: rollback}}}}")
    assert "However much" not in validate(str(plan))[1]


def test_a_share_without_a_percent_sign_is_refused(tmp_path: Path) -> None:
    """`0.5` may mean 0.5 % or 50 %, and the larger share would harm every second user."""
    plan = tmp_path / "plan.yaml"
    plan.write_text("risk_budget: 0.5")
    code, output = validate(str(plan))
    assert (code, "write `0.5%` or `50%`: without the sign it may mean either" in output) == (2, True)


@pytest.mark.parametrize(("text", "has_note"), [("soak: 5s", True), ("soak: 2m", False), ("", False)])
def test_a_short_soak_is_valid_and_noted(tmp_path: Path, text: str, has_note: bool) -> None:
    """Hanging requests show up only after more seconds than that."""
    plan = tmp_path / "plan.yaml"
    plan.write_text(text)
    code, output = validate(str(plan))
    assert (code, f"{plan} is valid" in output) == (0, True)
    assert ("note: `soak` is 5 s, but a request that hangs" in output) is has_note


@pytest.mark.parametrize("target", ["nothing.yaml", "no:model"])
def test_a_missing_target_is_reported(target: str) -> None:
    """It may be a file or a tag; the error lists what exists."""
    code, output = validate(target)
    assert (code != 0, target in output) == (True, True)


@pytest.mark.parametrize(
    ("bentofile", "saw"),
    [(None, "FileNotFoundError"), ("args: {model: 'digits:latest', implementation: 'a:B'}", "is for digits")],
)
def test_a_model_without_a_known_class_asks_for_the_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bentofile: str | None, saw: str
) -> None:
    """The bentofile.yaml here is missing or about another model."""
    model = tmp_path / "models" / "diabetes" / "v1"
    model.mkdir(parents=True)
    (model / "model.yaml").touch()
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    if bentofile:
        (tmp_path / "bentofile.yaml").write_text(bentofile)
    code, output = validate("diabetes:v1")
    assert (code != 0, saw in output, "--implementation package.module:Class" in output) == (True, True, True)


def test_a_class_that_ends_the_process_is_reported(tmp_path: Path) -> None:
    """Whatever the user's code does, a sentence reports it."""
    train_into(tmp_path, RECIPES["v1"])
    code, output = validate(str(tmp_path), "--implementation", "tests.support.broken_models:Fatal")
    assert code != 0
    assert "failed saw: exit code 9" in output


def test_an_unknown_name_brings_advice_how_to_name_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error lists the existing models."""
    model = tmp_path / "models" / "digits" / "v1"
    model.mkdir(parents=True)
    (model / "model.yaml").touch()
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    code, output = validate("digit")
    assert (code != 0, "models here: digits:v1" in output, "NAME:VERSION" in output) == (True, True, True)


PLAN = "answers: {/detect: {label: result.label, confidence: result.p, ignore: [took_ms]}}"


def read(tmp_path: Path, answer: str, *arguments: str, plan: str = PLAN) -> tuple[int, str]:
    """What `validate` prints about a plan and an answer."""
    (tmp_path / "plan.yaml").write_text(plan)
    (tmp_path / "answer.json").write_text(answer)
    return validate(str(tmp_path / "plan.yaml"), "--answer", str(tmp_path / "answer.json"), *arguments)


def test_a_plan_is_tried_on_a_real_answer(tmp_path: Path) -> None:
    code, output = read(tmp_path, '{"result": {"label": "spam", "p": 0.9}, "took_ms": 3}')
    assert code == 0, output
    assert "Read from answers of /detect: label `result.label`, confidence `result.p`; left out" in output
    assert 'label: `result.label` gives "spam" confidence: `result.p` gives 0.9' in output


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ('{"out": {"label": "spam", "p": 0.9}}', "label: `result.label` matches nothing; did you mean `out.label`?"),
        ('{"result": {"label": ["spam"], "p": 0.9}}', 'label: `result.label` gives ["spam"], which is not a label'),
        ('{"result": {"label": "a", "p": 90}}', "confidence: `result.p` gives 90, which is not a confidence"),
        ('{"result": {"label": "a", "p": NaN}}', "confidence: `result.p` gives NaN, which is not a confidence"),
        ('{"result": {"label": "a", "p": 1}}', "ignore: `took_ms` is not a field of this answer"),
        ("<html>", "cannot be read as an answer"),
        ("[" * 900 + "]" * 900, "label: `result.label` matches nothing"),  # deeper than a recursive walk can go
        ("[" * 100_000, "cannot be read as an answer"),
    ],
)
def test_an_expression_that_finds_nothing_is_reported(tmp_path: Path, answer: str, says: str) -> None:
    code, output = read(tmp_path, answer)
    assert says in output
    assert code == (0 if "took_ms" in says else 2)


def test_an_answer_needs_a_route_of_the_plan(tmp_path: Path) -> None:
    assert "did you mean `/detect`?" in read(tmp_path, "{}", "--route", "/detct")[1]
    assert "`answers` has no route" in read(tmp_path, "{}", plan="alpha: 1%")[1]


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ("answers: {/a: {lable: x}}", "did you mean `label`?"),
        ("answers: {/a: {label: $.x}}", "did you mean `x`?"),
        ("answers: {/a: {label: x, number: y}}", "keep one of the two"),
        ("answers: {a: {label: x}}", "name a route by its path"),
        ("answers: {/a: label}", "write keys such as"),
        ("answers: label", "write keys such as"),
        ("answers: {/a: {label: 3}}", "write a text"),
        ("answers: {/a: {ignore: ['x[0]']}}", "write the path of a field"),
        ("answers: {/a: {label: 'lenght(x)'}}", "did you mean `length`?"),
    ],
)
def test_a_wrong_expression_is_reported_with_its_place(tmp_path: Path, plan: str, says: str) -> None:
    (tmp_path / "plan.yaml").write_text(plan)
    code, output = validate(str(tmp_path / "plan.yaml"))
    assert code == 2
    assert "answers" in output
    assert says in output


def test_expressions_are_tried_on_recorded_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each route, the newest JSON answer that is not an error is used."""
    monkeypatch.setenv("KANARIA_HOME", str(tmp_path / "home"))
    plan = "answers: {/detect: {label: lable, features: {letters: length(txt)}}, /other: {label: x}}"
    (tmp_path / "plan.yaml").write_text(plan)
    assert (
        "/detect: no answer was recorded; to try the expressions use `kanaria record` or"
        in validate(str(tmp_path / "plan.yaml"))[1]
    )
    for status, answer in ((200, b'{"label": "german"}'), (500, b'{"error": 1}'), (200, b"<html>")):
        keep(tmp_path / "home" / "recorded", status, answer)
    code, output = validate(str(tmp_path / "plan.yaml"))
    assert code == 2
    assert "label: `lable` matches nothing; did you mean `label`?" in output
    assert "features: `letters: length(txt)` matches nothing in its request" in output
    assert "/other: no answer was recorded" in output
    (tmp_path / "plan.yaml").write_text("answers: {/detect: {label: label}}")
    code, output = validate(str(tmp_path / "plan.yaml"))
    assert (code, 'label: `label` gives "german"' in output) == (0, True)


def keep(folder: Path, status: int, answer: bytes) -> None:
    """Record a request to /detect."""
    RecordedFolder(folder).keep(
        RecordedRequest(
            at_s=1.0,
            version="languages:v1",
            route="/detect",
            method="POST",
            path="/detect",
            headers={},
            body=b'{"text": "hallo"}',
            status=status,
            media_type="application/json",
            encoding="",
            answer=answer,
            answer_digest="",
        )
    )
