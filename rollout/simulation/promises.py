"""What the judge promises, each with the simulation that shows whether it holds.

Called by `bars`. 20 requests a second, 2 of them to the canary, unless a row says otherwise.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from rollout.judge import DEFAULT_RULES, JudgeConfig, SignalRule
from rollout.judge.kernels import rare
from rollout.simulation.parallel import Workers
from rollout.simulation.release import Run, Seed, simulate_release
from rollout.simulation.summary import Proportion, Quantile, proportion, quantile
from rollout.simulation.traffic import Behaviour, Scenario, Traffic
from rollout.simulation.trial import Trial, failed_after_s
from rollout.simulation.weather import Noise
from rollout.spec import RolloutSpec, Signals
from rollout.wording import share

_SEED = 2718
_HOUR_S = 3600.0
_RAMP = tuple((weight, _HOUR_S / 4) for weight in (0.01, 0.05, 0.25, 0.5))
_TENTH = ((0.1, 2 * _HOUR_S),)
_ERRORS = JudgeConfig(rules={"errors": DEFAULT_RULES["errors"]})
_PLAIN = JudgeConfig(  # no tolerance, no cap, harm from the first window: the textbook test
    window_cap=1e9,
    horizon_windows=1,
    rules={"errors": SignalRule(kernel="rare", weight=1, tolerance=1, margin=0)},
)
_ERRORS_ONLY = Signals(latency=None, predictions=None, low_confidence=None, labels=None)
_TEN_CLASSES = (0.1,) * 10
_STEPS = (1, 5, 25, 50, 100)


@dataclass(frozen=True, slots=True)
class Row:
    """One promise and what became of it."""

    what: str
    promised: str
    measured: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Study:
    """Where and how large to simulate."""

    workers: Workers
    scale: float = 1.0  # multiplies every number of releases

    def fails(self, trial: Trial, releases: int) -> list[float]:
        """Time to FAIL of each release, seconds; inf for never."""
        return list(self.workers.each(partial(failed_after_s, trial), self.seeds(releases)))

    def runs(self, spec: RolloutSpec, scenario: Scenario, releases: int) -> list[Run]:
        """Whole releases."""
        return list(self.workers.each(partial(simulate_release, spec, scenario), self.seeds(releases)))

    def seeds(self, releases: int) -> list[Seed]:
        return [(_SEED, number) for number in range(max(10, round(self.scale * releases)))]


# ---- a harmless canary


def false_rollbacks(study: Study) -> Iterator[Row]:
    """Judged at every window for an hour, at 1, 5, 25 and 50 % for a quarter of it each."""
    drift = Noise(drift=5, shared_icc=0.05)
    cases = (
        ("errors 1 %, independent requests", 20, Noise(), False, 0.003),
        ("errors drift between 0.2 and 5 %, bursts hit both versions (ICC 0.05)", 20, drift, False, 0.003),
        ("the same, phi measured", 20, drift, True, 0.003),
        ("errors 1 %, own bursts (ICC 0.05, 5 s), phi measured", 20, Noise(own_icc=0.05), True, 0.01),
        ("own bursts (ICC 0.05, 30 s), phi measured", 20, Noise(own_icc=0.05, burst_s=30), True, 0.01),
        ("own bursts (ICC 0.05, 5 s) at 100 requests a second, phi measured", 100, Noise(own_icc=0.05), True, 0.01),
        ("own retries (clusters of 2), phi measured", 20, Noise(retries=2), True, 0.01),
        ("own retries (clusters of 4), phi measured", 20, Noise(retries=4), True, 0.01),
        ("own retries (clusters of 4) at 100 requests a second, phi measured", 100, Noise(retries=4), True, 0.01),
        (
            "all at once: drift, shared bursts, own bursts (ICC 0.01), retries (clusters of 2), phi measured",
            20,
            replace(drift, own_icc=0.01, retries=2),
            True,
            0.01,
        ),
    )
    for what, rps, noise, is_calibrated, bar in cases:
        harmless = Behaviour(error_ratio=0.01)
        trial = Trial(Scenario(rps, harmless, harmless, noise=noise), _RAMP, _ERRORS, is_calibrated)
        failed = proportion([math.isfinite(at_s) for at_s in study.fails(trial, 2000)])
        yield Row(what, f"at most {share(bar)} rolled back", _counted(failed), failed.ratio <= bar)
    noise = replace(drift, own_icc=0.01, retries=2)
    whole = study.runs(RolloutSpec(), _whole(20, 0.01, noise), 400)
    accused = proportion([run.outcome != "promoted" and run.signal != "deadline" for run in whole])
    what = "whole releases with the default plan and all its signals, all noise at once, phi measured"
    yield Row(what, "at most 1 % rolled back as harmful", _counted(accused), accused.ratio <= 0.01)


# ---- harm is found


def detection(study: Study) -> Iterator[Row]:
    """Seconds from the first harmful request to FAIL."""
    for base, bad, median_s, p90_s in ((0.01, 0.05, 130, 260), (0.01, 0.1, 45, 80), (0.01, 0.5, 15, 15)):
        found = study.fails(Trial(_errors(base, bad), _TENTH, _ERRORS), 1000)
        median, p90 = quantile(found, 0.5), quantile(found, 0.9)
        yield Row(
            f"errors {share(base)} on stable, {share(bad)} on canary",
            f"median {median_s} s, p90 {p90_s} s",
            f"{_timed(median)}, p90 {_timed(p90)}",
            median.value <= median_s and p90.value <= p90_s,
        )
    for bad, median_s in ((0.05, 208), (0.1, 75), (0.5, 25)):
        late = replace(_errors(0.01, bad), harm_after_s=1800.0)
        median = quantile(study.fails(Trial(late, _TENTH, _ERRORS), 600), 0.5)
        yield Row(
            f"the same after 30 healthy minutes, errors from 1 to {share(bad)}",
            f"median {median_s} s",
            _timed(median),
            median.value <= median_s,
        )
    for base, bad in ((0.01, 0.02), (0.01, 0.05), (0.001, 0.01), (0.05, 0.1)):
        scenario = _errors(base, bad)
        limit_s = _wald_s(scenario)
        median = quantile(study.fails(Trial(scenario, _TENTH, _PLAIN), 1000), 0.5)
        yield Row(
            f"plain test, no tolerance, no cap: errors {share(base)} against {share(bad)}",
            f"median at most 1.25 of Wald's limit of {limit_s:.0f} s",
            f"{median.value / limit_s:.2f} ({median.low / limit_s:.2f} to {median.high / limit_s:.2f})",
            median.value <= 1.25 * limit_s,
        )


# ---- harm stays small


def harm(study: Study) -> Iterator[Row]:
    """Whole releases; the risk budget is 0.5 %. Twice the budget: 1 % of the canary's requests harmed."""
    patient = RolloutSpec(steps=_STEPS, step_deadline=_HOUR_S, on_deadline="hold", signals=_ERRORS_ONLY)
    auto = patient.model_copy(update={"steps": "auto"})
    cases = (
        ("errors 0.2 + 1 %, the default plan", RolloutSpec(), _whole(20, 0.002, added=0.01)),
        ("errors 0.2 + 1 %, an hour for each step", patient, _errors(0.002, 0.012)),
        ("errors 0.2 + 1 %, automatic steps, an hour each", auto, _errors(0.002, 0.012)),
        ("errors 1 + 1 %, an hour for each step", patient, _errors(0.01, 0.02)),
        ("errors 0.2 + 1 % at 100 requests a second", patient, replace(_errors(0.002, 0.012), rps=100)),
    )
    for what, spec, scenario in cases:
        runs = study.runs(spec, scenario, 1000)
        promoted = proportion([run.outcome == "promoted" for run in runs])
        harmed = fmean(run.harmed for run in runs) / fmean(run.requests for run in runs)
        yield Row(
            what,
            "at most 1 % promoted, less than 0.5 % of all requests harmed",
            f"{_counted(promoted)}, {share(harmed)} harmed ({fmean(run.harmed for run in runs):.0f} requests)",
            promoted.ratio <= 0.01 and harmed < 0.005,
        )


