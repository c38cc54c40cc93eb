"""What the judge promises: each promise with the simulation that shows whether it is kept.

20 requests a second, 2 of them to the canary, unless a row says otherwise.
"""

import math
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.proofs.trial import Trial, failed_after_s, textbook_failed_after_s
from rollout.control.calibration import HISTORY_S
from rollout.format import share
from rollout.judge import JudgeConfig, Pair, Window
from rollout.judge.fail import Stream
from rollout.judge.judge import Judge
from rollout.judge.kernels import rare
from rollout.signals.catalogue import catalogue
from rollout.signals.options import Latency
from rollout.signals.plan import Signals
from rollout.simulate.noise import Noise
from rollout.simulate.parallel import Workers
from rollout.simulate.release import Run, Seed, simulate_release
from rollout.simulate.summary import Proportion, Quantile, proportion, quantile
from rollout.simulate.traffic import Behaviour, Scenario, Traffic
from rollout.spec import RolloutSpec

_SEED = 2718
_HOUR_S = 3600.0
_RAMP = tuple((weight, _HOUR_S / 4) for weight in (0.01, 0.05, 0.25, 0.5))
_TENTH = ((0.1, 2 * _HOUR_S),)
_STEPS = (1, 5, 25, 50, 100)
_ERRORS = replace(  # as in the default plan; only FAIL is needed, so the costly bound is left out
    RolloutSpec().judge_config(), rules={"errors": replace(catalogue().rules["errors"], budgeted=False)}
)
_ERRORS_ONLY = Signals().only("errors")
_SHORT = RolloutSpec(soak=10.0, warmup=0.0, holdback=0.0)  # so that evidence decides, not time
_TEN_CLASSES = (0.1,) * 10
_TICK_MS = 20.0
_STATE_BYTES = 100 * 1024

Status = Literal["kept", "within error", "broken", "for comparison"]


@dataclass(frozen=True, slots=True)
class Row:
    """One promise, and whether it is kept."""

    what: str
    promised: str
    measured: str
    status: Status


@dataclass(frozen=True, slots=True)
class Study:
    """The processes to simulate with, and the number of releases."""

    workers: Workers
    scale: float = 1.0  # factor on every number of releases

    def fails(self, trial: Trial, releases: int) -> list[float]:
        """Time to FAIL of each release, seconds; inf for never."""
        return self.times(failed_after_s, trial, releases)

    def times(self, test: Callable[[Trial, Seed], float], trial: Trial, releases: int) -> list[float]:
        """Time at which `test` fails each release, seconds; inf for never."""
        return list(self.workers.each(partial(test, trial), self.seeds(releases)))

    def runs(self, spec: RolloutSpec, scenario: Scenario, releases: int, *, history_s: float = HISTORY_S) -> list[Run]:
        """Whole releases."""
        task = partial(simulate_release, spec, scenario, history_s=history_s)
        return list(self.workers.each(task, self.seeds(releases)))

    def seeds(self, releases: int) -> list[Seed]:
        return [(_SEED, number) for number in range(max(10, round(self.scale * releases)))]


