"""A release in a separate process whose wall clock a test sets: `python -m tests.support.faked_clock LEDGER BEGUN GO`.

Everything around the controller is simulated, but time is real, as libfaketime shows it. The process writes the file
BEGUN when the canary has 25 % of the traffic. When the file GO appears, the canary turns bad. It prints the outcome.
"""

import select
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rollout.control import commands as c
from rollout.control.clock import system_clock
from rollout.control.controller import Controller
from rollout.control.metrics import ControllerMetrics
from rollout.fleet import Backend
from rollout.ledger.ledger import Ledger
from rollout.signals.counters import Reading
from rollout.signals.custom import OwnCounter
from rollout.spec import RolloutSpec
from tests.support.world import Version, World

SPEC = RolloutSpec(steps=(25, 100), soak=600, window=0.5, step_deadline=3000, holdback=0, watch=2, risk_budget=0.05)


class RealTime(World):
    """Its counters are as old as this process's clock says."""

    def read(
        self, backends: tuple[Backend, ...], *, mirrored: str | None = None, own: Sequence[OwnCounter] = ()
    ) -> Reading:
        return replace(super().read(backends, mirrored=mirrored, own=own), at_s=time.time())


def main(path: Path, begun: Path, go: Path) -> None:
    """Run until the release is over."""
    world = RealTime(path, versions={"m:v1": Version(start_s=0), "m:v2": Version(start_s=0)}, rps=400.0)
    controller = Controller(
        open_ledger=lambda: Ledger(path),
        router=world.router,
        source=world,
        failures=world.failures,
        fleet=world,
        metrics=ControllerMetrics(),
        clock=system_clock,
    )
    controller.recover()
    controller.execute(c.SetStable("m:v1", "ann"))
    last_s = time.monotonic()
    while True:
        now_s = time.monotonic()
        world.pass_time(now_s - last_s)
        last_s = now_s
        controller.beat()
        release = controller.snapshot.deployment.release
        if release is None and world.router.history:
            controller.execute(c.StartRelease("m:v2", SPEC, "ann"))
        elif release and release.outcome:
            print(release.outcome)
            return
        elif release and release.seen_s > 1 and not begun.exists():
            begun.touch()
        if go.exists():
            world.versions["m:v2"].error_ratio = 0.4
        select.select([], [], [], 0.05)  # `time.sleep` fails under libfaketime: EINVAL for its absolute time


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
