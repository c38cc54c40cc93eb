"""Which programs are forked; how, is proven with real versions."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kanaria.stack import model_server
from kanaria.stack.forked_versions import ForkedVersions
from kanaria.stack.python import own_module
from kanaria.stack.supervision import Program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="versions are forked on Linux only")

COMMAND = own_module(model_server.MODULE, "m:v1")


@dataclass(frozen=True, slots=True)
class Later(Program):
    """A program of which more can be said than today."""

    seclusion: str | None = None


@pytest.fixture
def forked(tmp_path: Path) -> Iterator[ForkedVersions]:
    made = ForkedVersions(tmp_path)
    yield made
    made.close()


def test_a_confined_version_of_the_contract_is_forked(forked: ForkedVersions) -> None:
    """Its keeper waits for the server."""
    assert forked.is_preparing(Later("m@v1", COMMAND, is_confined=True), {})


@pytest.mark.parametrize(
    "program",
    [
        Later("m@v1", COMMAND),
        Later("m@v1", COMMAND, is_confined=True, seclusion="complete"),
        Later("m@v1", own_module("bentoml", "serve", "m:v1"), is_confined=True),
    ],
    ids=["gains rights", "more is said of it", "another server"],
)
def test_what_a_fork_would_not_be_is_started_by_itself(forked: ForkedVersions, program: Program) -> None:
    """No process is started for it here, and nothing that is to confine it is forgotten."""
    assert not forked.is_preparing(program, {})
    assert forked.fork(program, {}, 1, None) is None
