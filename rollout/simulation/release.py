"""One simulated release, from the canary's first request to rollback or to the end of its watch.

Called by `study`. Judge, decisions, steps and state are the real ones; only the world is simulated: random traffic,
a clock that jumps, versions that are always up. Nobody answers when a person is asked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rollout import events as e
from rollout.decide import Action, EndWatch, EnterStep, Facts, Hold, Promote, Rollback, decide
from rollout.interfaces import Health
from rollout.judge import Judgement, Pair, Window, dispersion
from rollout.pace import HISTORY_S, next_reading_s
from rollout.recent import RecentErrors
from rollout.records import window_records
from rollout.release_judge import ReleaseJudge
from rollout.simulation.traffic import Scenario, Traffic
from rollout.spec import RolloutSpec
from rollout.state import Deployment, Release, apply, fold

_STABLE, _CANARY = "model:stable", "model:canary"
_LOST_S = 0.04  # not counted at a change of weight: from the reading before it to the first one after
_NO_EVIDENCE = e.EvidenceRecord(verdict="", reason="", log_e=0.0, threshold=0.0, signals={})

Seed = int | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """How one simulated release went. Times are seconds since the canary's first request, copied or live."""

    outcome: Literal["promoted", "rolled_back", "held"]  # held: left to a person
    signal: str | None  # what stopped it: a signal, `guard` or `deadline`; None when promoted
    stopped_s: float  # when it was promoted or rolled back, or when a person was asked
    live_s: float | None  # when the canary got its first live request; None: never
    full_s: float | None  # when it got all the traffic
    promoted_s: float | None  # when it was promoted, be it that the watch rolled it back later
    asked_s: float | None  # when a person was first asked
    harmed: float  # users' requests that the canary answered worse than stable would have, in expectation
    requests: float  # all requests of users meanwhile, in expectation


def simulate_release(
    spec: RolloutSpec, scenario: Scenario, seed: Seed, *, history_s: float = HISTORY_S, patience_s: float | None = None
) -> Run:
    """Release a canary that behaves as `scenario` says. The same arguments give the same run.

    Args:
        history_s: for how long stable was watched before, to measure phi; 0: not at all.
        patience_s: how long a release that asks a person may wait for evidence; None: as long as a step may last.

    Requests are simulated one by one, not users, and without their answers: what `spec` says of sticky callers (see
    `noise`) and of disagreement in the shadow is left out.

    Raises: ValueError for a scenario with signals that `spec` does not judge.
    """
    signals = spec.signals.model_copy(update={"disagreement": None})
    spec = spec.model_copy(update={"sticky": None, "signals": signals})
    return _Simulation(spec, scenario, seed, history_s, spec.step_deadline if patience_s is None else patience_s).run()


