"""Who takes part: each tool with the settings that its documentation shows, and where these stand.

Called by `race` and `page`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from rollout.benchmarks import ours
from rollout.benchmarks.argo import ArgoRollout, Metric
from rollout.benchmarks.finish import HORIZON_S, Finish, harmed_at
from rollout.benchmarks.flagger import Analysis, FlaggerCanary
from rollout.benchmarks.kayenta import KayentaStage
from rollout.benchmarks.tool import Tool
from rollout.judge import Pair
from rollout.simulation.traffic import Scenario, Traffic
from rollout.spec import RolloutSpec, Signals

Seed = tuple[int, ...]

_OURS = "[rollout.yaml](../rollout-yaml.md)"
_ARGO = (
    "[analysis](https://github.com/argoproj/argo-rollouts/blob/9f8d111d8f8e3e88b6d7f8bbdf62fd3cd863ef9d/docs/features/"
    "analysis.md), v1.10.0-rc1-70-g9f8d111"
)
_FLAGGER = (
    "[deployment strategies](https://github.com/fluxcd/flagger/blob/v1.44.0/docs/gitbook/usage/"
    "deployment-strategies.md), [metrics](https://github.com/fluxcd/flagger/blob/v1.44.0/docs/gitbook/usage/metrics.md)"
    ", v1.44.0"
)
_KAYENTA = (
    "[judgment](https://spinnaker.io/docs/guides/user/canary/judge/), [best practices]"
    "(https://spinnaker.io/docs/guides/user/canary/best-practices/), [the judge]"
    "(https://github.com/spinnaker/kayenta/blob/v2.46.0/kayenta-judge/src/main/scala/com/netflix/kayenta/judge/"
    "NetflixACAJudge.scala), v2.46.0"
)

_RAMP = (1, 5, 25, 50)  # and then 100
_ERRORS_ONLY = Signals(latency=None, predictions=None, low_confidence=None, labels=None, disagreement=None)
_BASELINE = 2  # added to the seed of a release for the requests of Kayenta's baseline


@dataclass(frozen=True, slots=True)
class Contender:
    """One tool with its settings. `lead` takes a release from the canary's first request to its end."""

    key: str
    title: str
    settings: str
    source: str  # where these stand, as Markdown
    lead: Callable[[Scenario, Seed], Finish]

    @property
    def is_ours(self) -> bool:
        return self.key.startswith("kanaria")


def lead_tool(make: Callable[[Seed], Tool], scenario: Scenario, seed: Seed) -> Finish:
    """Let a tool made by `make` release a canary."""
    tool, traffic, harmed = make(seed), Traffic(scenario, seed), 0.0
    while traffic.elapsed_s < HORIZON_S:
        start_s, weight = traffic.elapsed_s, tool.weight_percent / 100
        errors = next((window for window in traffic.window(weight) if window.signal == "errors"), None)
        harmed += harmed_at(scenario, weight, start_s, traffic.elapsed_s)
        stable, canary = (errors.stable, errors.canary) if errors else (Pair(0, 0), Pair(0, 0))
        outcome = tool.observe(traffic.elapsed_s, stable, canary)
        if outcome == "promoted":
            harmed += harmed_at(scenario, 1.0, traffic.elapsed_s, HORIZON_S)
            return Finish(outcome, None, traffic.elapsed_s, traffic.elapsed_s, harmed)
        if outcome:
            return Finish(outcome, "analysis", traffic.elapsed_s, None, harmed)
    return Finish("held", "undecided", HORIZON_S, None, harmed)


def _argo(success_at_least: float, failure_limit: int) -> Callable[[Scenario, Seed], Finish]:
    metric = Metric(success_at_least=success_at_least, failure_limit=failure_limit)
    return partial(lead_tool, partial(_argo_rollout, metric))


def _argo_rollout(metric: Metric, seed: Seed) -> Tool:  # noqa: ARG001 - nothing random in it
    return ArgoRollout(metric, steps=_RAMP)


def _flagger(seed: Seed) -> Tool:  # noqa: ARG001 - nothing random in it
    return FlaggerCanary(Analysis())


def _kayenta_ramp(seed: Seed) -> Tool:
    return KayentaStage((*seed, _BASELINE), steps=_RAMP, point_s=5.0, points_per_run=60, runs=1)


def _kayenta_guide(seed: Seed) -> Tool:
    return KayentaStage((*seed, _BASELINE), steps=(5,), point_s=60.0, points_per_run=60, runs=3)


CONTENDERS = (
    Contender(
        "kanaria",
        "Kanaria",
        "The default `rollout.yaml`, with `errors` as the only signal: shadow, 1, 5, 25, 50, 100 %, each step by "
        "proof. A person who is asked does not answer.",
        _OURS,
        partial(ours.lead, RolloutSpec(signals=_ERRORS_ONLY)),
    ),
    Contender(
        "kanaria-live",
        "Kanaria, no shadow",
        "The same without the shadow step, so that it sees what the others see: `steps: [1, 5, 25, 50, 100]`.",
        _OURS,
        partial(ours.lead, RolloutSpec(steps=(*_RAMP, 100), signals=_ERRORS_ONLY)),
    ),
    Contender(
        "kanaria-unhurried",
        "Kanaria, unhurried",
        "As slow as the others at least: `steps: [1, 5, 25, 50, 100]`, `soak: 5m`, `step_deadline: 1h`.",
        _OURS,
        partial(ours.lead, RolloutSpec(steps=(*_RAMP, 100), soak=300.0, step_deadline=3600.0, signals=_ERRORS_ONLY)),
    ),
    Contender(
        "argo-95-0",
        "Argo 95 %, limit 0",
        "`setWeight` 1, 5, 25, 50 with `pause: 5m` each, then 100 %. In the background `successCondition: result[0] >= "
        "0.95` (the threshold of most examples in its documentation), `interval: 1m` over the last minute, "
        "`initialDelay: 1m`, `failureLimit: 0` (its default).",
        _ARGO,
        _argo(0.95, 0),
    ),
    Contender(
        "argo-95-3", "Argo 95 %, limit 3", "The same with `failureLimit: 3`, as in its examples.", _ARGO, _argo(0.95, 3)
    ),
    Contender(
        "argo-99-3",
        "Argo 99 %, limit 3",
        "The same with `result[0] >= 0.99`: what people do when 95 % misses too much.",
        _ARGO,
        _argo(0.99, 3),
    ),
    Contender(
        "flagger",
        "Flagger",
        "The example that its documentation explains: `interval: 1m`, `threshold: 10`, `stepWeight: 2`, "
        "`maxWeight: 50`, `request-success-rate` of at least 99 % over 1 minute. One step takes one minute there, so "
        "the ramp of 25 minutes is its own.",
        _FLAGGER,
        partial(lead_tool, _flagger),
    ),
    Contender(
        "kayenta-ramp",
        "Kayenta, 5 s points",
        "A stage of 5 minutes at each of 1, 5, 25, 50 %, judged once on 60 points of 5 seconds (its guide asks for at "
        "least 50), then 100 %. Metric: error ratio in percent, `direction: increase`, `critical: true`, effect sizes "
        "and NaN strategy as they come; a baseline of the canary's size, as its guide asks; scores 75 and 95.",
        _KAYENTA,
        partial(lead_tool, _kayenta_ramp),
    ),
    Contender(
        "kayenta-guide",
        "Kayenta, 3 h",
        "The values to start with of its guide: 3 hours, an analysis every hour over all points of 1 minute so far. "
        "The guide names no weight; here 5 %.",
        _KAYENTA,
        partial(lead_tool, _kayenta_guide),
    ),
)
