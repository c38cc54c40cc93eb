"""By which host names the controller of a stack may be read."""

import socket
from pathlib import Path

import pytest

from kanaria.settings import Settings
from kanaria.stack.controller_process import own_names


def test_the_controller_accepts_only_the_names_that_its_owner_gave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine in the network could point any other name, such as Docker's, to 127.0.0.1."""
    monkeypatch.setenv("KANARIA_HOME", str(tmp_path))
    monkeypatch.delenv("KANARIA_PAGE_URL", raising=False)
    assert own_names(Settings()) == {socket.gethostname()}
    monkeypatch.setenv("KANARIA_PAGE_URL", "http://host.docker.internal:8090")
    assert own_names(Settings()) == {socket.gethostname(), "host.docker.internal"}