# ---- the good arrive


_ARRIVALS = (  # requests a second, error ratio; median and p90 s with fixed steps, the same with automatic ones
    (5, 0.001, (2880, 4038), (1718, 2476)),
    (20, 0.0, (665, 720), (375, 410)),
    (20, 0.001, (732, 1016), (440, 626)),
    (20, 0.01, (1910, 3070), (1258, 2220)),
    (100, 0.0, (140, 150), (95, 100)),
    (100, 0.001, (155, 215), (110, 140)),
    (100, 0.01, (388, 621), (280, 480)),
    (1000, 0.001, (40, 40), (70, 70)),
)


def arrivals(study: Study) -> Iterator[Row]:
    """A harmless canary, judged by its errors: seconds until it has all the traffic; each step soaks for 10 s."""
    for rps, base, *promised in _ARRIVALS:
        for steps, (median_s, p90_s) in zip((_STEPS, "auto"), promised, strict=True):
            spec = RolloutSpec(steps=steps, step_deadline=24 * _HOUR_S, signals=_ERRORS_ONLY)
            runs = study.runs(spec, replace(_errors(base, base), rps=rps), 200)
            took = [math.inf if run.full_s is None else run.full_s for run in runs]
            median, p90 = quantile(took, 0.5), quantile(took, 0.9)
            yield Row(
                f"harmless, {rps} requests a second, errors {share(base)}, "
                + ("automatic steps" if steps == "auto" else "steps 1, 5, 25, 50, 100"),
                f"all traffic after {median_s} s, p90 {p90_s} s",
                f"{_timed(median)}, p90 {_timed(p90)}",
                median.value <= median_s and p90.value <= p90_s,
            )


# ---- models that differ


