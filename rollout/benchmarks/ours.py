"""Kanaria in the benchmark: the real judge, decisions and steps, and the watch after promotion. Called by `contenders`.

`simulation.release` leads the release to the end of its watch; what follows it is here. Nobody answers when a person is
asked, so a release that waits for evidence waits for as long as the benchmark lasts.
"""

from rollout.benchmarks.finish import HORIZON_S, Finish, harmed_at
from rollout.simulation.release import simulate_release
from rollout.simulation.traffic import Scenario
from rollout.spec import RolloutSpec


def lead(spec: RolloutSpec, scenario: Scenario, seed: tuple[int, ...]) -> Finish:
    """Release a canary by `spec`, and watch it if it was promoted."""
    run = simulate_release(spec, scenario, seed, patience_s=HORIZON_S)
    if run.promoted_s is None or run.outcome == "rolled_back":
        return Finish(run.outcome, run.signal, run.stopped_s, run.promoted_s, run.harmed)
    harmed = run.harmed + harmed_at(scenario, 1.0, run.promoted_s + spec.watch, HORIZON_S)
    return Finish("promoted", None, run.promoted_s, run.promoted_s, harmed)
