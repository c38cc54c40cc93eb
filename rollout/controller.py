"""The control loop: gather, decide, write down, act. The only place that waits and changes the world.

Killed at any point it goes on where it was: everything it knows is folded from the ledger, and what
the state asks for is put in force again on every beat.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import structlog

from rollout import events as e
from rollout.affected import AFFECTED_USERS, AffectedUsers, Progress
from rollout.commands import Command, accept
from rollout.decide import Action, EndWatch, EnterStep, Facts, Hold, Promote, Rollback, asked_weight, decide
from rollout.errors import LedgerError, RolloutError, RouterRefused, SourceUnreachable
from rollout.interfaces import (
    FailureLog,
    Fleet,
    Health,
    MetricSource,
    ObservedSplit,
    Preflight,
    Reading,
    TrafficRouter,
    UserFailure,
)
from rollout.judge import Judge, Judgement, Pair, Window, dispersion
from rollout.metrics import ControllerMetrics
from rollout.preflight import PreflightRun
from rollout.reconcile import Reconciler
from rollout.records import evidence_record, recorded_windows, window_records
from rollout.signals import SignalSelection, merge, windows
from rollout.state import Deployment, Desired, Phase, Release, desired, fold
from rollout.store import Ledger

log = structlog.get_logger()

BEAT_S = 0.5  # how soon a command or a dead process is seen
IDLE_WINDOW_S = 2.0  # between readings while no release runs; they calibrate the next one
HISTORY_S = 1800.0  # stable's own history that calibrates the judge
RECENT_S = 30.0  # what the absolute guards look at


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the API and the metrics may see of the loop, replaced as a whole."""

    deployment: Deployment
    observed: ObservedSplit | None
    judgement: Judgement | None
    health: Mapping[str, Health]  # of every version that runs
    last_action: str
    beat_s: float


