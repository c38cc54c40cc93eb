"""Fixtures of the unit tests; each module of the control loop's tests has its own `world`."""

import os
import sqlite3
import sys
from collections.abc import Iterator
from functools import partial
from itertools import count
from typing import ClassVar

import pytest
import structlog

from rollout.control import commands as c
from rollout.control.controller import Controller
from tests.support.world import World


class Watched(sqlite3.Connection):
    """A database connection that remembers which test opened it, until it is closed."""

    opened: ClassVar[dict[int, str]] = {}
    _numbers: ClassVar[Iterator[int]] = count()

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self._number = next(self._numbers)
        self.opened[self._number] = os.environ.get("PYTEST_CURRENT_TEST", "")

    def close(self) -> None:
        self.opened.pop(self._number, None)
        super().close()


@pytest.fixture(scope="session", autouse=True)
def every_database_is_closed() -> Iterator[None]:
    """From Python 3.13 on, a forgotten connection is an error in whichever test runs when it is collected."""
    if sys.version_info >= (3, 13):
        yield
        return
    connect = sqlite3.connect
    sqlite3.connect = partial(connect, factory=Watched)  # type: ignore[assignment]
    yield
    sqlite3.connect = connect
    assert not Watched.opened, sorted(Watched.opened.values())


@pytest.fixture(scope="session", autouse=True)
def plain_logs() -> None:
    """By default structlog prints a traceback with all variables of each frame, which takes a tenth of a second."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    )


@pytest.fixture(autouse=True)
def own_state_folder() -> Iterator[None]:
    """The `--home` of a command that ran in this process must not be the state folder of the next test."""
    before = os.environ.get("KANARIA_HOME")
    yield
    if before is None:
        os.environ.pop("KANARIA_HOME", None)
    else:
        os.environ["KANARIA_HOME"] = before


@pytest.fixture
def controller(world: World) -> Iterator[Controller]:
    """A controller that has had m:v1 as stable for a minute."""
    made = world.controller()
    made.execute(c.SetStable("m:v1", "ann"))
    world.live(made, 60)
    yield made
    made.close()