def false_rollbacks(study: Study) -> Iterator[Row]:
    """A harmless canary is judged at every window for an hour: 15 minutes each at 1, 5, 25 and 50 %.

    With so many errors and so few requests many of the whole releases end with a question to a person. The others are
    promoted, and the watch after promotion counts as well.
    """
    drift, own, retries = Noise(drift=5, shared_icc=0.05), Noise(own_icc=0.05), Noise(retries=4)
    everything = replace(drift, own_icc=0.01, retries=2)
    cases = (
        ("errors 1 %, independent requests", 20, Noise(), 0.003),
        ("errors drift between 0.2 and 5 %, bursts hit both versions (ICC 0.05)", 20, drift, 0.003),
        ("bursts of each version's own (ICC 0.05, 30 s), phi measured", 20, replace(own, burst_s=30), 0.01),
        ("bursts of each version's own (ICC 0.05, 5 s) at 100 requests a second, phi measured", 100, own, 0.01),
        ("retries (clusters of 4), phi measured", 20, retries, 0.01),
        ("retries (clusters of 4) at 100 requests a second, phi measured", 100, retries, 0.01),
        ("drift, shared bursts, own bursts (ICC 0.01), retries (clusters of 2), phi measured", 20, everything, 0.01),
    )
    for what, rps, noise, limit in cases:
        harmless = Behaviour(error_ratio=0.01)
        is_calibrated = what.endswith("phi measured")
        trial = Trial(Scenario(rps, harmless, harmless, noise=noise), _RAMP, _ERRORS, is_calibrated)
        failed = proportion([math.isfinite(at_s) for at_s in study.fails(trial, 2000)])
        yield Row(what, f"at most {share(limit)} rolled back", _counted(failed), _at_most(failed, limit))
    whole = study.runs(_SHORT, _all_signals(0.01, noise=everything), 400)
    for what, blames in (
        ("by the comparison with stable", lambda signal: signal not in (None, "deadline", "guard")),
        ("by the absolute guard", lambda signal: signal == "guard"),
    ):
        accused = proportion([blames(run.signal) for run in whole])
        name = f"the same noise on whole releases, all signals of the default plan, short steps: {what}"
        yield Row(name, "at most 1 % rolled back", _counted(accused), _at_most(accused, 0.01))


def detection(study: Study) -> Iterator[Row]:
    """Only errors are judged; the time is that from the first harmful request to FAIL."""
    for base, bad, median_s, p90_s in ((0.01, 0.05, 130, 260), (0.01, 0.1, 45, 80), (0.01, 0.5, 15, 15)):
        found = study.fails(Trial(_errors(base, bad), _TENTH, _ERRORS), 1000)
        what = f"errors {share(base)} on stable, {share(bad)} on canary"
        yield _timely(what, "found after", found, median_s, p90_s)
    for bad, median_s in ((0.05, 208), (0.1, 75), (0.5, 25)):
        late = replace(_errors(0.01, bad), harm_after_s=1800.0)
        found = study.fails(Trial(late, _TENTH, _ERRORS), 600)
        yield _timely(f"errors rise from 1 to {share(bad)} after 30 healthy minutes", "found after", found, median_s)
    for bad, median_s in ((0.05, 300), (0.1, 105), (0.5, 35)):
        late = replace(_errors(0.01, bad), harm_after_s=3 * _HOUR_S)
        found = study.fails(Trial(late, ((0.1, 4 * _HOUR_S),), _ERRORS), 200)
        yield _timely(f"errors rise from 1 to {share(bad)} after 3 healthy hours", "found after", found, median_s)
    for base, bad in ((0.01, 0.02), (0.01, 0.05), (0.001, 0.01), (0.05, 0.1)):
        scenario = _errors(base, bad)
        limit_s = _wald_s(scenario)
        found = study.times(textbook_failed_after_s, Trial(scenario, _TENTH, _ERRORS), 1000)
        what = f"errors {share(base)} against {share(bad)}, the textbook test; Wald's limit of {limit_s:.0f} s x 1.25"
        yield _timely(what, "found after", found, 1.25 * limit_s)


