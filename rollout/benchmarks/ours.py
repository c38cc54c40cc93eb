"""Kanaria in the benchmark: the real judge, decisions and steps, and the watch after promotion.

Called by `contenders`. `simulation.release` leads the release to its end; what follows it is here.
"""

from collections import deque

from rollout.benchmarks.finish import HORIZON_S, Finish, harmed_at
from rollout.controller import RECENT_S
from rollout.decide import EndWatch, Facts, Rollback, decide
from rollout.interfaces import Health
from rollout.judge import Pair, Window
from rollout.simulation.release import simulate_release
from rollout.simulation.traffic import Scenario, Traffic
from rollout.spec import RolloutSpec
from rollout.state import Phase, Release

_WATCH = 1  # added to the seed of a release for the traffic of its watch


def lead(spec: RolloutSpec, scenario: Scenario, seed: tuple[int, ...]) -> Finish:
    """Release a canary by `spec`, and watch it if it was promoted."""
    run = simulate_release(spec, scenario, seed)
    if run.outcome != "promoted":
        return Finish(run.outcome, run.signal, run.stopped_s, None, run.harmed)
    rolled_back_s = _watch(spec, scenario, (*seed, _WATCH), run.stopped_s)
    end_s = HORIZON_S if rolled_back_s is None else rolled_back_s
    harmed = run.harmed + harmed_at(scenario, 1.0, run.stopped_s, end_s)
    if rolled_back_s is None:
        return Finish("promoted", None, run.stopped_s, run.stopped_s, harmed)
    return Finish("rolled_back", "guard", rolled_back_s, run.stopped_s, harmed)


def _watch(spec: RolloutSpec, scenario: Scenario, seed: tuple[int, ...], promoted_s: float) -> float | None:
    """When the watch rolled the release back, seconds since the canary's first request; None: it did not."""
    traffic = Traffic(scenario, seed)
    traffic.skip(promoted_s)
    release = Release(
        number=1,
        canary="model:canary",
        stable="model:stable",
        spec=spec,
        requested_s=traffic.now_s,
        by="benchmark",
        phase=Phase.WATCHING,
        weight_percent=100,
        phase_since_s=traffic.now_s,
    )
    recent: deque[Window] = deque()
    while True:
        recent.extend(window for window in traffic.window(1.0) if window.signal == "errors")
        while recent and recent[0].end_s < traffic.now_s - RECENT_S:
            recent.popleft()
        match decide(release, _facts(traffic.now_s, recent), None):
            case Rollback():
                return traffic.elapsed_s
            case EndWatch():
                return None


def _facts(now_s: float, recent: deque[Window]) -> Facts:
    return Facts(
        now_s=now_s,
        canary=Health.READY,
        stable=Health.READY,
        has_crashed=False,
        canary_unready_s=0.0,
        detail="",
        is_measured=True,
        recent_canary=sum((window.canary for window in recent), Pair(0, 0)),
        recent_stable=Pair(0, 0),
    )