class _Simulation:
    """The world of one release, and the controller's part in it."""

    def __init__(self, spec: RolloutSpec, scenario: Scenario, seed: Seed, history_s: float, patience_s: float) -> None:
        self._spec, self._scenario, self._patience_s = spec, scenario, patience_s
        self._traffic = Traffic(scenario, seed)
        self._deployment = _requested(spec, self._traffic.history(history_s), history_s, self._traffic.now_s)
        self._judge = ReleaseJudge(self._release)
        self._judgement: Judgement | None = None
        self._recent = RecentErrors()
        self._live_s: float | None = None
        self._full_s: float | None = None
        self._promoted_s: float | None = None
        self._first_asked_s: float | None = None
        self._asked_s: float | None = None  # since when a person is asked
        self._harmed = 0.0

    def run(self) -> Run:
        """Go on until the release is over."""
        while True:
            action = decide(self._release, self._facts(), self._judgement)
            if isinstance(action, EnterStep):
                self._enter(action)
            elif isinstance(action, Promote):
                self._promote(action)
            elif not isinstance(action, Hold) or self._is_left_to_a_person(action):
                return self._ended(action)
            else:
                self._look()

    @property
    def _release(self) -> Release:
        release = self._deployment.release
        if release is None:
            raise TypeError("a simulation begins with a release")
        return release

    def _facts(self) -> Facts:
        return Facts(
            now_s=self._traffic.now_s,
            canary=Health.READY,
            stable=Health.READY,
            has_crashed=False,
            canary_unready_s=0.0,
            detail="",
            is_measured=True,
            is_fresh=True,
            recent_canary=self._recent.canary,
            recent_stable=self._recent.stable,
        )

    def _enter(self, action: EnterStep) -> None:
        entered = e.StepEntered(
            at_s=self._traffic.now_s,
            release=1,
            step=action.step,
            weight_percent=action.weight_percent,
            mirror=action.mirror,
            reason=action.reason,
        )
        self._go_on(entered)
        if self._live_s is None and action.weight_percent:
            self._live_s = self._traffic.elapsed_s
        if action.weight_percent == 100:
            self._full_s = self._traffic.elapsed_s
        self._begin_counting()

    def _promote(self, action: Promote) -> None:
        self._go_on(e.Promoted(at_s=self._traffic.now_s, release=1, reason=action.reason))
        self._promoted_s = self._traffic.elapsed_s
        self._begin_counting()

    def _go_on(self, event: e.Event) -> None:
        self._deployment = apply(self._deployment, event)
        self._judgement = None

    def _begin_counting(self) -> None:
        """Counting begins with the first reading under the new weight."""
        self._count_harm(_LOST_S)
        self._traffic.skip(_LOST_S)

    def _look(self) -> None:
        """Judge one more window."""
        release = self._release
        seconds = round(next_reading_s(release, self._traffic.now_s) - self._traffic.now_s, 6)
        self._count_harm(seconds)
        windows = self._traffic.window(release.weight_percent / 100, mirror=release.mirror, seconds=seconds)
        self._recent.add(windows, self._traffic.now_s)
        self._judge.observe(release, windows)
        self._judgement = self._judge.judgement(release)
        self._deployment = apply(self._deployment, _tick(windows, seconds))

    def _count_harm(self, seconds: float) -> None:
        """What users will suffer in the `seconds` to come."""
        if self._traffic.is_harmful:
            live_requests = self._scenario.rps * self._release.weight_percent / 100 * seconds
            self._harmed += live_requests * self._scenario.harm

    def _is_left_to_a_person(self, action: Hold) -> bool:
        """Whether a person has been asked for longer than anybody waits."""
        if not action.needs_person:
            self._asked_s = None
        elif self._asked_s is None:
            self._asked_s = self._traffic.elapsed_s
            self._first_asked_s = self._asked_s if self._first_asked_s is None else self._first_asked_s
        return self._asked_s is not None and self._traffic.elapsed_s - self._asked_s >= self._patience_s

    def _ended(self, action: Action) -> Run:
        outcome: Literal["promoted", "rolled_back", "held"] = "held"
        signal: str | None = "deadline"
        stopped_s = elapsed_s = self._traffic.elapsed_s
        if isinstance(action, EndWatch) and self._promoted_s is not None:
            outcome, signal, stopped_s = "promoted", None, self._promoted_s
        elif isinstance(action, Rollback):
            outcome, signal = "rolled_back", action.signal
        elif self._asked_s is not None:
            stopped_s = self._asked_s
        if signal == "deadline" and self._judgement and self._judgement.failed_signal:
            signal = self._judgement.failed_signal  # proven harmful, but only a person could have said so earlier
        return Run(
            outcome=outcome,
            signal=signal,
            stopped_s=stopped_s,
            live_s=self._live_s,
            full_s=self._full_s,
            promoted_s=self._promoted_s,
            asked_s=self._first_asked_s,
            harmed=self._harmed,
            requests=self._scenario.rps * elapsed_s,
        )


def _requested(spec: RolloutSpec, history: Mapping[str, list[Window]], history_s: float, now_s: float) -> Deployment:
    errors = sum((window.stable for window in history.get("errors", ())), Pair(0, 0))
    calibrated = e.Calibrated(
        at_s=now_s,
        release=1,
        phi={signal: dispersion(windows) for signal, windows in history.items()},
        history_s=history_s,
        stable_errors=(errors.bad, errors.total),
    )
    return fold(
        [
            e.StableSet(at_s=now_s, tag=_STABLE),
            e.ReleaseRequested(at_s=now_s, release=1, tag=_CANARY, stable=_STABLE, spec=spec, by="simulation"),
            calibrated,
        ]
    )


def _tick(windows: Sequence[Window], window_s: float) -> e.Ticked:
    """What the state learns from a window: how long it was, and what stable failed. The rest is for readers."""
    return e.Ticked(
        at_s=0.0,
        window_s=window_s,
        weight_percent=0,
        mirror=False,
        counts=window_records([window for window in windows if window.signal == "errors"]),
        evidence=_NO_EVIDENCE,
        action="",
        why="",
    )
