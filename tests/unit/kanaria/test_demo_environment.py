"""Where the demo runs: what it may empty, and what it must not touch."""

import re
import shutil
from pathlib import Path

import pytest

from contract.terminal import Terminal
from kanaria.demo.digits import DigitsDemo
from kanaria.demo.environment import DemoEnvironment
from kanaria.demo.story import without_shadow
from kanaria.errors import SetupError
from kanaria.settings import KEY_FILES, Settings
from rollout.spec import parse_spec
from tests.support.paths import ROOT

KEYS = (
    "token",
    "alerts-token",
    "alertmanager-password",
    "api-key",
    "api-keys.json",
    "user-key",
    "answers-key",
    "version-secret",
    "prometheus-login",
    "signing-key.pem",
    "signing-key.pub",
)


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DemoEnvironment:
    monkeypatch.setenv("KANARIA_HOME", str(tmp_path / "state"))
    return DigitsDemo.of(Settings(), Terminal(stderr=True))


def fill(environment: DemoEnvironment, *names: str) -> None:
    environment.root.mkdir(parents=True, exist_ok=True)
    for name in names:
        (environment.root / name).write_text(name)


def left_over(environment: DemoEnvironment) -> set[str]:
    return {path.name for path in environment.root.iterdir()}


def test_what_was_there_before_the_first_demo_stays(environment: DemoEnvironment) -> None:
    """Keys and whatever else a person keeps there; also when the next demo sweeps."""
    fill(environment, *KEYS, "notes.txt")
    environment.clear()
    fill(environment, "ledger.db")
    environment.clear()
    assert {*KEYS, "notes.txt"} <= left_over(environment)
    assert "ledger.db" not in left_over(environment)


def test_an_earlier_demo_is_swept_away_but_for_its_keys(environment: DemoEnvironment) -> None:
    """The next story starts with no release behind it, and whoever holds a key can still use it."""
    environment.clear()
    (environment.root / "predictions").mkdir()
    fill(environment, *KEYS, "ledger.db", "predictions/old.jsonl")
    before = left_over(environment)
    environment.clear()
    assert before - left_over(environment) == {"ledger.db", "predictions"}


def test_releases_that_no_demo_made_are_never_swept_away(environment: DemoEnvironment) -> None:
    """Refused, with what was seen and what to do instead."""
    fill(environment, environment.settings.ledger.name)
    for _ in range(2):
        with pytest.raises(SetupError, match=re.escape(str(environment.settings.ledger))):
            environment.clear()
    assert environment.settings.ledger.exists()


def test_every_key_is_known() -> None:
    """A key's file that the settings name is one that no demo deletes."""
    assert set(KEY_FILES) == set(KEYS)


def test_the_demo_follows_the_plan_beside_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever edits the file changes the demo; the bad version gets the same plan without the shadow step."""
    shutil.copy(ROOT / "bentofile.yaml", tmp_path)
    example = tmp_path / "examples" / "digits"
    example.mkdir(parents=True)
    text = (ROOT / "examples/digits/rollout.yaml").read_text()
    (example / "rollout.yaml").write_text(text.replace("soak: 5s", "soak: 7s"))
    monkeypatch.chdir(tmp_path)
    plan = DigitsDemo.of(Settings(home=tmp_path / "state"), Terminal(stderr=True)).plan()
    assert plan == parse_spec(text).model_copy(update={"soak": 7.0})
    assert (plan.steps[0], without_shadow(plan)) == ("shadow", plan.model_copy(update={"steps": plan.steps[1:]}))
