"""The control loop: gather, decide, write down, act. The only place that waits and changes the world.

Killed at any point it goes on where it was: everything it knows is folded from the ledger, and what
the state asks for is put in force again on every beat.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from rollout import events as e
from rollout.affected import AFFECTED_USERS, Progress
from rollout.commands import Command, ReportDrift, accept
from rollout.decide import Action, EndWatch, EnterStep, Facts, Hold, Promote, Rollback, decide
from rollout.desk import CommandDesk
from rollout.errors import LedgerError, RolloutError, RouterRefused, SourceUnreachable
from rollout.history import History
from rollout.interfaces import (
    FailureLog,
    Fleet,
    Health,
    MetricSource,
    ObservedSplit,
    Preflight,
    Reading,
    TrafficRouter,
)
from rollout.judge import Judgement
from rollout.metrics import ControllerMetrics
from rollout.pace import BEAT_S, next_reading_s
from rollout.preflight import PreflightDesk
from rollout.readings import Readings, Seen
from rollout.recent import RecentErrors
from rollout.reconcile import Reconciler
from rollout.records import evidence_record, window_records
from rollout.release_judge import ReleaseJudge, replayed
from rollout.snapshot import Snapshot
from rollout.state import Deployment, Desired, Phase, Release, desired, fold
from rollout.store import Ledger
from rollout.user_evidence import UserEvidence
from rollout.watch import watched

log = structlog.get_logger()


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
        self._fleet, self._metrics, self._clock = fleet, metrics, clock
        self._world = Reconciler(router, fleet, clock)
        self._preflight = PreflightDesk(preflight)
        self._desk = CommandDesk()
        self._stop = threading.Event()
        self._judge: ReleaseJudge | None = None  # of the present release, once its canary is ready
        self._judgement: Judgement | None = None
        self._users = UserEvidence(failures)
        self._readings = Readings(source)
        self._next_reading_s = 0.0
        self._recent = RecentErrors()
        self._history = History()
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
        return self._desk.submit(command, timeout_s=timeout_s)

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
            left_s = self._next_reading_s - self._clock()  # a reading does not wait for the beat after it
            self._desk.serve(self.execute, wait_s=left_s if 0 < left_s < BEAT_S else BEAT_S)
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
        self._judge = replayed(own)
        self._readings.latest = self._ledger.cursor()  # what happened while we were away is evidence too, once
        for event in own:
            if isinstance(event, e.Applied):
                split = ObservedSplit(event.stable, event.canary, event.weight_percent, event.mirror)
                self._world.adopt(split, event.at_s)
        self._users.begin(release, since_s=self._world.split_s, known=self._ledger.affected())
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
        is_fresh = self._look_if_due()
        release = self._deployment.active
        if release and self._preflight.awaits(release):
            if result := self._preflight.try_out(release, self._fleet.status(release.canary)):
                self._write(e.Preflighted(at_s=self._clock(), release=release.number, result=result))
            release = self._deployment.active
        if release:
            self._action = decide(release, self._facts(release, now_s, is_fresh=is_fresh), self._judgement)
            self._carry_out(release, self._action)
            # Counting begins with the first reading under a new weight, and what came before it is lost.
            self._look_if_due()
        self._publish(now_s)

    def _look_if_due(self) -> bool:
        now_s = self._clock()
        return self._deployment.stable is not None and now_s >= self._next_reading_s and self._look(now_s)

    def _look(self, now_s: float) -> bool:
        """Read the counters; have what is new in them judged. Whether anything was."""
        release = self._deployment.active
        self._next_reading_s = next_reading_s(release, now_s)
        try:
            failures = self._users.read(release)
            stable, split_s = self._deployment.stable or "", self._world.split_s
            seen = self._readings.read(release, self._world.backends(), stable=stable, split_s=split_s)
        except SourceUnreachable as error:
            self._metrics.source_unreachable.inc()
            if not self._is_blind:
                self._note("source_unreachable", f"{error.what}: {error.saw}")
            self._is_blind = True
            return False
        if self._is_blind:
            self._note("source_back", "the metric source answers again")
        self._is_blind = False
        if seen is None or seen.at_s < split_s:
            self._next_reading_s = now_s + BEAT_S  # the metric store has not read anew
        if seen is None:
            return False
        if seen.windows is None:
            self._users.skip(seen.at_s)
            return False
        self._recent.add(seen.windows, now_s)
        self._history.observe(seen.windows, now_s, release=release, stable=stable)
        if release is None or self._judge is None or release.phase not in (Phase.STEPPING, Phase.WATCHING):
            return False
        new = [*seen.windows, *self._users.windows(seen.windows, failures, is_mirrored=release.mirror)]
        if (user_phi := self._users.phi) is not None:
            self._judge.temper_pass({"errors": user_phi})
        self._judge.observe(release, new)
        self._judgement = self._judge.judgement(release)
        if self._judgement:
            self._metrics.release.judged(release, self._judgement)
            kept = new if release.phase is Phase.STEPPING else watched(new)
            self._write_tick(release, self._judgement, replace(seen, windows=kept), now_s)
        return True

    def _write_tick(self, release: Release, judgement: Judgement, seen: Seen, now_s: float) -> None:
        """Keep what a reading brought, so that a controller that was killed can go on from it."""
        action = decide(release, self._facts(release, now_s, is_fresh=True), judgement)
        tick = e.Ticked(
            at_s=seen.at_s,
            release=release.number,
            window_s=seen.window_s,
            weight_percent=release.weight_percent,
            mirror=release.mirror,
            counts=window_records(seen.windows or ()),
            evidence=evidence_record(judgement),
            user_phi=self._users.phi,
            action=type(action).__name__,
            why=action.reason,
        )
        self._write(tick, cursor=self._readings.latest, affected=self._users.progress())
        self._users.saved()
        log.info(
            "tick",
            release=release.number,
            canary=release.canary,
            weight_percent=release.weight_percent,
            verdict=judgement.verdict.value,
            action=type(action).__name__,
            log_e=round(judgement.log_e, 3),
        )

    def _facts(self, release: Release, now_s: float, *, is_fresh: bool) -> Facts:
        canary = self._fleet.status(release.canary)
        stable = self._fleet.status(release.stable)
        if canary.health is Health.READY:
            self._unready_since_s = None
        elif self._unready_since_s is None:
            self._unready_since_s = now_s
        return Facts(
            now_s=now_s,
            canary=canary.health,
            stable=stable.health,
            has_crashed=canary.has_crashed,
            canary_unready_s=now_s - self._unready_since_s if self._unready_since_s else 0.0,
            detail=canary.detail,
            is_measured=not self._is_blind,
            is_fresh=is_fresh,
            recent_canary=self._recent.canary,
            recent_stable=self._recent.stable,
            awaits_preflight=self._preflight.awaits(release),
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

    def _begin(self, release: Release, now_s: float) -> None:
        """The canary is ready: fix how noisy stable is, and open the judge."""
        phi, errors = self._history.phi(), self._history.errors
        if release.spec.sticky and "errors" in phi:
            phi[AFFECTED_USERS] = phi["errors"]  # whoever they hit, the bursts are the same
        self._write(
            e.CanaryReady(at_s=now_s, release=release.number, took_s=now_s - release.requested_s),
            e.Calibrated(
                at_s=now_s,
                release=release.number,
                phi=phi,
                history_s=self._history.span_s,
                stable_errors=(errors.bad, errors.total),
            ),
        )
        calibrated = self._deployment.active or release
        self._judge = ReleaseJudge(calibrated)
        self._users.begin(calibrated, since_s=self._world.split_s)

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
        self._next_reading_s = self._world.split_s
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
            if not isinstance(command, ReportDrift):  # which says nothing about the evidence
                self._judgement = None
            self._publish(self._clock())  # who asked and looks at once must see it
            log.info("command", command=type(command).__name__, by=getattr(command, "by", ""))
        for event in events:
            if isinstance(event, e.ReleaseRequested):
                self._next_number += 1
                self._recent = RecentErrors()
                self._judge = None
                self._preflight.forget()
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