def harm(study: Study) -> Iterator[Row]:
    """Whole releases of a canary that harms 1 % of its requests, twice the risk budget of 0.5 %."""
    patient = RolloutSpec(
        steps=_STEPS, soak=10.0, holdback=0.0, step_deadline=_HOUR_S, on_deadline="hold", signals=_ERRORS_ONLY
    )
    cases = (
        ("errors 0.2 + 1 %, all signals of the default plan, short steps", _SHORT, _all_signals(0.002, 0.012)),
        ("errors 0.2 + 1 %, an hour for each step", patient, _errors(0.002, 0.012)),
        ("... with automatic steps", patient.model_copy(update={"steps": "auto"}), _errors(0.002, 0.012)),
        ("... at 100 requests a second", patient, replace(_errors(0.002, 0.012), rps=100)),
        ("errors 1 + 1 %, an hour for each step", patient, _errors(0.01, 0.02)),
    )
    for what, spec, scenario in cases:
        runs = study.runs(spec, scenario, 1000)
        promoted = proportion([run.outcome == "promoted" for run in runs])
        harmed, requests = fmean(run.harmed for run in runs), fmean(run.requests for run in runs)
        yield Row(
            what,
            "at most 1 % promoted, under 0.5 % of all requests harmed",
            f"{_counted(promoted)}; {share(harmed / requests)} harmed, {harmed:.0f} requests a release",
            _at_most(promoted, 0.01) if harmed < 0.005 * requests else "broken",
        )


