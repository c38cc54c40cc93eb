"""One simulated release, from the canary's first request to promotion or rollback.

Called by `study`. Judge, decisions, steps and state are the real ones; only the world is simulated: random traffic,
a clock that jumps, versions that are always up. Nobody answers when a person is asked. The watch after promotion is
left out.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

from rollout import events as e
from rollout.controller import BEAT_S, HISTORY_S, RECENT_S
from rollout.decide import Action, EnterStep, Facts, Hold, Promote, Rollback, asked_weight, decide
from rollout.interfaces import Health
from rollout.judge import Judge, Judgement, Pair, Verdict, Window, dispersion
from rollout.simulation.traffic import Scenario, Traffic
from rollout.spec import RolloutSpec
from rollout.state import Deployment, Release, apply, fold

_STABLE, _CANARY = "model:stable", "model:canary"

Seed = int | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """How one simulated release went. Times are seconds since the canary's first request, copied or live."""

    outcome: Literal["promoted", "rolled_back", "held"]  # held: left to a person
    signal: str | None  # what stopped it: a signal, `guard` or `deadline`; None when promoted
    stopped_s: float  # when it was promoted or rolled back, or when a person was asked
    live_s: float | None  # when the canary got its first live request; None: never
    full_s: float | None  # when it got all the traffic
    harmed: float  # users' requests that the canary answered worse than stable would have, in expectation
    requests: float  # all requests of users meanwhile, in expectation


def simulate_release(spec: RolloutSpec, scenario: Scenario, seed: Seed, *, history_s: float = HISTORY_S) -> Run:
    """Release a canary that behaves as `scenario` says. The same arguments give the same run.

    Args:
        history_s: for how long stable was watched before, to measure phi; 0: not at all.

    Requests are simulated one by one, not users: what `spec` says of sticky callers is left out (see `noise`).

    Raises: ValueError for a scenario with signals that `spec` does not judge.
    """
    spec = spec.model_copy(update={"sticky": None})
    return _Simulation(spec, scenario, seed, history_s).run()


class _Simulation:
    """The world of one release, and the controller's part in it."""

    def __init__(self, spec: RolloutSpec, scenario: Scenario, seed: Seed, history_s: float) -> None:
        self._spec, self._scenario = spec, scenario
        self._traffic = Traffic(scenario, seed)
        phi = {signal: dispersion(windows) for signal, windows in self._traffic.history(history_s).items()}
        self._deployment = _requested(spec, phi, history_s, self._traffic.now_s)
        self._tick = _tick(scenario.window_s)
        self._judge = Judge(spec.judge_config(), phi)
        self._judgement: Judgement | None = None
        self._recent: deque[Window] = deque()  # of the errors
        self._live_s: float | None = None
        self._full_s: float | None = None
        self._asked_s: float | None = None  # since when a person is asked
        self._harmed = 0.0

    def run(self) -> Run:
        """Go on until the release is over."""
        while True:
            action = decide(self._release, self._facts(), self._judgement)
            if isinstance(action, EnterStep):
                self._enter(action)
            elif not isinstance(action, Hold) or self._is_left_to_a_person(action):
                return self._ended(action)
            else:
                self._wait()

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
            recent_canary=sum((window.canary for window in self._recent), Pair(0, 0)),
            recent_stable=sum((window.stable for window in self._recent), Pair(0, 0)),
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
        self._deployment = apply(self._deployment, entered)
        self._judgement = None
        if self._live_s is None and action.weight_percent:
            self._live_s = self._traffic.elapsed_s
        if action.weight_percent == 100:
            self._full_s = self._traffic.elapsed_s
        self._pass_uncounted(BEAT_S)  # counting begins with the first reading under the new weight

    def _wait(self) -> None:
        """Until the next window is judged, or until a step that has passed has soaked."""
        soak_s = self._release.phase_since_s + self._spec.soak - self._traffic.now_s
        soak_s = math.ceil(soak_s / BEAT_S) * BEAT_S
        has_passed = self._judgement is not None and self._judgement.verdict is Verdict.PASS
        if has_passed and 0 < soak_s < self._scenario.window_s:
            self._pass_uncounted(soak_s)
        else:
            self._look()

    def _look(self) -> None:
        """Judge one more window."""
        release = self._release
        self._count_harm(self._scenario.window_s)
        windows = self._traffic.window(release.weight_percent / 100, mirror=release.mirror)
        self._recent.extend(window for window in windows if window.signal == "errors")
        while self._recent and self._recent[0].end_s < self._traffic.now_s - RECENT_S:
            self._recent.popleft()
        self._judge.observe(windows)
        self._judgement = self._judge.judgement(next_weight=asked_weight(release), expected=self._spec.expected())
        self._deployment = apply(self._deployment, self._tick)

    def _pass_uncounted(self, seconds: float) -> None:
        self._count_harm(seconds)
        self._traffic.skip(seconds)

    def _count_harm(self, seconds: float) -> None:
        """What users will suffer in the `seconds` to come."""
        if self._traffic.is_harmful:
            live_requests = self._scenario.rps * self._release.weight_percent / 100 * seconds
            self._harmed += live_requests * self._scenario.harm

    def _is_left_to_a_person(self, action: Hold) -> bool:
        """Whether a person has been asked for longer than a step may last."""
        if not action.needs_person:
            self._asked_s = None
        elif self._asked_s is None:
            self._asked_s = self._traffic.elapsed_s
        return self._asked_s is not None and self._traffic.elapsed_s - self._asked_s >= self._spec.step_deadline

    def _ended(self, action: Action) -> Run:
        outcome: Literal["promoted", "rolled_back", "held"] = "held"
        signal: str | None = "deadline"
        if isinstance(action, Promote):
            outcome, signal = "promoted", None
        elif isinstance(action, Rollback):
            outcome, signal = "rolled_back", action.signal
        if signal == "deadline" and self._judgement and self._judgement.failed_signal:
            signal = self._judgement.failed_signal  # proven harmful, but only a person could have said so earlier
        elapsed_s = self._traffic.elapsed_s
        return Run(
            outcome=outcome,
            signal=signal,
            stopped_s=elapsed_s if self._asked_s is None or outcome != "held" else self._asked_s,
            live_s=self._live_s,
            full_s=self._full_s,
            harmed=self._harmed,
            requests=self._scenario.rps * elapsed_s,
        )


def _requested(spec: RolloutSpec, phi: dict[str, float], history_s: float, now_s: float) -> Deployment:
    return fold(
        [
            e.StableSet(at_s=now_s, tag=_STABLE),
            e.ReleaseRequested(at_s=now_s, release=1, tag=_CANARY, stable=_STABLE, spec=spec, by="simulation"),
            e.Calibrated(at_s=now_s, release=1, phi=phi, history_s=history_s),
        ]
    )


def _tick(window_s: float) -> e.Ticked:
    """What the state learns from a window: that it was measured. All else in it is for the ledger's readers."""
    nothing = e.EvidenceRecord(verdict="", reason="", log_e=0.0, threshold=0.0, signals={})
    return e.Ticked(
        at_s=0.0, window_s=window_s, weight_percent=0, mirror=False, counts=(), evidence=nothing, action="", why=""
    )
