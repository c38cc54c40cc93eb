"""The compared tools, each with the settings that its documentation shows, and a link to them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.judge import ours
from benchmarks.judge.argo import ArgoRollout, Metric
from benchmarks.judge.asymptotic import BudgetRamp
from benchmarks.judge.count_tests import MixtureSprt, PeekedZTest
from benchmarks.judge.flagger import Analysis, FlaggerCanary
from benchmarks.judge.kayenta import KayentaStage
from benchmarks.judge.result import HORIZON_S, Result
from benchmarks.judge.timed_ramp import TimedRamp
from benchmarks.judge.tool import Tool
from benchmarks.judge.weather import failures, traffic_of
from rollout.signals.plan import Signals
from rollout.simulate.traffic import Scenario
from rollout.spec import RolloutSpec

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

_SPRT = (
    "[Lindon & Malek 2022](https://arxiv.org/abs/2011.03567), [Johari, Pekelis & Walsh]"
    "(https://arxiv.org/abs/1512.04922)"
)
_SEQUENCE = "[Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2021](https://arxiv.org/abs/2103.06476)"
_PEEKING = "[Johari, Koomen, Pekelis & Walsh 2017](https://doi.org/10.1145/3097983.3097992)"

SLOW_MS = 250  # if latency is simulated, slower answers are failures for tools with one metric
_RAMP = (1, 5, 25, 50)  # and then 100
_ERRORS_ONLY = Signals().only("errors")
_BASELINE = 2  # added to the seed of a release for the requests of Kayenta's baseline


@dataclass(frozen=True, slots=True)
class Contender:
    """One tool with its settings."""

    key: str
    title: str
    settings: str
    source: str  # where they are documented, as Markdown
    lead: Callable[[Scenario, Seed], Result]  # simulates a release from the canary's first request to its end

    @property
    def is_ours(self) -> bool:
        return self.key.startswith("kanaria")


def lead_tool(make: Callable[[Seed], Tool], scenario: Scenario, seed: Seed) -> Result:
    """Let a tool made by `make` release a canary."""
    tool, traffic, harmed = make(seed), traffic_of(scenario, seed), 0.0
    while traffic.elapsed_s < HORIZON_S:
        weight = tool.weight_percent / 100
        harmed += traffic.harmed(weight, scenario.window_s)
        stable, canary = failures(traffic.window(weight), SLOW_MS)
        outcome = tool.observe(traffic.elapsed_s, stable, canary)
        if outcome == "promoted":
            harmed += traffic.harmed(1.0, HORIZON_S - traffic.elapsed_s)
            return Result(outcome, None, traffic.elapsed_s, traffic.elapsed_s, harmed)
        if outcome:
            return Result(outcome, "analysis", traffic.elapsed_s, None, harmed)
    return Result("held", "undecided", HORIZON_S, None, harmed)


def _argo(success_at_least: float, failure_limit: int) -> Callable[[Scenario, Seed], Result]:
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


def _mixture_sprt(seed: Seed) -> Tool:  # noqa: ARG001 - nothing random in it
    return TimedRamp(MixtureSprt(), steps=_RAMP)


def _peeked_z_test(seed: Seed) -> Tool:  # noqa: ARG001 - nothing random in it
    return TimedRamp(PeekedZTest(), steps=_RAMP)


def _asymptotic(seed: Seed) -> Tool:  # noqa: ARG001 - nothing random in it
    return BudgetRamp(steps=_RAMP)


CONTENDERS = (
    Contender(
        "kanaria",
        "Kanaria",
        "The default `rollout.yaml`, with `errors` as the only signal: shadow, 1, 5, 25, 50, 100 %, each step by "
        "proof. Questions to a person stay unanswered.",
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
        "At least as slow as the others: `steps: [1, 5, 25, 50, 100]`, `soak: 5m`, `step_deadline: 1h`.",
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
        "The same with `result[0] >= 0.99`, which people choose when 95 % misses too much.",
        _ARGO,
        _argo(0.99, 3),
    ),
    Contender(
        "flagger",
        "Flagger",
        "The example that its documentation explains: `interval: 1m`, `threshold: 10`, `stepWeight: 2`, "
        "`maxWeight: 50`, `request-success-rate` of at least 99 % over 1 minute. A step takes one minute there, so "
        "its ramp takes 25 minutes.",
        _FLAGGER,
        partial(lead_tool, _flagger),
    ),
    Contender(
        "kayenta-ramp",
        "Kayenta, 5 s points",
        "A stage of 5 minutes at each of 1, 5, 25, 50 %, judged once on 60 points of 5 seconds (its guide asks for at "
        "least 50), then 100 %. Metric: error ratio in percent, `direction: increase`, `critical: true`, default "
        "effect sizes and NaN strategy; a baseline of the canary's size, as its guide asks; scores 75 and 95.",
        _KAYENTA,
        partial(lead_tool, _kayenta_ramp),
    ),
    Contender(
        "kayenta-guide",
        "Kayenta, 3 h",
        "The starting values of its guide: 3 hours, with an analysis every hour of all points of 1 minute so far. "
        "The guide names no weight; here it is 5 %.",
        _KAYENTA,
        partial(lead_tool, _kayenta_guide),
    ),
    Contender(
        "mixture-sprt",
        "Mixture SPRT",
        "1, 5, 25, 50 % for 5 minutes each, then 100 %. Rolled back when the mean likelihood ratio of the failures' "
        "split, over 40 rate ratios up to 100, reaches 100 (alpha 1 %). Looked at every 5 seconds.",
        _SPRT,
        partial(lead_tool, _mixture_sprt),
    ),
    Contender(
        "asymptotic",
        "Asymptotic sequence",
        "1, 5, 25, 50, 100 %, each step by Kanaria's budget rule: at least 60 seconds, and weight times the upper "
        "bound within 0.5 %. Rolled back when the lower bound of the excess is above 0. Each bound has alpha 1 %, and "
        "is tightest after 30,000 requests.",
        _SEQUENCE,
        partial(lead_tool, _asymptotic),
    ),
    Contender(
        "z-test",
        "Peeked z-test",
        "1, 5, 25, 50 % for 5 minutes each, then 100 %. Every minute a one-sided z-test of the error ratios of the "
        "step so far, once the canary has 5 failures; rolled back at p < 1 %.",
        _PEEKING,
        partial(lead_tool, _peeked_z_test),
    ),
)
IN_WEATHER = tuple(each for each in CONTENDERS if each.key == "kanaria" or not each.is_ours)
