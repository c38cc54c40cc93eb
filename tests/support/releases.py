"""Finished and running releases of a digits-like model, made by the real controller and judge in a simulated world."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rollout.control import commands as c
from rollout.control.controller import Controller
from rollout.explain.timeline import Timeline, timeline
from rollout.ledger.ledger import Ledger
from rollout.signals.options import LATENCY_BOUNDS_MS, Classes
from rollout.signals.plan import Signals
from rollout.spec import RiskBudget, RolloutSpec
from tests.support.world import Version, World

SPEC = RolloutSpec(
    steps=("shadow", 5, 25, 50, 100),
    soak=10,
    warmup=0,
    window=2,
    step_deadline=300,
    holdback=0,
    watch=20,
    risk_budget=0.02,
    signals=Signals({"class": Classes(on_fail="rollback")}),
)
LIVE = SPEC.model_copy(update={"steps": (5, 25, 50, 100)})  # no shadow step, so that harm reaches users
# The shadow step proves enough to leave it, and the rest is proven while the next step soaks: 70 s into the release,
# at 40 %, proof is missing.
UNPROVEN = SPEC.model_copy(update={"steps": ("shadow", 40, 100), "soak": 60.0, "risk_budget": RiskBudget(share=0.003)})
UNPROVEN_S = 70.0
EVEN = (0.1,) * 10
NO_SEVENS = (0.11, 0.13, 0.1, 0.1, 0.11, 0.1, 0.1, 0.02, 0.13, 0.1)  # shares when most of the 7s are read as 1 or 8


@dataclass
class DigitsVersion(Version):
    """Ten classes, answers with a lognormal latency, and labels for some of them."""

    classes: tuple[float, ...] = EVEN
    median_ms: float = 11.0
    wrong_ratio: float = 0.04


@dataclass
class DigitsWorld(World):
    """v1 is stable; each test adds the rest."""

    def _serve(self, tag: str, requests: int) -> None:
        super()._serve(tag, requests)
        version = self.versions[tag]
        if isinstance(version, DigitsVersion):
            labelled = int(self.rng.binomial(requests, 0.1))
            self._count(tag, "wrong_label", int(self.rng.binomial(labelled, version.wrong_ratio)), labelled)

    def _slow(self, version: Version, requests: int) -> dict[int, int]:
        median_ms = version.median_ms if isinstance(version, DigitsVersion) else 10.0
        took_ms = self.rng.lognormal(np.log(median_ms), 0.45, requests)
        return {bound: int((took_ms > bound).sum()) for bound in LATENCY_BOUNDS_MS}


def digits_world(path: Path, **canary: object) -> tuple[DigitsWorld, Controller]:
    """A deployment with v1 stable for two minutes, and v2 with the fields of `canary`."""
    stable = DigitsVersion(error_ratio=0.001)
    world = DigitsWorld(path, versions={"digits:v1": stable, "digits:v2": DigitsVersion()}, rps=120.0)
    world.edit("digits:v2", **canary)
    controller = world.controller()
    controller.execute(c.SetStable("digits:v1", "ann"))
    world.live(controller, 120)
    return world, controller


def finished(path: Path, spec: RolloutSpec = SPEC, **canary: object) -> Timeline:
    """v2's release after its end."""
    world, controller = digits_world(path, **canary)
    controller.execute(c.StartRelease("digits:v2", spec, "ann"))
    world.live_until_ended(controller)
    controller.close()
    return newest(path)


def turned_wrong(path: Path) -> Timeline:
    """v2's release, in which v2 stops predicting sevens after its shadow step."""
    world, controller = digits_world(path)
    controller.execute(c.StartRelease("digits:v2", SPEC, "ann"))
    world.live(controller, 15)
    world.edit("digits:v2", classes=NO_SEVENS)
    world.live_until_ended(controller)
    controller.close()
    return newest(path)


def harmed_after_promotion(path: Path) -> Timeline:
    """v2's release: it is promoted, and 100 seconds later 6 % of its requests start to fail."""
    world, controller = digits_world(path)
    controller.execute(c.StartRelease("digits:v2", LIVE.model_copy(update={"watch": 300.0}), "ann"))
    while controller.snapshot.deployment.stable != "digits:v2":
        world.live(controller, 1)
    world.live(controller, 100)
    world.edit("digits:v2", error_ratio=0.06)
    world.live_until_ended(controller)
    controller.close()
    return newest(path)


def newest(path: Path, number: int = 1) -> Timeline:
    """A release, read from the ledger."""
    ledger = Ledger(path, read_only=True)
    try:
        return timeline(ledger.of_release(number))
    finally:
        ledger.close()
