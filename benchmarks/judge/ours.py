"""Kanaria in the benchmark: the real judge, decisions and steps, and the watch after promotion.

Questions to a person stay unanswered, so a release that waits for evidence waits until the end of the benchmark.
"""

from benchmarks.judge.result import HORIZON_S, Result
from benchmarks.judge.weather import traffic_of
from rollout.signals.plan import Signals
from rollout.simulate.release import simulate_release
from rollout.simulate.traffic import Scenario
from rollout.spec import RolloutSpec


def lead(spec: RolloutSpec, scenario: Scenario, seed: tuple[int, ...]) -> Result:
    """Release a canary by `spec`, and watch it if it was promoted.

    It judges errors, and latency if the scenario has it.
    """
    judged = ("errors", "latency") if scenario.stable.slow_ratios else ("errors",)
    spec = spec.model_copy(update={"signals": Signals().only(*judged)})
    traffic = traffic_of(scenario, seed)
    run = simulate_release(spec, scenario, seed, patience_s=HORIZON_S, traffic=traffic, until_s=HORIZON_S)
    if run.promoted_s is None or run.outcome == "rolled_back":
        return Result(run.outcome, run.signal, run.stopped_s, run.promoted_s, run.harmed)
    harmed = run.harmed + traffic.harmed(1.0, HORIZON_S - traffic.elapsed_s)
    return Result("promoted", None, run.promoted_s, run.promoted_s, harmed)