class Controller:
    """One deployment's loop. `run` blocks; `submit` may be called from any thread."""

    def __init__(
        self,
        *,
        open_ledger: Callable[[], Ledger],
        router: TrafficRouter,
        source: MetricSource,
        failures: FailureLog,
        fleet: Fleet,
        metrics: ControllerMetrics,
        preflight: Preflight | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._open_ledger = open_ledger
        self._source, self._failures = source, failures
        self._fleet, self._metrics, self._clock = fleet, metrics, clock
        self._world = Reconciler(router, fleet, clock)
        self._preflight = preflight
        self._preflight_run: PreflightRun | None = None  # of the present release
        self._commands: queue.Queue[tuple[Command, Future[int | None]]] = queue.Queue()
        self._stop = threading.Event()
        self._judge: Judge | None = None
        self._judgement: Judgement | None = None
        self._affected: AffectedUsers | None = None  # of the release that is judged, where callers are sticky
        self._reading: Reading | None = None
        self._next_window_s = 0.0
        self._recent: deque[Window] = deque()
        self._history: deque[Window] = deque()
        self._unready_since_s: float | None = None
        self._is_blind = False
        self._action: Action = Hold("started")
        self.snapshot = Snapshot(Deployment(), None, None, {}, "starting", 0.0)

    # ---- other threads

    def submit(self, command: Command, *, timeout_s: float = 30.0) -> int | None:
        """Hand over a command and wait until it is in the ledger.

        Returns: the number of the release it concerns.
        Raises: CommandRefused, LedgerError; TimeoutError when the loop does not answer.
        """
        answer: Future[int | None] = Future()
        self._commands.put((command, answer))
        return answer.result(timeout_s)

    def is_beating(self, within_s: float) -> bool:
        """Whether the loop looked at the world in the last `within_s` seconds."""
        return self._clock() - self.snapshot.beat_s <= within_s

    def stop(self) -> None:
        """Let `run` return after the present beat."""
        self._stop.set()

    # ---- the loop

    def run(self) -> None:
        """Beat until `stop` is called. Every error on purpose is logged and the loop goes on."""
        self.recover()
        while not self._stop.is_set():
            self._take_commands(wait_s=BEAT_S)
            try:
                self.beat()
            except RolloutError as error:
                log.warning("beat_failed", error=error.what, saw=error.saw)
        self.close()

    def close(self) -> None:
        """Close the ledger."""
        self._ledger.close()

    def recover(self) -> None:
        """Fold the ledger and replay the running release's evidence through a new judge."""
        self._ledger = self._open_ledger()
        self._deployment = fold(self._ledger.events(without_ticks=True))
        newest = self._deployment.release
        self._next_number = newest.number + 1 if newest else 1
        release = self._deployment.active
        if release is None:
            return
        own = list(self._ledger.events(release=release.number))
        self._deployment = fold(own, self._deployment)
        release = self._deployment.active
        if release is None:
            return
        self._judge = Judge(release.spec.judge_config(), release.phi)
        for event in own:
            if isinstance(event, e.Ticked):
                self._judge.observe(recorded_windows(event))
        self._reading = self._ledger.cursor()  # what happened while we were away is evidence too, once
        for event in own:
            if isinstance(event, e.Applied):
                split = ObservedSplit(event.stable, event.canary, event.weight_percent, event.mirror)
                self._world.adopt(split, event.at_s)
        self._affected = self._affected_users(release, self._ledger.affected())
        self._write(
            e.Noted(
                at_s=self._clock(),
                release=release.number,
                topic="controller_started",
                text="the controller was started again and went on where it was",
            )
        )

    def beat(self) -> None:
        """Make the world as it should be, look at it, decide, act."""
        now_s = self._clock()
        self._reconcile()
        release = self._deployment.active
        window_s = release.spec.window if release else IDLE_WINDOW_S
        if now_s >= self._next_window_s and self._deployment.stable:
            self._next_window_s = now_s + window_s
            self._look(now_s, window_s)
        release = self._deployment.active
        if release and self._awaits_preflight(release):
            self._try_out(release)
            release = self._deployment.active
        if release:
            self._action = decide(release, self._facts(release, now_s), self._judgement)
            self._carry_out(release, self._action)
        self._publish(now_s)

    def _look(self, now_s: float, window_s: float) -> None:
        """Read the counters; judge what is new in them."""
        release = self._deployment.active
        mirrored = release.canary if release and release.mirror else None
        affected = self._affected if release and release.phase is Phase.STEPPING else None
        try:
            current = self._source.read(self._world.backends(), mirrored=mirrored)
            failures, read_to = self._read_failures(affected)
        except SourceUnreachable as error:
            self._metrics.source_unreachable.inc()
            if not self._is_blind:
                self._note("source_unreachable", f"{error.what}: {error.saw}")
            self._is_blind = True
            return
        if self._is_blind:
            self._note("source_back", "the metric source answers again")
        self._is_blind = False
        previous = self._reading
        if previous is not None and current.at_s <= previous.at_s:
            return  # the metric store has not read anew
        self._reading = merge(previous, current)
        split_s = self._world.split_s
        if previous is None or previous.at_s < split_s:
            # A window that straddles a weight change is evidence about neither weight: count from here on.
            self._next_window_s = now_s + (window_s if current.at_s >= split_s else BEAT_S)
            if affected:
                affected.skip(current.at_s)
            return
        selection = release.spec.signals.selection() if release else SignalSelection()
        stable = release.stable if release else self._deployment.stable or ""
        canary = release.canary if release else ""
        new = windows(
            previous,
            current,
            stable=stable,
            canary=canary,
            selection=selection,
            is_mirrored=mirrored is not None,
        )
        self._recent.extend(new)
        while self._recent and self._recent[0].end_s < now_s - RECENT_S:
            self._recent.popleft()
        if release is None or release.phase is Phase.STARTING:
            self._history.extend(new)
            while self._history and self._history[0].end_s < now_s - HISTORY_S:
                self._history.popleft()
        if release and release.phase is Phase.STEPPING and self._judge:
            if affected:
                new += [
                    affected.shadow_window(errors, read_to)
                    if release.mirror
                    else affected.window(errors, failures, read_to)
                    for errors in new
                    if errors.signal == "errors"
                ]
                self._judge.temper_pass({"errors": affected.phi})
            self._judge.observe(new)
            self._judgement = self._judge.judgement(next_weight=asked_weight(release), expected=release.spec.expected())
            action = decide(release, self._facts(release, now_s), self._judgement)
            tick = e.Ticked(
                at_s=current.at_s,
                release=release.number,
                window_s=current.at_s - previous.at_s,
                weight_percent=release.weight_percent,
                mirror=release.mirror,
                counts=window_records(new),
                evidence=evidence_record(self._judgement),
                user_phi=affected.phi if affected else None,
                action=type(action).__name__,
                why=action.reason,
            )
            self._write(tick, cursor=self._reading, affected=affected.progress() if affected else None)
            if affected:
                affected.saved()
                affected.offset = self._failures.trim(affected.offset)
            log.info(
                "tick",
                release=release.number,
                canary=release.canary,
                weight_percent=release.weight_percent,
                verdict=self._judgement.verdict.value,
                action=type(action).__name__,
                log_e=round(self._judgement.log_e, 3),
            )

    def _read_failures(self, affected: AffectedUsers | None) -> tuple[Sequence[UserFailure], int]:
        """The failures that no window has counted yet; where nobody is counted, their log is kept empty."""
        if affected is None:
            self._failures.clear()
            return (), 0
        return self._failures.read(affected.offset)

    def _facts(self, release: Release, now_s: float) -> Facts:
        canary = self._fleet.status(release.canary)
        stable = self._fleet.status(release.stable)
        if canary.health is Health.READY:
            self._unready_since_s = None
        elif self._unready_since_s is None:
            self._unready_since_s = now_s
        errors = [window for window in self._recent if window.signal == "errors"]
        return Facts(
            now_s=now_s,
            canary=canary.health,
            stable=stable.health,
            has_crashed=canary.has_crashed,
            canary_unready_s=now_s - self._unready_since_s if self._unready_since_s else 0.0,
            detail=canary.detail,
            is_measured=not self._is_blind,
            recent_canary=sum((window.canary for window in errors), Pair(0, 0)),
            recent_stable=sum((window.stable for window in errors), Pair(0, 0)),
            awaits_preflight=self._awaits_preflight(release),
        )

    def _carry_out(self, release: Release, action: Action) -> None:
        """Write the decision down, then make it so."""
        now_s, number = self._clock(), release.number
        evidence = evidence_record(self._judgement) if self._judgement else None
        match action:
            case Hold():
                return
            case EnterStep(step=step, weight_percent=weight, mirror=mirror, reason=reason):
                if release.phase is Phase.STARTING:
                    self._begin(release, now_s)
                self._write(
                    e.StepEntered(
                        at_s=now_s,
                        release=number,
                        step=step,
                        weight_percent=weight,
                        mirror=mirror,
                        reason=reason,
                        evidence=evidence,
                    )
                )
            case Promote(reason=reason):
                self._write(e.Promoted(at_s=now_s, release=number, reason=reason, evidence=evidence))
            case Rollback(signal=signal, reason=reason):
                event = e.RolledBack(at_s=now_s, release=number, signal=signal, reason=reason, evidence=evidence)
                try:
                    self._write(event)
                except LedgerError:
                    # A full disk must not keep a bad version in traffic: safety first, the record when there is room.
                    self._deployment = fold([event], self._deployment)
                    self._shift(desired(self._deployment))
                    raise
            case EndWatch():
                self._write(e.Ended(at_s=now_s, release=number, outcome="promoted"))
        log.info("decided", release=number, action=type(action).__name__, reason=action.reason)
        self._judgement = None  # the next step needs evidence of its own: no step on a stale verdict
        self._reconcile()

    def _awaits_preflight(self, release: Release) -> bool:
        is_due = release.phase is Phase.STARTING and release.preflight_differences is None
        return is_due and self._preflight is not None

    def _try_out(self, release: Release) -> None:
        """Have the canary tried out once it is ready; what was found goes into the ledger."""
        canary = self._fleet.status(release.canary)
        if self._preflight is None or canary.health is not Health.READY or canary.backend is None:
            return
        if self._preflight_run is None:
            self._preflight_run = PreflightRun(self._preflight, canary.backend, release.stable)
        if result := self._preflight_run.result:
            self._write(e.Preflighted(at_s=self._clock(), release=release.number, result=result))

    def _begin(self, release: Release, now_s: float) -> None:
        """The canary is ready: fix how noisy stable is, and open the judge."""
        phi = {signal: dispersion(list_of) for signal, list_of in _stable_history(self._history).items()}
        if release.spec.sticky and "errors" in phi:
            phi[AFFECTED_USERS] = phi["errors"]  # whoever they hit, the bursts are the same
        span_s = self._history[-1].end_s - self._history[0].end_s if self._history else 0.0
        self._write(
            e.CanaryReady(at_s=now_s, release=release.number, took_s=now_s - release.requested_s),
            e.Calibrated(at_s=now_s, release=release.number, phi=phi, history_s=span_s),
        )
        self._judge = Judge(release.spec.judge_config(), phi)
        self._affected = self._affected_users(release, None)

    def _affected_users(self, release: Release, known: Progress | None) -> AffectedUsers | None:
        if release.spec.sticky is None:
            return None
        return AffectedUsers(stable=release.stable, canary=release.canary, since_s=self._world.split_s, progress=known)

    def _reconcile(self) -> None:
        """Make the world as the state asks, and write down what came into force."""
        wish = desired(self._deployment)
        self._world.start(wish)
        self._shift(wish)
        is_settled = self._world.stop(wish)
        release = self._deployment.active
        if release and release.phase is Phase.LEAVING and release.outcome and is_settled:
            self._write(e.Ended(at_s=self._clock(), release=release.number, outcome=release.outcome))

    def _shift(self, wish: Desired) -> None:
        try:
            split = self._world.shift(wish)
        except RouterRefused as error:
            self._metrics.router_failures.inc()
            self._note("router_refused", f"{error.what}: {error.saw}")
            raise
        if split is None:
            return
        release = self._deployment.active
        self._next_window_s = self._world.split_s
        self._write(
            e.Applied(
                at_s=self._world.split_s,
                release=release.number if release else None,
                stable=split.stable,
                canary=split.canary,
                weight_percent=split.canary_percent,
                mirror=split.mirror,
            )
        )

    # ---- writing

    def _take_commands(self, *, wait_s: float) -> None:
        """Answer the commands that came in; wait for the first one."""
        timeout: float | None = wait_s
        while True:
            try:
                command, answer = self._commands.get(block=timeout is not None, timeout=timeout)
            except queue.Empty:
                return
            timeout = None
            try:
                answer.set_result(self.execute(command))
            except RolloutError as error:
                answer.set_exception(error)

    def execute(self, command: Command) -> int | None:
        """Carry out a command in the loop's own thread. Raises CommandRefused, LedgerError."""
        events = accept(
            command,
            self._deployment,
            known_tags=self._fleet.known_tags(),
            next_number=self._next_number,
            now_s=self._clock(),
        )
        if events:
            self._write(*events)
            self._judgement = None
            self._publish(self._clock())  # who asked and looks at once must see it
            log.info("command", command=type(command).__name__, by=getattr(command, "by", ""))
        for event in events:
            if isinstance(event, e.ReleaseRequested):
                self._next_number += 1
                self._recent.clear()
                self._preflight_run = None
                self._is_blind = False  # a source that is still away is noted in this release's story too
        release = self._deployment.release
        return release.number if release else None

    def _write(self, *events: e.Event, cursor: Reading | None = None, affected: Progress | None = None) -> None:
        self._ledger.append(*events, cursor=cursor, affected=affected)
        self._deployment = fold(events, self._deployment)

    def _note(self, topic: str, text: str) -> None:
        release = self._deployment.active
        log.warning("noted", topic=topic, text=text)
        self._write(e.Noted(at_s=self._clock(), release=release.number if release else None, topic=topic, text=text))

    def _publish(self, now_s: float) -> None:
        health = {tag: self._fleet.status(tag).health for tag in self._fleet.running()}
        last_action = f"{type(self._action).__name__}: {self._action.reason}"
        self.snapshot = Snapshot(self._deployment, self._world.observed, self._judgement, health, last_action, now_s)
        self._metrics.publish(self.snapshot)


def _stable_history(history: deque[Window]) -> dict[str, list[Window]]:
    by_signal: dict[str, list[Window]] = {}
    for window in history:
        by_signal.setdefault(window.signal, []).append(window)
    return by_signal
