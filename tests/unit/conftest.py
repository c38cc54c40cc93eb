"""Fixtures for tests of the control loop, each in the `world` of its own module."""

from collections.abc import Iterator

import pytest

from rollout import commands as c
from rollout.controller import Controller
from tests.world import World


@pytest.fixture
def controller(world: World) -> Iterator[Controller]:
    """It has had m:v1 as stable for a minute."""
    made = world.controller()
    made.execute(c.SetStable("m:v1", "ann"))
    world.live(made, 60)
    yield made
    made.close()