_ARRIVALS = (  # requests a second, error ratio; median and p90, s, with fixed steps; the same with automatic ones
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
    """Whole releases of a harmless canary, judged by its errors; every step soaks for 10 s.

    Before each release stable runs alone for half an hour: phi is measured, and PASS places its bets by stable's error
    ratio. The counters are read directly from the gateway and the versions, so a change of weight loses the evidence of
    0.04 s (measured). If Prometheus reads them every second, it loses 1 to 1.5 s. Proof is found when the counters are
    read, every 5 s.
    """
    fixed = RolloutSpec(
        steps=_STEPS, soak=10.0, holdback=0.0, step_deadline=24 * _HOUR_S, watch=5.0, signals=_ERRORS_ONLY
    )
    auto = fixed.model_copy(update={"steps": "auto"})
    for rps, base, *promised in _ARRIVALS:
        for plan, (median_s, p90_s) in zip((fixed, auto), promised, strict=True):
            what = f"{rps} requests a second, errors {share(base)}, "
            what += "automatic steps" if plan is auto else "steps 1, 5, 25, 50, 100"
            scenario = replace(_errors(base, base), rps=rps)
            took = [run.full_s or math.inf for run in study.runs(plan, scenario, 600)]
            yield _timely(what, "all traffic after", took, median_s, p90_s)
            if (rps, base) == (20, 0.001):
                took = [run.full_s or math.inf for run in study.runs(plan, scenario, 600, history_s=0.0)]
                yield _compared(f"{what}, nothing known of stable", took)


def watch(study: Study) -> Iterator[Row]:
    """Whole releases and the 15 minutes after promotion, when stable has no traffic left to compare with.

    The canary's errors are then compared with stable's earlier errors, in the half hour of history and in the release,
    and with the errors of all users in the five minutes that ended two minutes ago. The comparison follows a drift that
    affects all users, but finds harm before the harm becomes part of it. 100 requests a second.
    """
    plan = RolloutSpec(steps=_STEPS, soak=10.0, holdback=0.0, step_deadline=24 * _HOUR_S, signals=_ERRORS_ONLY)
    cases = (
        ("errors 1 %, independent requests", Noise()),
        ("errors drift between 0.4 and 2.5 % in an hour", Noise(drift=2.5)),
        ("errors drift between 0.2 and 5 % in an hour", Noise(drift=5)),
        ("bursts of each version's own (ICC 0.05, 30 s), phi measured", Noise(own_icc=0.05, burst_s=30)),
        ("retries (clusters of 4), phi measured", Noise(retries=4)),
    )
    for what, noise in cases:
        runs = study.runs(plan, replace(_errors(0.01, 0.01), rps=100, noise=noise), 300)
        taken_back = proportion([run.promoted_s is not None and run.outcome == "rolled_back" for run in runs])
        promised = "at most 1 % of healthy canaries taken back"
        yield Row(what, promised, _counted(taken_back), _at_most(taken_back, 0.01))
    for base, bad in ((0.005, 0.05), (0.01, 0.05), (0.01, 0.04), (0.001, 0.02), (0.005, 0.5)):
        late = replace(_errors(base, bad), rps=100, harm_after_s=1200.0)
        patient = plan.model_copy(update={"watch": 2 * late.harm_after_s})
        runs = [run for run in study.runs(patient, late, 200) if run.promoted_s and run.promoted_s < late.harm_after_s]
        found = [run.stopped_s - late.harm_after_s if run.outcome == "rolled_back" else math.inf for run in runs]
        yield _timely(f"errors {share(base)} become {share(bad)} in the watch", "taken back after", found, 60)


def models(study: Study) -> Iterator[Row]:
    """Latency or predicted classes are judged alone, unless a row says otherwise.

    Only a bound of 500 ms or more counts the answers that take 500 ms longer and no others, so the default plan has two
    such bounds. With bounds of 25 to 250 ms some of stable's own answers are as slow. Then even a test that knows the
    harm and allows no tolerance needs Wald's limit on average, so no promise of a minute could be kept.
    """
    failed = proportion([math.isfinite(at_s) for at_s in study.workers.each(_better_model, study.seeds(500))])
    what = "accuracy 95 to 97 %, random confusions, skewed classes in half of the releases; 30 minutes"
    yield Row(what, "none of 500 rolled back", _counted(failed), "broken" if failed.count else "kept")
    default = Latency().slower_than_ms
    what = f"500 ms more on 5 % of the requests, the default plan's bounds {_listed(default)}"
    yield _timely(what, "found after", _found_alone(study, "latency", *_some_later(default)), 60)
    short = _some_later(default[:4])
    limit_s = _wald_s(_errors(*(version.slow_ratios[-1][1] for version in short)))
    what = f"500 ms more on 5 % of the requests, bounds {_listed(default[:4])}; Wald's limit of {limit_s:.0f} s"
    yield _compared(what, _found_alone(study, "latency", *short))
    stable, canary = (
        replace(_all_signals(0.005).stable, slow_ratios=version.slow_ratios) for version in _some_later(default)
    )
    found = study.fails(Trial(Scenario(20, stable, canary), _TENTH, RolloutSpec().judge_config()), 400)
    yield _compared("the same, the default plan's bounds among all its signals", found)
    shifted = (0.4, *(0.6 / 9,) * 9)
    found = _found_alone(study, "class", Behaviour(class_shares=_TEN_CLASSES), Behaviour(class_shares=shifted))
    yield _timely("a class of 10 % becomes 40 % of the predictions", "found after", found, 40)


def cost(study: Study) -> Iterator[Row]:  # noqa: ARG001 - one process is enough
    """A tick of 50 two-sided class signals, each with a million requests in the window; CPU time of one core."""
    rng = np.random.default_rng(_SEED)
    ticks = [_large_tick(rng, number) for number in range(40)]
    judge = Judge(RolloutSpec().judge_config())
    for what, asked in (
        ("one tick by the default plan, gross shifts included", judge),
        ("... by a judge that does not", Judge(JudgeConfig(rules=catalogue().rules))),
    ):
        yield _quick(what, _tick_ms(asked, ticks[:30]))
    of_requests = {10**n: [_large_tick(rng, number, 200, 10**n) for number in range(20)] for n in range(2, 8)}
    took_ms = {n: _tick_ms(Judge(RolloutSpec().judge_config()), many) for n, many in of_requests.items()}
    slowest = max(took_ms, key=lambda requests: took_ms[requests])
    yield _quick(f"200 signals, the slowest of 100 to 10 million requests: {slowest:,}", took_ms[slowest])
    alone = _one_by_one_ms(of_requests[slowest][:3])
    what = "... the same bets one stream at a time"
    yield Row(what, "", f"{alone / took_ms[slowest]:.1f} times as long", "for comparison")
    tracemalloc.start()
    judge.observe(window for tick in ticks[30:] for window in tick)
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    # After a tick every sum is a new object that was not traced before: about 30 kB, for any number of ticks.
    what = "memory that 10 more windows of 50 signals leave behind"
    yield Row(what, "no more than one", f"{grown / 1024:.0f} kB", "kept" if grown < _STATE_BYTES else "broken")


def _quick(what: str, took_ms: float) -> Row:
    return Row(what, f"under {_TICK_MS:g} ms", f"{took_ms:.1f} ms", "kept" if took_ms < _TICK_MS else "broken")


def _tick_ms(judge: Judge, ticks: Sequence[Sequence[Window]]) -> float:
    """Median CPU time of a tick with its judgement, ms."""
    took_s = []
    for tick in ticks:
        began_s = time.process_time()
        judge.observe(tick)
        judge.judgement(next_weight=None)
        took_s.append(time.process_time() - began_s)
    return 1000 * quantile(took_s, 0.5).value


def _one_by_one_ms(ticks: Sequence[Sequence[Window]]) -> float:
    """Median CPU time of the streams of a tick when each stream is computed alone, ms."""
    config = RolloutSpec().judge_config()
    rule = config.rules["class"]
    streams = [
        [Stream(rule, config, tolerance=tolerance, swapped=swapped) for swapped in (False, True)]
        for tolerance in (None, rule.gross_tolerance)
        for _ in ticks[0]
    ]
    took_s = []
    for tick in ticks:
        began_s = time.process_time()
        for window, both_sides in zip([*tick, *tick], streams, strict=True):
            for stream in both_sides:
                stream.observe(window.stable, window.canary)
        took_s.append(time.process_time() - began_s)
    return 1000 * quantile(took_s, 0.5).value


def _large_tick(rng: np.random.Generator, end_s: float, labels: int = 50, requests: int = 1_000_000) -> list[Window]:
    """A tick in which each label is predicted equally often."""
    totals = requests * 9 // 10, requests // 10
    stable, canary = (rng.multinomial(total, [1 / labels] * labels).tolist() for total in totals)
    return [
        Window(5.0 * end_s, 5.0, f"class:{label}", Pair(in_stable, totals[0]), Pair(in_canary, totals[1]))
        for label, (in_stable, in_canary) in enumerate(zip(stable, canary, strict=True))
    ]


CHAPTERS: dict[str, tuple[str, Callable[[Study], Iterator[Row]]]] = {
    "false-rollbacks": ("A harmless canary is not rolled back", false_rollbacks),
    "detection": ("Harm is found soon", detection),
    "harm": ("Harm stays small", harm),
    "arrivals": ("A harmless canary gets all traffic soon", arrivals),
    "watch": ("Harm that begins after promotion is found too", watch),
    "models": ("Models may differ; answers may not be slow", models),
    "cost": ("A tick costs little", cost),
}


# ---- scenarios


def _errors(base: float, bad: float) -> Scenario:
    return Scenario(20, Behaviour(error_ratio=base), Behaviour(error_ratio=bad))


def _all_signals(base: float, bad: float | None = None, *, noise: Noise | None = None) -> Scenario:
    """All signals of the default plan; only the canary's errors may differ."""
    slow = tuple((bound, _slower(bound, median_ms=20, sigma=0.7)) for bound in Latency().slower_than_ms)
    stable = Behaviour(base, slow, _TEN_CLASSES, low_confidence_ratio=0.02)
    return Scenario(20, stable, replace(stable, error_ratio=base if bad is None else bad), noise=noise or Noise())


def _slower(bound_ms: float, *, median_ms: float, sigma: float) -> float:
    """Share of log-normal latencies above a bound."""
    return math.erfc(math.log(bound_ms / median_ms) / (sigma * math.sqrt(2))) / 2


def _some_later(bounds: Sequence[int]) -> tuple[Behaviour, Behaviour]:
    """A version that answers in about 80 ms, and one that needs 500 ms more for 5 % of the requests."""
    slow = tuple((bound, _slower(bound, median_ms=80, sigma=0.5)) for bound in bounds)
    slower = tuple((bound, ratio + 0.05 * (1 - ratio) * (bound <= 500)) for bound, ratio in slow)
    return Behaviour(slow_ratios=slow), Behaviour(slow_ratios=slower)


def _found_alone(study: Study, family: str, stable: Behaviour, canary: Behaviour) -> list[float]:
    """Times to FAIL when only one family of signals is judged, s."""
    config = replace(_ERRORS, rules={family: catalogue().rules[family]})
    return study.fails(Trial(Scenario(20, stable, canary), _TENTH, config), 400)


def _better_model(seed: Seed) -> float:
    """Time to FAIL of a canary that is right more often, but wrong in other ways, s."""
    rng = np.random.default_rng(seed)
    truth = np.ones(10) if rng.random() < 0.5 else 1 / np.arange(1, 11)
    truth /= truth.sum()
    stable, canary = (Behaviour(class_shares=_predicted(rng, truth, accuracy)) for accuracy in (0.95, 0.97))
    config = replace(_ERRORS, rules={"class": catalogue().rules["class"]})
    return failed_after_s(Trial(Scenario(20, stable, canary), ((0.1, 1800.0),), config), seed)


def _predicted(rng: np.random.Generator, truth: NDArray[np.float64], accuracy: float) -> tuple[float, ...]:
    """Predicted shares of the classes, by a model that confuses them at random."""
    taken_for = rng.dirichlet(np.ones(len(truth) - 1), len(truth))
    confusion = np.stack([np.insert((1 - accuracy) * row, label, accuracy) for label, row in enumerate(taken_for)])
    return tuple((truth @ confusion).tolist())


def _wald_s(scenario: Scenario) -> float:
    """Expected time of a test that knows the harm: log(1/alpha) over its mean log e-value. Source: Wald 1945."""
    stable, canary = scenario.stable.error_ratio, scenario.canary.error_ratio
    odds_ratio = canary / (1 - canary) / (stable / (1 - stable))
    traffic, windows, gained = Traffic(scenario, _SEED), 20_000, 0.0
    for _ in range(windows):
        (window,) = traffic.window(_TENTH[0][0])
        gained += rare(window.stable, window.canary, odds_ratios=(odds_ratio,))[0]
    return -math.log(_ERRORS.alpha) * scenario.window_s * windows / gained


# ---- words


def _listed(bounds_ms: Sequence[int]) -> str:
    return f"{', '.join(map(str, bounds_ms))} ms"


def _timely(what: str, promise: str, times_s: list[float], median_s: float, p90_s: float = math.inf) -> Row:
    """A row whose promise is about the median, and about the 90th percentile if one is given."""
    limits = ((quantile(times_s, 0.5), median_s), (quantile(times_s, 0.9), p90_s))
    status: Status = "broken"
    if all(found.value <= limit for found, limit in limits):
        status = "kept"
    elif all(found.low <= limit for found, limit in limits):
        status = "within error"
    promised = f"{promise} {median_s:.0f} s" + (f", p90 {p90_s:.0f} s" if math.isfinite(p90_s) else "")
    return Row(what, promised, f"{_interval(limits[0][0])}, p90 {_interval(limits[1][0])}", status)


def _compared(what: str, times_s: list[float]) -> Row:
    """A row without a promise."""
    return replace(_timely(what, "", times_s, math.inf), promised="", status="for comparison")


def _at_most(found: Proportion, limit: float) -> Status:
    return "kept" if found.ratio <= limit else "within error" if found.low <= limit else "broken"


def _counted(found: Proportion) -> str:
    return f"{found.count:,} of {found.of:,} ({share(found.low)} to {share(found.high)})"


def _interval(found: Quantile) -> str:
    return f"{found.value:.0f} s ({found.low:.0f} to {found.high:.0f})"
