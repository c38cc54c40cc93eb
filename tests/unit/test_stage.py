"""The stage that the demo plays on: what it may empty, and what it must not touch."""

import re
from pathlib import Path

import pytest
from rich.console import Console

from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stage import Stage

KEYS = ("token", "api-key", "user-key", "signing-key.pem", "signing-key.pub")


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setenv("KANARIA_HOME", str(tmp_path / "state"))
    return Stage(Settings(), Console(quiet=True))


def fill(stage: Stage, *names: str) -> None:
    stage.root.mkdir(parents=True, exist_ok=True)
    for name in names:
        (stage.root / name).write_text(name)


def left_over(stage: Stage) -> set[str]:
    return {path.name for path in stage.root.iterdir()}


def test_what_was_there_before_the_first_demo_stays(stage: Stage) -> None:
    """Keys and whatever else a person keeps there; also when the next demo sweeps."""
    fill(stage, *KEYS, "notes.txt")
    stage.clear()
    fill(stage, "ledger.db")
    stage.clear()
    assert {*KEYS, "notes.txt"} <= left_over(stage)
    assert "ledger.db" not in left_over(stage)


def test_an_earlier_demo_is_swept_away_but_for_its_keys(stage: Stage) -> None:
    """The next story starts with no release behind it, and whoever holds a key can still use it."""
    stage.clear()
    (stage.root / "predictions").mkdir()
    fill(stage, *KEYS, "ledger.db", "predictions/old.jsonl")
    before = left_over(stage)
    stage.clear()
    assert before - left_over(stage) == {"ledger.db", "predictions"}


def test_releases_that_no_demo_made_are_never_swept_away(stage: Stage) -> None:
    """Refused, with what was seen and what to do instead."""
    fill(stage, stage.settings.ledger.name)
    for _ in range(2):
        with pytest.raises(SetupError, match=re.escape(str(stage.settings.ledger))):
            stage.clear()
    assert stage.settings.ledger.exists()
