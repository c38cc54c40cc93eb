"""One simulated release, from the canary's first request to rollback or to the end of its watch.

Judge, decisions, steps and state are the real ones. Only the environment is simulated: random traffic, a clock that
jumps, versions that are always up. A person who is asked never answers.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rollout.control.calibration import HISTORY_S
from rollout.control.decide import Action, EndWatch, EnterStep, Facts, Hold, Promote, Rollback, decide
from rollout.control.fitted_plan import asking
from rollout.control.guard import RecentErrors
from rollout.control.release_judge import ReleaseJudge
from rollout.control.timing import next_reading_s
from rollout.fleet import Health
from rollout.judge import Judgement, OwnNoise, Pair, Window, own_noise
from rollout.ledger import events as e
from rollout.ledger.state import Deployment, Release, apply, fold
from rollout.signals.catalogue import catalogue
from rollout.signals.options import PairedLabel, WrongLabel
from rollout.simulate.traffic import Scenario, Traffic
from rollout.spec import RolloutSpec

_LABELS = "wrong_label"
_STABLE, _CANARY = "model:stable", "model:canary"
_LOST_S = 0.04  # not counted at a change of weight: from the last reading before it to the first reading after it

Seed = int | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """The result of one simulated release. Times are seconds since the canary's first request, copied or live."""

    outcome: Literal["promoted", "rolled_back", "held"]  # held: left to a person
    signal: str | None  # what stopped it: a signal, `guard` or `deadline`; None if promoted
    stopped_s: float  # when it was promoted or rolled back, or when a person was asked
    live_s: float | None  # when the canary got its first live request; None: never
    full_s: float | None  # when it got all the traffic
    promoted_s: float | None  # when it was promoted, even if the watch rolled it back later
    asked_s: float | None  # when a person was first asked
    harmed: float  # users' requests that the canary answered worse than stable would have, in expectation
    harmed_before: float  # those harmed before promotion
    requests: float  # all requests of users in that time, in expectation


def simulate_release(
    spec: RolloutSpec,
    scenario: Scenario,
    seed: Seed,
    *,
    history_s: float = HISTORY_S,
    patience_s: float | None = None,
    noise_of: Callable[[Sequence[Window]], OwnNoise] = own_noise,
    traffic: Traffic | None = None,
    until_s: float = math.inf,
) -> Run:
    """Release a canary that behaves as `scenario` says. The same arguments give the same run.

    Args:
        history_s: how long stable was measured before, for phi; 0: not measured.
        patience_s: how long a release that asks a person may wait for evidence; None: as long as a step may last.
        noise_of: computes the noise from the history of a signal.
        traffic: fresh traffic, used in place of that of `scenario` and `seed`.
        until_s: seconds since the canary's first request; the simulation stops then, even if the release is not over.

    Requests are simulated, but not users or the content of answers. So sticky callers, disagreement in the shadow step
    and means of the user's own numbers are left out of `spec`, and also paired labels unless the scenario has them.

    Raises: ValueError for a scenario with signals that `spec` does not judge.
    """
    of_copies = [
        row.name
        for row in catalogue().in_plans.values()
        if row.is_of_copies and not (scenario.are_labels_paired and row.options is PairedLabel)
    ]
    of_numbers = [name for name, options in spec.signals.own.items() if options.between is not None]
    spec = spec.model_copy(update={"sticky": None, "signals": spec.signals.without(*of_copies, *of_numbers)})
    spec, _ = asking(spec, lambda _: history_s)
    patience_s = spec.step_deadline if patience_s is None else patience_s
    traffic = traffic or Traffic(scenario, seed)
    asked_for = _requested(spec, traffic.history(history_s), history_s, traffic.now_s, noise_of)
    return _Simulation(traffic, asked_for, patience_s).run(until_s)


class _Labels:
    """Delays the labels of an answer until it has the age that the plan asks for."""

    def __init__(self, spec: RolloutSpec) -> None:
        options = spec.signals.get(WrongLabel)
        self._after_s = options.after if options else 0.0
        self._young: deque[Window] = deque()

    def grown(self, windows: Sequence[Window]) -> Sequence[Window]:
        """The windows of one tick, in which the labels of answers that have reached the age replace the newest."""
        if not self._after_s or not windows:
            return windows
        self._young += [window for window in windows if window.signal == _LABELS]
        now_s, window_s = windows[0].end_s, windows[0].window_s
        stable = canary = Pair(0, 0)
        while self._young and self._young[0].end_s + self._after_s <= now_s:
            grown = self._young.popleft()
            stable, canary = stable + grown.stable, canary + grown.canary
        others = [window for window in windows if window.signal != _LABELS]
        if stable.total or canary.total:
            others.append(Window(now_s, window_s, _LABELS, stable, canary))
        return others