def models(study: Study) -> Iterator[Row]:
    """Latency and predicted classes, each judged alone."""
    better = [not math.isfinite(at_s) for at_s in study.workers.each(_better_model_failed_s, study.seeds(500))]
    failed = proportion([not is_fine for is_fine in better])
    yield Row(
        "a better model (accuracy 95 to 97 %, other confusions each time, half of the runs with skewed classes), 30 min",
        "0 of 500 failed",
        _counted(failed),
        failed.count == 0,
    )
    bounds = (25, 50, 100, 250)
    quick = tuple((bound, _slower(bound, 80.0, 0.5)) for bound in bounds)
    hit = tuple((bound, ratio + 0.05 * (1 - ratio)) for bound, ratio in quick)
    for what, median_s, family, stable, canary in (
        (
            "500 ms more on 5 % of the requests (log-normal latency, median 80 ms)",
            60,
            "latency",
            Behaviour(slow_ratios=quick),
            Behaviour(slow_ratios=hit),
        ),
        (
            "a class of 10 % becomes 40 % of the predictions",
            40,
            "class",
            Behaviour(class_shares=_TEN_CLASSES),
            Behaviour(class_shares=(0.4, *(0.6 / 9,) * 9)),
        ),
    ):
        config = JudgeConfig(rules={family: DEFAULT_RULES[family]})
        median = quantile(study.fails(Trial(Scenario(20, stable, canary), _TENTH, config), 400), 0.5)
        yield Row(what, f"found in {median_s} s at the median", _timed(median), median.value <= median_s)


def _better_model_failed_s(seed: Seed) -> float:
    """Time to FAIL of a canary that is right more often, and wrong in other ways."""
    rng = np.random.default_rng(seed)
    truth = np.full(10, 0.1) if rng.random() < 0.5 else (1 / np.arange(1, 11)) / (1 / np.arange(1, 11)).sum()
    stable, canary = (Behaviour(class_shares=_predicted(rng, truth, accuracy)) for accuracy in (0.95, 0.97))
    config = JudgeConfig(rules={"class": DEFAULT_RULES["class"]})
    return failed_after_s(Trial(Scenario(20, stable, canary), ((0.1, 1800.0),), config), seed)


def _predicted(rng: np.random.Generator, truth: NDArray[np.float64], accuracy: float) -> tuple[float, ...]:
    """Class shares of a model that takes each class for others at random."""
    taken_for = rng.dirichlet(np.ones(len(truth) - 1), len(truth))
    confusion = np.stack([np.insert((1 - accuracy) * row, label, accuracy) for label, row in enumerate(taken_for)])
    return tuple((truth @ confusion).tolist())


CHAPTERS: dict[str, tuple[str, Callable[[Study], Iterator[Row]]]] = {
    "false-rollbacks": ("A harmless canary is not rolled back", false_rollbacks),
    "detection": ("Harm is found soon", detection),
    "harm": ("Harm stays small", harm),
    "arrivals": ("A harmless canary arrives", arrivals),
    "models": ("Models may differ, answers may not be late", models),
}


# ---- words and scenarios


def _errors(base: float, bad: float) -> Scenario:
    return Scenario(20, Behaviour(error_ratio=base), Behaviour(error_ratio=bad))


def _whole(rps: float, base: float, noise: Noise = Noise(), *, added: float = 0.0) -> Scenario:  # noqa: B008 - frozen
    """All signals of the default plan; the canary has `added` more errors."""
    slow = tuple((bound, _slower(bound, 20.0, 0.7)) for bound in (25, 50, 100, 250))
    stable = Behaviour(base, slow, _TEN_CLASSES, low_confidence_ratio=0.02)
    return Scenario(rps, stable, replace(stable, error_ratio=base + added), noise=noise)


def _slower(bound_ms: float, median_ms: float, sigma: float) -> float:
    """Share of log-normal latencies above a bound."""
    return math.erfc(math.log(bound_ms / median_ms) / (sigma * math.sqrt(2))) / 2


def _wald_s(scenario: Scenario) -> float:
    """Expected time of the test that knows the harm: log(1/alpha) over its mean log e-value. Source: Wald 1945."""
    stable, canary = scenario.stable.error_ratio, scenario.canary.error_ratio
    odds_ratio = canary / (1 - canary) / (stable / (1 - stable))
    traffic, windows = Traffic(scenario, (_SEED,)), 20_000
    gained = 0.0
    for _ in range(windows):
        (window,) = traffic.window(_TENTH[0][0])
        gained += rare(window.stable, window.canary, odds_ratios=(odds_ratio,))[0]
    return scenario.window_s * -math.log(_PLAIN.alpha) * windows / gained


def _counted(found: Proportion) -> str:
    return f"{found.count:,} of {found.of:,}, {share(found.ratio)} (95 % sure: under {share(found.high)})"


def _timed(found: Quantile) -> str:
    return f"{found.value:.0f} s ({found.low:.0f} to {found.high:.0f})"
