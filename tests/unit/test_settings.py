"""Settings come from the environment, and from the stack that is up."""

from pathlib import Path

import pytest

from kanaria.errors import SetupError
from kanaria.settings import Settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder of a stack that went up on ports of its own, seen from another terminal."""
    monkeypatch.setenv("KANARIA_HOME", str(tmp_path))
    monkeypatch.delenv("KANARIA_GATEWAY_PORT", raising=False)
    monkeypatch.delenv("KANARIA_CONTROLLER_PORT", raising=False)
    Settings(gateway_port=9080, controller_port=9090).remember_where_it_listens()
    return tmp_path


def test_later_commands_know_the_ports_of_the_stack_that_is_up(home: Path) -> None:
    """`kanaria status` in another terminal finds the controller."""
    assert (Settings().gateway_port, Settings().controller_port) == (9080, 9090)


def test_a_port_in_the_environment_wins(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a person says now counts more than what was said at `up`."""
    monkeypatch.setenv("KANARIA_CONTROLLER_PORT", "9191")
    assert (Settings().gateway_port, Settings().controller_port) == (9080, 9191)


def test_another_state_folder_has_ports_of_its_own(home: Path, tmp_path: Path) -> None:
    """Two stacks on one machine do not mix."""
    assert Settings(home=tmp_path / "another").controller_port == 8090


def test_the_next_stack_begins_with_the_defaults(home: Path) -> None:
    """`kanaria down` ends what `up` was told."""
    Settings().forget_where_it_listens()
    assert (Settings().gateway_port, Settings().controller_port) == (8080, 8090)


def test_a_torn_file_is_named(home: Path) -> None:
    """Whoever sees it knows which file, and what to do."""
    (home / "listening.json").write_text('{"gateway_port": 90')
    with pytest.raises(SetupError, match=r"(?s)listening\.json.*remove that file"):
        Settings()