class _Simulation:
    """The environment of one release, and the controller's part in it."""

    def __init__(self, traffic: Traffic, deployment: Deployment, patience_s: float) -> None:
        self._traffic, self._deployment, self._patience_s = traffic, deployment, patience_s
        self._judge = ReleaseJudge(self._release)
        self._labels = _Labels(self._release.spec)
        self._judgement: Judgement | None = None
        self._recent = RecentErrors()
        self._seen_s = self._traffic.now_s  # when requests of the canary were last counted in the current step
        self._live_s: float | None = None
        self._full_s: float | None = None
        self._promoted_s: float | None = None
        self._first_asked_s: float | None = None
        self._asked_s: float | None = None  # since when a person has been asked
        self._harmed = 0.0
        self._harmed_before: float | None = None

    def run(self, until_s: float) -> Run:
        """Run until the release is over, at most until `until_s`."""
        while self._traffic.elapsed_s < until_s:
            action = decide(self._release, self._facts(), self._judgement)
            if isinstance(action, EnterStep):
                self._enter(action)
            elif isinstance(action, Promote):
                self._promote(action)
            elif not isinstance(action, Hold) or self._is_left_to_a_person(action):
                return self._ended(action)
            else:
                self._tick()
        return self._ended(Hold("nobody waits any longer"))

    @property
    def _release(self) -> Release:
        release = self._deployment.release
        if release is None:
            raise TypeError("a simulation begins with a release")
        return release

    def _facts(self) -> Facts:
        return Facts(
            in_phase_s=self._traffic.now_s - self._release.phase_since_s,
            unseen_s=self._traffic.now_s - self._seen_s,
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
        self._promoted_s, self._harmed_before = self._traffic.elapsed_s, self._harmed
        if not self._release.held_back_percent:  # otherwise the split stays as it is
            self._begin_counting()

    def _go_on(self, event: e.Event) -> None:
        self._deployment = apply(self._deployment, event)
        self._judgement = None
        self._seen_s = self._traffic.now_s

    def _begin_counting(self) -> None:
        """Start counting with the first reading under the new weight."""
        self._count_harm(_LOST_S)
        self._traffic.skip(_LOST_S)

    def _tick(self) -> None:
        """Judge one more window."""
        release = self._release
        seconds = round(next_reading_s(release, self._traffic.now_s) - self._traffic.now_s, 6)
        self._count_harm(seconds)
        drawn = self._traffic.window(
            release.live_percent / 100, mirror=release.mirror, seconds=seconds, compare=release.compare_percent / 100
        )
        windows = self._labels.grown(drawn)
        self._recent.add(windows, self._traffic.now_s, is_warming_up=release.is_warming_up)
        self._judge.observe(release, windows)
        self._judgement = self._judge.judgement(release)
        if any(window.canary.total for window in windows if window.signal == "errors"):
            self._seen_s = self._traffic.now_s
        if self._judgement is not None:
            release = release.measured(seconds, windows, self._judgement)
            self._deployment = replace(self._deployment, release=release)

    def _count_harm(self, seconds: float) -> None:
        """Add the expected harm to users in the next `seconds`."""
        self._harmed += self._traffic.harmed(self._release.live_percent / 100, seconds)

    def _is_left_to_a_person(self, action: Hold) -> bool:
        """Whether a person has been asked for longer than the release waits."""
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
        if isinstance(action, EndWatch | Hold) and self._promoted_s is not None:
            outcome, signal, stopped_s = "promoted", None, self._promoted_s
        elif isinstance(action, Rollback):
            outcome, signal = "rolled_back", action.signal
        elif self._asked_s is not None:
            stopped_s = self._asked_s
        if signal == "deadline" and self._judgement and self._judgement.failed_signal:
            signal = self._judgement.failed_signal  # proven harmful, but the plan left the rollback to a person
        return Run(
            outcome=outcome,
            signal=signal,
            stopped_s=stopped_s,
            live_s=self._live_s,
            full_s=self._full_s,
            promoted_s=self._promoted_s,
            asked_s=self._first_asked_s,
            harmed=self._harmed,
            harmed_before=self._harmed if self._harmed_before is None else self._harmed_before,
            requests=self._traffic.scenario.rps * elapsed_s,
        )


def _requested(
    spec: RolloutSpec,
    history: Mapping[str, list[Window]],
    history_s: float,
    now_s: float,
    noise_of: Callable[[Sequence[Window]], OwnNoise],
) -> Deployment:
    errors = sum((window.stable for window in history.get("errors", ())), Pair(0, 0))
    noise = {signal: noise_of(windows) for signal, windows in history.items()}
    calibrated = e.Calibrated(
        at_s=now_s,
        release=1,
        phi={signal: one.blips for signal, one in noise.items()},
        noise=noise,
        history_s=history_s,
        stable_errors=errors,
    )
    return fold(
        [
            e.StableSet(at_s=now_s, tag=_STABLE),
            e.ReleaseRequested(at_s=now_s, release=1, tag=_CANARY, stable=_STABLE, spec=spec, by="simulation"),
            calibrated,
        ]
    )
