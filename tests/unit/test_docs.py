"""The documentation names what there is."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from kanaria.app import app
from kanaria.settings import Settings
from rollout.spec import RolloutSpec, parse_spec

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_readme(command: str) -> None:
    """A command that nobody can find does not exist."""
    assert f"`{command}" in README or f"kanaria {command}" in README


def test_every_command_of_the_runbooks_exists() -> None:
    """Nobody should type at night what was renamed long ago."""
    typed = re.findall(r"^kanaria ([a-z]+)", (ROOT / "docs/runbooks/alerts.md").read_text(), flags=re.MULTILINE)
    assert set(typed) <= set(COMMANDS)


@pytest.mark.parametrize("setting", sorted(Settings.model_fields))
def test_every_setting_is_in_the_readme(setting: str) -> None:
    """Each is an environment variable with KANARIA_ before it."""
    assert setting.upper() in README


def test_the_example_plan_is_the_defaults() -> None:
    """rollout.yaml at the root says what happens without it, so that people see what they change."""
    assert parse_spec((ROOT / "rollout.yaml").read_text()) == RolloutSpec()


@pytest.mark.parametrize("key", sorted(RolloutSpec.model_fields))
def test_every_key_of_the_plan_is_documented(key: str) -> None:
    """docs/rollout-yaml.md explains each."""
    assert f"`{key}" in (ROOT / "docs/rollout-yaml.md").read_text()
