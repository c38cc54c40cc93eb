"""Simulates many releases of a harmless and of a harmful canary, and combines their results."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from rollout.simulate.parallel import Workers
from rollout.simulate.release import Run, simulate_release
from rollout.simulate.summary import Proportion, Quantile, proportion, quantile
from rollout.simulate.traffic import Scenario
from rollout.spec import RolloutSpec


@dataclass(frozen=True, slots=True)
class Findings:
    """Runs of both kinds. Times are seconds."""

    spec: RolloutSpec
    scenario: Scenario  # of the harmful canary
    harmless: tuple[Run, ...]
    harmful: tuple[Run, ...]
    better_wrong: float | None = None  # share of wrong labels of a better canary; None: none was simulated
    better: tuple[Run, ...] = ()

    @property
    def false_alarms(self) -> Proportion:
        """Harmless canaries that were stopped as harmful."""
        return proportion([run.signal not in (None, "deadline") for run in self.harmless])

    @property
    def out_of_time(self) -> Proportion:
        """Harmless canaries that reached a step's deadline without enough evidence, even if they continued later."""
        return proportion(
            [run.signal == "deadline" or (run.signal is None and run.asked_s is not None) for run in self.harmless]
        )

    @property
    def missed(self) -> Proportion:
        """Harmful canaries that were promoted."""
        return proportion([run.outcome == "promoted" for run in self.harmful])

    @property
    def stopped_by_evidence(self) -> Proportion:
        """Harmful canaries that were stopped as harmful, and not only by a deadline."""
        return proportion([run.signal not in (None, "deadline") for run in self.harmful])

    @property
    def promotion_s(self) -> list[float]:
        """For each harmless canary: seconds from its first request to promotion; inf: never."""
        return [run.stopped_s if run.outcome == "promoted" else math.inf for run in self.harmless]

    @property
    def better_promoted(self) -> Proportion:
        """Better canaries that were promoted."""
        return proportion([run.outcome == "promoted" for run in self.better])

    @property
    def better_promotion_s(self) -> list[float]:
        """For each better canary: seconds from its first request to promotion; inf: never."""
        return [run.stopped_s if run.outcome == "promoted" else math.inf for run in self.better]

    @property
    def live_s(self) -> list[float]:
        """For each harmless canary: seconds from its first request, a copy, to its first live request; inf: never."""
        return [math.inf if run.live_s is None else run.live_s for run in self.harmless]

    @property
    def detection_s(self) -> list[float]:
        """For each harmful canary: seconds from its first live request, or the later start of its harm, to its stop.

        0: no user met it; inf: it was never stopped.
        """
        return [self._stopped_after_s(run) for run in self.harmful]

    @property
    def harmed(self) -> list[float]:
        """For each harmful canary: requests of users that it answered worse than stable would have."""
        return [run.harmed for run in self.harmful]

    @property
    def harmed_ratio(self) -> float:
        """Share of all requests during the release that were harmed, on average."""
        return sum(self.harmed) / sum(run.requests for run in self.harmful)

    @property
    def over_requests(self) -> Proportion | None:
        """Harmful canaries that harmed more requests before promotion than the plan allows; None: no limit."""
        allowed = self.spec.risk_budget.requests
        return None if allowed is None else proportion([run.harmed_before > allowed for run in self.harmful])

    @property
    def is_within_budget(self) -> bool:
        """Whether the plan allows this much harm, even at 100 %."""
        return self.scenario.harm <= self.spec.risk_budget.share

    def _stopped_after_s(self, run: Run) -> float:
        if run.outcome == "promoted":
            return math.inf
        if run.live_s is None:
            return 0.0
        return max(0.0, run.stopped_s - max(run.live_s, self.scenario.harm_after_s))


def quantiles(values: list[float]) -> tuple[Quantile, Quantile]:
    """Median and 90th percentile."""
    return quantile(values, 0.5), quantile(values, 0.9)


def study(
    spec: RolloutSpec,
    scenario: Scenario,
    *,
    releases: int,
    seed: int,
    jobs: int,
    history_s: float,
    better: Scenario | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Findings:
    """Simulate `releases` of each kind. The findings depend on the seed, not on `jobs`.

    Args:
        scenario: that of the harmful canary; the harmless canary behaves like stable.
        better: that of a better canary; None: none is simulated.
        history_s: how long stable was measured before.
        on_progress: gets the number of finished runs.
    """
    kinds = (replace(scenario, canary=scenario.stable), scenario, *([better] if better else []))
    task = partial(_simulate, spec, kinds, history_s)
    runs = []
    with Workers(jobs) as workers:
        for run in workers.each(
            task, [(kind, seed, number) for kind in range(len(kinds)) for number in range(releases)]
        ):
            runs.append(run)
            on_progress(len(runs))
    harmless, harmful = runs[:releases], runs[releases : 2 * releases]
    return Findings(
        spec,
        scenario,
        harmless=tuple(harmless),
        harmful=tuple(harmful),
        better_wrong=better.canary.wrong_label_ratio if better else None,
        better=tuple(runs[2 * releases :]),
    )


def _simulate(spec: RolloutSpec, kinds: tuple[Scenario, ...], history_s: float, item: tuple[int, int, int]) -> Run:
    kind, seed, number = item
    return simulate_release(spec, kinds[kind], (seed, number), history_s=history_s)
