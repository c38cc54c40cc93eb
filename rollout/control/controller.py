"""The control loop: gather, judge, decide, write down, act. One pass is a beat. Only this loop changes the world.

A controller that is killed at any point continues where it was: its state is folded from the ledger, and every beat
puts in force what the state asks for.
"""

import math
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import structlog

from contract.errors import KanariaError
from rollout.control import commands, record
from rollout.control.after_promotion import watched
from rollout.control.calibration import Calibration
from rollout.control.clock import Clock, Instant, WallClock, system_clock
from rollout.control.command_queue import CommandQueue
from rollout.control.commands import Command, ForWhatWasSeen, ReportDrift, Restore, StartRelease, accept
from rollout.control.decide import Action, EnterStep, Facts, Hold, Promote, Rollback, decide
from rollout.control.fitted_plan import (
    asking,
    fitted,
    readable,
    refuse_callers_without_names,
    refuse_unknown_routes,
)
from rollout.control.ledger_place import LedgerPlace
from rollout.control.measure import Measure, Measurement
from rollout.control.metrics import ControllerMetrics
from rollout.control.preflight import Loss, Preflight
from rollout.control.quiet import QuietTicks
from rollout.control.reconcile import Reconciler
from rollout.control.record import Tick
from rollout.control.release_judge import ReleaseJudge, replayed
from rollout.control.release_run import ReleaseRun
from rollout.control.retries import earlier_try
from rollout.control.snapshot import Snapshot
from rollout.control.timing import BEAT_S, IDLE_BEAT_S, UNJUDGED_WINDOWS, next_reading_s
from rollout.control.trouble import Trouble
from rollout.control.writer import Writer
from rollout.errors import CommandRefused, LedgerError, LedgerTaken, RouterRefused, SourceUnreachable
from rollout.fleet import Fleet, Health
from rollout.format import span
from rollout.judge import Window
from rollout.ledger import events as e
from rollout.ledger.kept import KeptDecisions
from rollout.ledger.kept_history import KeptHistory
from rollout.ledger.ledger import Ledger
from rollout.ledger.reserve import reserve_of
from rollout.ledger.state import Deployment, Desired, Phase, Release, desired, fold
from rollout.room import LOW_BYTES, free_bytes
from rollout.routers.router import FailureLog, GatewayHealth, GatewayState, ObservedSplit, SegmentLog, TrafficRouter
from rollout.signals.catalogue import AFFECTED_USERS, ANSWERED_ELSEWHERE, SEGMENT
from rollout.signals.counters import Reading
from rollout.signals.sticky_users import Progress
from rollout.sources.source import MetricSource, Observer
from rollout.spec import RolloutSpec

log = structlog.get_logger()

_SHOWN_LOSSES = 5
SILENCED_AFTER_S = 3.0  # a split that is refused for this long stays refused; a killed gateway is back sooner


class Controller:
    """The control loop of one deployment. `run` blocks; `submit` may be called from any thread."""

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
        gateway: GatewayState | None = None,
        segments: SegmentLog | None = None,
        observer: Observer | None = None,
        clock: Clock = system_clock,
        reserve_bytes: int = 0,
    ) -> None:
        """
        Args:
            open_ledger: opens the ledger for writing.
            router: sets the split of the traffic.
            source: reads the counters.
            failures: failed requests of a sticky release.
            fleet: starts and stops versions.
            metrics: the controller's own metrics.
            preflight: None: no preflight is wanted.
            gateway: the data plane as its clients see it; None: not watched.
            segments: values that may become segments; None: only values that a plan lists.
            observer: compares the answers of versions that do not count them; None: nothing does.
            clock: wall clock and steady clock.
            reserve_bytes: room on the ledger's disk to reserve beforehand.
        """
        self._open_ledger, self._reserve_bytes = open_ledger, reserve_bytes
        self._fleet, self._metrics, self._clock = fleet, metrics, clock
        self._router, self._world = router, Reconciler(router, fleet, clock)
        self._failures, self._preflight, self._gateway = failures, preflight, gateway
        self._observer, self._segments = observer, segments
        self._run = ReleaseRun(failures, preflight, requested_s=clock().steady_s)
        self._wall_clock = WallClock()
        self._queue = CommandQueue()
        self._stop, self._has_looked = threading.Event(), threading.Event()
        self._measure = Measure(source)
        self._source_trouble: str | None = None
        self._next_reading_s = -math.inf  # on the steady clock
        self._calibration = Calibration()
        self._quiet = QuietTicks()
        self._action: Action = Hold("started")
        self._trouble = Trouble()
        self._is_recovered = False
        self._refusal = ""  # why the router refused the newest split; empty: it did not
        # Since when the router has refused to take out a version that was rolled back; on the steady clock.
        self._kept_in_since_s: float | None = None
        self._is_silenced = False  # whether that version was suspended, which is noted once
        self._deployment = Deployment()
        self.snapshot = Snapshot(Deployment(), None, None, {}, "starting", 0.0, -math.inf)

    # ---- other threads

    def submit(self, command: Command | ForWhatWasSeen, *, timeout_s: float = 30.0) -> int | None:
        """Submit a command and wait until it is in the ledger.

        Returns: the number of the release that it concerns.
        Raises: CommandRefused, LedgerError; TimeoutError if the loop does not answer.
        """
        return self._queue.submit(command, timeout_s=timeout_s)

    def has_looked(self, *, within_s: float) -> bool:
        """Wait until the loop has tried to read the ledger; before that, the snapshot has no release."""
        return self._has_looked.wait(within_s)

    def is_beating(self, within_s: float) -> bool:
        """Whether the loop finished a beat within the last `within_s` seconds."""
        return self._clock().steady_s - self.snapshot.steady_s <= within_s

    def stop(self) -> None:
        """Make `run` return after the present beat."""
        self._stop.set()
        self._queue.wake()

    # ---- the loop

    def run(self) -> None:
        """Beat until `stop` is called. Raises LedgerTaken."""
        try:
            while not self._stop.is_set():
                left_s = self._next_reading_s - self._clock().steady_s  # end the wait early if a reading is due
                beat_s = IDLE_BEAT_S if self._is_idle else BEAT_S
                self.turn(wait_s=left_s if 0 < left_s < beat_s else beat_s)
        finally:
            if self._is_recovered:
                self.close()

    def turn(self, *, wait_s: float) -> None:
        """Answer commands for `wait_s` seconds, then do one beat. Failures are logged, counted and shown.

        Raises: LedgerTaken.
        """
        try:
            if self._is_recovered:
                self._queue.serve(self.execute, wait_s=wait_s)
            else:
                self.recover()
            self.beat()
        except LedgerTaken:
            raise  # this process's state is out of date: it must not act on it
        except Exception as error:  # noqa: BLE001 - the one place where the loop survives any error
            self._failed(error)
            if not self._is_recovered:
                self._stop.wait(wait_s)
        else:
            self._trouble.over()

    @property
    def _is_idle(self) -> bool:
        """Whether nothing is likely to happen before the next reading."""
        seen = self.snapshot
        is_well = all(health is Health.READY for health in seen.health.values()) and not seen.troubles
        return is_well and seen.deployment.active is None and seen.observed is not None and not self._trouble.beats

    def close(self) -> None:
        """Write what waits, and close the ledger."""
        if self._is_recovered:
            with suppress(LedgerTaken):  # the process that took it continues from its newest event
                self._keep_held()
            self._writer.flush()
            self._history.write(self._calibration.ticks(), self._clock().steady_s)
        self._ledger.close()

    def _failed(self, error: Exception) -> None:
        """Handle a failed beat. Never raises."""
        # Read with the next beat: otherwise the beats between two readings would hide a failure of every reading.
        self._next_reading_s = -math.inf
        is_new = self._trouble.failed(error)
        self._metrics.failed_beats.inc()
        is_a_fault = is_new and not isinstance(error, KanariaError)  # log a traceback once, not with every beat
        log.warning(
            "beat_failed", error=str(error), in_a_row=self._trouble.beats, exc_info=error if is_a_fault else None
        )
        try:
            if self._trouble.must_return:
                self._return_to_stable()
        except KanariaError as refused:
            log.warning("cannot_return_to_stable", error=str(refused))
        except Exception:
            log.exception("cannot_return_to_stable")
        self._metrics.failed_in_a_row.set(self._trouble.beats)
        seen = self.snapshot  # keep the time of the last complete beat
        if self._is_recovered:
            seen = replace(seen, deployment=self._deployment, head=self._ledger.last, unwritten=self._writer.waiting)
        self.snapshot = replace(seen, troubles=self._troubles(), gateway=self._gateway_health())

    def _return_to_stable(self) -> None:
        """Give the canary's traffic back to stable, because nobody can judge the canary. This needs only the gateway.

        It is not the canary's fault, so the release is aborted, without quarantine. A version in its watch stays,
        because it was judged. A controller that cannot read its ledger writes nothing; later the release goes on.
        Raises RouterRefused.
        """
        if not self._is_recovered:
            if self._world.give_all_to_stable():
                log.critical("returned_to_stable", reason=self._trouble.sentence)
            return
        release = self._deployment.active
        if release is None or release.phase is not Phase.STEPPING or release.weight_percent == 0:
            return
        split = self._world.give_all_to(release.stable)
        if split is None:
            return
        reason = self._trouble.sentence or ""
        self._keep(e.Aborted(at_s=self._clock().wall_s, release=release.number, reason=reason, by="controller"))
        self._put_in_force(split)
        log.critical("returned_to_stable", release=release.number, canary=release.canary, reason=reason)

    def recover(self) -> None:
        """Fold the ledger, and replay the running release's evidence through a new judge."""
        try:
            self._ledger = self._open_ledger()
            try:
                self._recover()
            except BaseException:
                self._ledger.close()
                raise
            self._is_recovered = True
            self.snapshot = replace(self.snapshot, deployment=self._deployment, head=self._ledger.last)
        finally:
            self._has_looked.set()

    def _recover(self) -> None:
        kept = KeptDecisions(self._ledger.path, self._ledger.identity)
        self._writer = Writer(self._ledger, kept, reserve_of(self._ledger.path, self._reserve_bytes))
        self._place = LedgerPlace(self._ledger)
        self._history = KeptHistory(self._ledger.path, self._ledger.identity)
        now = self._clock()
        self._calibration.restore(self._history.read(), wall_s=now.wall_s, now_s=now.steady_s)
        self._deployment = fold(self._ledger.events(without_ticks=True))
        newest = self._deployment.release
        self._next_number = newest.number + 1 if newest else 1
        release = self._deployment.active
        if release is None:
            kept.clear()  # it belongs to a release that has ended
            return
        own = list(self._ledger.events(release=release.number))
        self._deployment = fold(own, self._deployment)
        release = self._deployment.active
        if release is None:
            return
        self._run.judge = replayed(own)
        self._measure.latest = self._ledger.cursor()  # events counted while no controller ran are evidence, once
        wish = desired(self._deployment)
        for event in own:
            if isinstance(event, e.Applied):
                # The event does not name the fallback, which exists only together with a split for stable alone.
                fallback = wish.fallback if (event.stable, event.canary) == (wish.stable, None) else None
                split = ObservedSplit(
                    event.stable, event.canary, event.weight_percent, event.mirror, fallback, event.compare_percent
                )
                self._world.adopt(split, event.at_s)
        now = self._clock()
        self._run.requested_s = now.steady_s - max(0.0, now.wall_s - release.requested_s)
        self._run.users.begin(release, since_s=self._world.split.wall_s, known=self._ledger.affected())
        self._keep(*kept.missing(release, own))
        self._keep(
            e.Noted(
                at_s=now.wall_s,
                release=release.number,
                topic="controller_started",
                text="the controller was restarted and continued where it was",
            )
        )

    def beat(self) -> None:
        """One pass: put in force what the state asks for, measure, decide, act."""
        now = self._clock()
        if done := self._place.keep(now):
            self._note("ledger_put_back", done)
        if self._writer.flush():
            self._run.users.saved()
        self._notice_a_jump(now)
        self._reconcile()
        if self._is_loading():
            self._run.was_loading, self._run.loaded_since_s = True, now.steady_s
        is_fresh, tick = self._measure_if_due()
        self._continue_preflight()
        self._advance(now, is_fresh=is_fresh, tick=tick)
        # Counting begins with the first reading under a new weight, and events before it are lost: read at once.
        is_fresh, tick = self._measure_if_due()
        if is_fresh:
            self._advance(now, is_fresh=True, tick=tick)
        self._history.write_if_due(self._calibration.ticks, now.steady_s)
        self._publish(now)

    def _notice_a_jump(self, now: Instant) -> bool:
        """Whether the wall clock was set since the last call. If so, counting restarts: windows use its times."""
        jumped_s = self._wall_clock.jumped_s(now)
        if not jumped_s:
            return False
        self._measure.restart_counting()
        self._world.wall_clock_jumped(jumped_s)
        self._run.users.wall_clock_jumped(jumped_s)
        self._note("clock_jumped", f"this machine's clock was set {_by(jumped_s)}; counting starts again from here")
        return True

    # ---- gathering

    def _measure_if_due(self) -> tuple[bool, Tick | None]:
        """Read the counters if a reading is due. Returns whether there was anything to judge, and the tick to write."""
        now = self._clock()
        if self._deployment.stable is None or now.steady_s < self._next_reading_s:
            return False, None
        release, run, stable = self._deployment.active, self._run, self._deployment.stable
        self._next_reading_s = next_reading_s(release, now.steady_s)
        if run.was_loading:
            self._measure.restart_counting()  # requests refused while no version can answer are not evidence
            run.was_loading = self._is_loading()
        measured = self._measured(release, stable, now)
        if measured is None or measured.windows is None:
            return False, None
        self._find_segments(release)
        self._count_refusals(release, measured.windows, now)
        is_warming_up = release is not None and release.is_warming_up
        run.recent.add(measured.windows, now.steady_s, is_warming_up=is_warming_up)
        self._calibration.observe(measured.windows, now.steady_s, release=release, stable=stable)
        if release is None or run.judge is None or release.phase not in (Phase.STEPPING, Phase.WATCHING):
            return False, None
        selected = release.spec.signals.selection().of(measured.windows)
        affected = run.users.windows(selected, is_mirrored=release.mirror)
        run.was_judged(selected, now.steady_s)
        came = release.spec.signals.labels_came(measured.windows)
        saved = [each for each in measured.windows if each.signal == ANSWERED_ELSEWHERE and _has_bad(each)]
        tick = self._judged(release, run.judge, measured, [*selected, *affected, *came, *saved])
        if tick:
            after = release.measured(measured.window_s, tick.windows, tick.judgement)
            self._next_reading_s = next_reading_s(after, now.steady_s)
        return True, tick

    def _is_loading(self) -> bool:
        """Whether a version with traffic is loading, as after a reboot, when the gateway is up first."""
        wish = desired(self._deployment)
        loads = [self._fleet.status(tag).health is Health.STARTING for tag in (wish.stable, wish.canary) if tag]
        release = self._deployment.active
        return any(loads) and not (release and release.phase is Phase.STARTING)

    def _measured(self, release: Release | None, stable: str, now: Instant) -> Measurement | None:
        """The counts since the previous reading; None where they are not known."""
        run = self._run
        try:
            run.users.read(release)
            newest = self._deployment.release  # its own signals are counted between releases: the next needs a history
            own = newest.spec.signals.own_counters if newest else ()
            reading = self._measure.read(release, self._world.backends(), own)
        except SourceUnreachable as error:
            self._metrics.source_unreachable.inc()
            if not run.is_blind:
                self._note("source_unreachable", f"{error.what}: {error.saw}")
            run.is_blind = True
            return None
        if run.is_blind:
            self._note("source_back", "the metric source answers again")
        run.is_blind = False
        self._note_trouble(self._measure.trouble)
        if self._notice_a_jump(self._clock()):
            return None  # it is unknown whether this reading got its time before or after the jump
        if release and release.phase is not Phase.STARTING and not self._world.is_in_force(desired(self._deployment)):
            self._measure.restart_counting()  # the weight in force is not the one in the state
        split = self._world.split
        measured = self._measure.take(reading, release, stable=stable, split=split, now=now)
        if measured is None or measured.at_s < split.wall_s:
            self._next_reading_s = now.steady_s + BEAT_S  # the metric store has nothing newer yet
        if measured and measured.jumped_s:
            text = f"the clock of the metric source was set {_by(measured.jumped_s)}; counting starts again from here"
            self._note("clock_jumped", text)
        if measured and measured.windows is None:
            run.users.skip(measured.at_s)
        return measured

    def _find_segments(self, release: Release | None) -> None:
        """Write down the values that become segments; the gateway counts them separately from the next beat on."""
        if self._segments is None:
            return
        segments = release.segments if release else None
        try:
            if release is None or segments is None or not segments.is_open:
                self._segments.clear()
                return
            asked = self._segments.read(release.stable)
        except SourceUnreachable as error:
            if not self._run.lacks_segments:
                self._note("segments_unread", f"{error.what}: {error.saw}")
            self._run.lacks_segments = True
            return
        if names := self._run.segments.found(asked, known=segments.names):
            self._keep(e.SegmentsFound(at_s=self._clock().wall_s, release=release.number, names=names))

    def _count_refusals(self, release: Release | None, windows: Sequence[Window], now: Instant) -> None:
        """Check what the data plane refuses while a release waits for requests, and note it once."""
        if release is None or release.phase not in (Phase.STEPPING, Phase.WATCHING):
            return
        refusals, is_counted = self._run.refusals, any(window.signal == "errors" for window in windows)
        refusals.saw(now.steady_s, is_counted=is_counted, refused=self._router.refused)
        if not refusals.is_noted and (words := refusals.words(release.spec.window)):
            refusals.is_noted = True
            self._note(e.REQUESTS_REFUSED, words)

    def _note_trouble(self, trouble: str | None) -> None:
        """Note a problem that the source works around, once when it begins and once when it is over."""
        if trouble and not self._source_trouble:
            self._note("store_unreachable", trouble)
        elif self._source_trouble and not trouble:
            self._note("store_back", "all counters are read as usual again")
        self._source_trouble = trouble

    def _judged(
        self, release: Release, judge: ReleaseJudge, measured: Measurement, windows: Sequence[Window]
    ) -> Tick | None:
        """Pass new windows to the judge; None where nothing is judged."""
        if (user_phi := self._run.users.phi) is not None:
            judge.temper_pass({"errors": user_phi})
        judge.observe(release, windows)
        judgement = self._run.judgement = judge.judgement(release)
        if judgement is None:
            return None
        self._metrics.release.judged(release, judgement)
        is_compared = release.phase is Phase.STEPPING or release.held_back_percent > 0
        saved = [window for window in windows if window.signal == ANSWERED_ELSEWHERE]
        return Tick(measured, windows if is_compared else [*watched(windows), *saved], judgement)

    def _continue_preflight(self) -> None:
        """Start the canary's preflight if one is due, and write down its result."""
        release = self._deployment.active
        if release and self._run.preflight.is_due(release):
            statuses = (self._fleet.status(tag) for tag in (release.canary, release.stable))
            result = self._run.preflight.result(release, *statuses)
            if result:
                self._keep(e.Preflighted(at_s=self._clock().wall_s, release=release.number, result=result))

    def _facts(self, release: Release, now_s: float, *, is_fresh: bool) -> Facts:
        """What this beat observed; `now_s` is on the steady clock."""
        canary = self._fleet.status(release.canary)
        return Facts(
            in_phase_s=self._run.in_phase_s(now_s),
            unseen_s=self._run.unseen_s(now_s),
            canary=canary.health,
            stable=self._fleet.status(release.stable).health,
            has_crashed=canary.has_crashed,
            restarts=canary.restarts,
            canary_unready_s=self._run.unready_s,
            detail=canary.detail,
            preparing=canary.preparing,
            is_measured=not self._run.is_blind,
            is_fresh=is_fresh,
            recent_canary=self._run.recent.canary,
            recent_stable=self._run.recent.stable,
            awaits_preflight=self._run.preflight.is_due(release),
        )

    # ---- deciding

    def _advance(self, now: Instant, *, is_fresh: bool, tick: Tick | None) -> None:
        """Decide once, write the tick and the decision down together, then carry it out."""
        release = self._deployment.active
        if release is None:
            return
        if tick:
            release = release.measured(tick.measured.window_s, tick.windows, tick.judgement)
        self._run.saw_release(release, now.steady_s)
        canary = self._fleet.status(release.canary)
        if release.phase is not Phase.STARTING:
            self._run.saw_canary(canary.health, now.steady_s)
        elif canary.preparing:
            self._run.is_preparing(now.steady_s)
        action = decide(release, self._facts(release, now.steady_s, is_fresh=is_fresh), self._run.judgement)
        self._note_differences(release, action)
        decision = record.decision(
            release,
            action,
            self._run.judgement,
            self._clock().wall_s,
            took_s=now.steady_s - self._run.requested_s,
            calibrated=lambda: self._calibrated(release),
        )
        if not self._record(release, tick, action, decision):
            action, decision = Hold("the ledger cannot be written: no step without its record"), ()
            self._record(release, tick, action, decision)
        self._action = action
        if tick:
            log.info(
                "tick",
                release=release.number,
                canary=release.canary,
                weight_percent=release.weight_percent,
                verdict=tick.judgement.verdict.value,
                action=type(action).__name__,
                log_e=round(tick.judgement.log_e, 3),
            )
        if decision:
            self._carry_out(release, action)
        else:
            self._keep(*self._run.asking.news(release, action, self._clock()))

    def _note_differences(self, release: Release, action: Action) -> None:
        """Note in which fields answers differ when a person is asked, or the canary moves on or is rolled back.

        They are noted even if the canary moves on: a difference on one route is a small share of all answers.
        """
        is_over = isinstance(action, Rollback | EnterStep | Promote)
        is_asked = isinstance(action, Hold) and action.needs_person
        if self._observer is None or not release.has_pairs or not (is_over or (is_asked and not self._run.differences)):
            return
        found = self._observer.differences(stable=release.stable, canary=release.canary)
        if found and found != self._run.differences:
            self._run.differences = found
            self._note(e.ANSWERS_DIFFER, found)

    def _record(self, release: Release, tick: Tick | None, action: Action, decision: tuple[e.Event, ...]) -> bool:
        """Write a tick and the decision based on it. Returns whether the decision may be carried out."""
        ticked = (record.ticked(release, tick, action, user_phi=self._run.users.phi),) if tick else ()
        cursor = self._measure.latest if tick else None
        # While the guard has requests to judge, each reading must be recorded: it spends a part of `alpha`.
        is_still = not decision and isinstance(action, Hold) and not self._run.recent.canary.total
        if ticked and (after := self._quiet.takes(*ticked, self._deployment, cursor, is_still=is_still)):
            self._deployment = after
            if self._quiet.is_due:
                self._keep_held()
            return True
        affected = self._run.users.progress() if tick else None
        if record.is_safe(release, action):
            self._keep(*ticked, *decision, cursor=cursor, affected=affected)
        else:
            try:
                self._write(*ticked, *decision, cursor=cursor, affected=affected)
            except LedgerError:
                return False
        if tick and not self._writer.waiting:
            self._run.users.saved()
        return True

    def _calibrated(self, release: Release) -> e.Calibrated:
        """How noisy stable's counts are, and how often it fails."""
        noise = self._calibration.noise(release.spec.signals.selection())
        if release.spec.sticky and "errors" in noise:
            noise[AFFECTED_USERS] = noise["errors"]  # the same bursts affect both
        like_all = [noise[name] for name in ("errors", "rejected") if name in noise]
        if release.spec.segments and like_all:  # segments have no history of their own
            noise[SEGMENT] = max(like_all, key=lambda one: one.of_comparison(0.5))
        return e.Calibrated(
            at_s=self._clock().wall_s,
            release=release.number,
            phi={signal: one.blips for signal, one in noise.items()},
            noise=noise,
            history_s=self._calibration.span_s,
            stable_errors=self._calibration.errors,
        )

    # ---- acting

    def _carry_out(self, before: Release, action: Action) -> None:
        """Put in force what was decided and written down."""
        log.info("decided", release=before.number, action=type(action).__name__, reason=action.reason)
        now = self._deployment.active
        if now and before.phase is Phase.STARTING and now.phase in (Phase.STEPPING, Phase.WATCHING):
            self._run.judge = ReleaseJudge(now)
            self._run.users.begin(now, since_s=self._world.split.wall_s)
        self._run.judgement = None  # the next step needs a new verdict: no step on a stale one
        self._reconcile()

    def _reconcile(self) -> None:
        """Put in force what the state asks for, and write down the changes."""
        wish = desired(self._deployment)
        try:
            self._world.start(wish)
        finally:
            self._shift(wish)  # even if a version cannot be started: traffic must not stay where it is
        is_settled = self._world.stop(wish)
        release = self._deployment.active
        if release and release.phase is Phase.LEAVING and release.outcome and is_settled:
            self._keep(e.Ended(at_s=self._clock().wall_s, release=release.number, outcome=release.outcome))

    def _shift(self, wish: Desired) -> None:
        try:
            split = self._world.shift(wish)
        except RouterRefused as error:
            self._metrics.router_failures.inc()
            if error.what != self._refusal:  # note it once; each beat tries again
                self._note("router_refused", f"{error.what}: {error.saw}")
            self._refusal = error.what
            self._silence()
            raise
        self._refusal, self._kept_in_since_s, self._is_silenced = "", None, False
        if split is None:
            return
        self._put_in_force(split)

    def _silence(self) -> None:
        """Suspend a version that was rolled back if the gateway keeps sending it requests: it must answer nobody."""
        release, now_s = self._deployment.active, self._clock().steady_s
        if release is None or release.phase is not Phase.LEAVING or release.outcome not in ("rolled_back", "aborted"):
            return
        if self._kept_in_since_s is None:
            self._kept_in_since_s = now_s
        if now_s - self._kept_in_since_s < SILENCED_AFTER_S:
            return
        # At every beat: a suspended process that is killed is started again, and would answer.
        if self._world.silence(release.canary, other=release.stable) and not self._is_silenced:
            self._is_silenced = True
            text = f"the gateway refuses every split without {release.canary}, so its processes are suspended"
            self._note("suspended", f"{text} and {release.stable} answers in its place")

    def _put_in_force(self, split: ObservedSplit) -> None:
        """Write down a split that is now in force; counting begins with it."""
        release = self._deployment.active
        self._next_reading_s = self._world.split.steady_s
        self._keep(
            e.Applied(
                at_s=self._world.split.wall_s,
                release=release.number if release else None,
                stable=split.stable,
                canary=split.canary,
                weight_percent=split.canary_percent,
                mirror=split.mirror,
                compare_percent=split.compare_percent,
            )
        )

    # ---- writing

    def execute(self, command: Command | ForWhatWasSeen) -> int | None:
        """Carry out a command in the loop's own thread. Raises CommandRefused, LedgerError.

        A command that only makes traffic safer is carried out even while the ledger cannot be written.
        """
        if isinstance(command, ForWhatWasSeen):
            command = command.for_now(self._deployment)
        left_out = ""
        # No other command may fail because the list of versions cannot be read, least of all a rollback.
        needs_tags = isinstance(command, commands.SetStable | StartRelease | Restore)
        if isinstance(command, StartRelease | Restore):
            command, left_out = self._fitted(command)
        elif isinstance(command, commands.SetStable) and command.answers and command.tag in self._fleet.known_tags():
            answers = readable(command.answers, command.tag, self._fleet.service(command.tag))
            command = replace(command, answers=answers)
        events = accept(
            command,
            self._deployment,
            known_tags=self._fleet.known_tags() if needs_tags else (),
            next_number=self._next_number,
            now_s=self._clock().wall_s,
            earlier=self._earlier_try(command) if isinstance(command, StartRelease) else None,
            left_out=left_out,
            is_better=self._run.judge is not None and self._run.judge.is_better,
        )
        if isinstance(command, StartRelease):
            self._refuse_losses(command)
        if events:
            (self._keep if commands.are_safe(events) else self._write)(*events)
            if not isinstance(command, ReportDrift):  # a drift report does not change the judge's evidence
                self._run.judgement = None
            if any(isinstance(event, e.ReleaseRequested) for event in events):
                self._next_number += 1
                self._run = ReleaseRun(self._failures, self._preflight, requested_s=self._clock().steady_s)
            self._publish(self._clock())  # the sender must see the effect at once
            log.info("command", command=type(command).__name__, by=getattr(command, "by", ""))
        release = self._deployment.release
        return release.number if release else None

    def _fitted(self, command: StartRelease | Restore) -> tuple[StartRelease | Restore, str]:
        """The command with a plan that fits its versions, and what was removed from it. Raises CommandRefused."""
        stable = self._deployment.stable
        if stable is None or command.tag not in self._fleet.known_tags():
            return command, ""  # `accept` will refuse it
        services = self._fleet.service(command.tag), self._fleet.service(stable)
        if isinstance(command, Restore):
            newest = self._deployment.release
            lost = tuple(dict.fromkeys(loss.place for loss in self._losses(command.tag)))
            wanted = (newest.spec if newest else RolloutSpec()).without_steps(may_break=lost)
            spec, left_out = fitted(wanted, command.tag, *services)
            return replace(command, spec=spec), left_out
        refuse_unknown_routes(command.spec.golden, *services)
        refuse_callers_without_names(command.spec, asks_for_keys=self._router.asks_for_keys)
        spec, left_out = fitted(command.spec, command.tag, *services, is_observed=self._observer is not None)
        now_s = self._clock().steady_s
        spec, asks = asking(spec, lambda counted: self._calibration.known_s(counted, now_s))
        return replace(command, spec=spec), "; ".join(filter(None, (left_out, asks)))

    def _refuse_losses(self, command: StartRelease) -> None:
        """Refuse a version that lacks what callers of stable use, unless its plan allows it. Raises CommandRefused."""
        lost = [loss for loss in self._losses(command.tag) if not loss.is_allowed(command.spec.may_break)]
        if lost:
            shown = [loss.says for loss in lost[:_SHOWN_LOSSES]]
            more = [f"and {len(lost) - len(shown)} more like these"] if len(lost) > len(shown) else []
            raise CommandRefused(
                f"{command.tag} would break requests of {self._deployment.stable}'s callers",
                saw="; ".join(shown + more),
                do=f"build it with what is missing; or allow it in the plan: `may_break: "
                f"[{', '.join(dict.fromkeys(loss.place for loss in lost))}]`",
            )

    def _losses(self, tag: str) -> tuple[Loss, ...]:
        """What callers of stable would miss in a version; nothing without a preflight."""
        stable = self._deployment.stable
        return self._preflight.losses(tag, stable) if self._preflight and stable else ()

    def _earlier_try(self, command: StartRelease) -> e.EarlierTry | None:
        """What a release takes over from the previous one of the same two versions. Raises LedgerError."""
        stable = self._deployment.stable
        number = self._deployment.tried.get((stable, command.tag)) if stable else None
        if number is None:
            return None
        self._writer.flush()  # events that are not in the ledger yet are needed as well
        events = tuple(self._ledger.events(release=number, without_ticks=True))
        return earlier_try(events, self._ledger.last_tick(number), command.spec)

    def _write(self, *events: e.Event, cursor: Reading | None = None, affected: Progress | None = None) -> None:
        """Write events that take effect only once they are written. Raises LedgerError."""
        if events:
            events = (*self._quiet.held, *events)
            self._writer.write(*events, cursor=cursor or self._quiet.cursor, affected=affected)
            self._folded(events)

    def _keep(self, *events: e.Event, cursor: Reading | None = None, affected: Progress | None = None) -> None:
        """Apply events at once and write them as soon as possible: facts, and what makes traffic safer."""
        if events:
            events = (*self._quiet.held, *events)
            self._writer.keep(*events, cursor=cursor or self._quiet.cursor, affected=affected)
            self._folded(events)

    def _keep_held(self) -> None:
        """Write the quiet measurement that is held back."""
        if self._quiet.held:
            self._writer.keep(*self._quiet.held, cursor=self._quiet.cursor)
            self._quiet.written()

    def _folded(self, events: tuple[e.Event, ...]) -> None:
        """Apply `events`, which begin with what was held back, to the state."""
        self._deployment = fold(events, self._quiet.before(self._deployment))
        self._quiet.written()

    def _note(self, topic: str, text: str) -> None:
        release = self._deployment.active
        log.warning("noted", topic=topic, text=text)
        at_s = self._clock().wall_s
        self._keep(e.Noted(at_s=at_s, release=release.number if release else None, topic=topic, text=text))

    def _publish(self, now: Instant) -> None:
        versions = {tag: self._fleet.status(tag) for tag in self._fleet.running()}
        last_action = f"{type(self._action).__name__}: {self._action.reason}"
        self.snapshot = Snapshot(
            self._deployment,
            self._world.observed,
            self._run.judgement,
            {tag: status.health for tag, status in versions.items()},
            last_action,
            now.wall_s,
            now.steady_s,
            backends={tag: status.backends for tag, status in versions.items()},
            restarts={tag: status.restarts for tag, status in versions.items()},
            preparing={tag: status.preparing for tag, status in versions.items() if status.preparing},
            head=self._ledger.last,
            unwritten=self._writer.waiting,
            free_bytes=free_bytes(self._ledger.path.parent),
            troubles=self._troubles(),
            loaded_s=now.steady_s - self._run.loaded_since_s,
            gateway=self._gateway_health(),
            refused=self._refused(),
            unjudged_s=self._unjudged_s(now.steady_s),
        )
        self._metrics.publish(self.snapshot)
        self._metrics.failed_in_a_row.set(self._trouble.beats)
        self._metrics.ledger_gone.set(self._place.trouble is not None)

    def _gateway_health(self) -> GatewayHealth:
        return self._gateway.health if self._gateway else GatewayHealth.UNKNOWN

    def _troubles(self) -> tuple[str, ...]:
        """Problems that a person must fix, in words, the worst first."""
        gateway = self._gateway.trouble if self._gateway else None
        if not self._is_recovered:
            return tuple(filter(None, [gateway, self._trouble.sentence]))
        place, writer = self._place.trouble, self._writer.trouble
        found = [gateway, self._trouble.sentence, place, writer, self._low(), self._unjudged(), self._source_trouble]
        return tuple(filter(None, found))

    def _low(self) -> str | None:
        """The warning that the disk is almost full; None: it is not."""
        folder = self._ledger.path.parent
        if (free := free_bytes(folder)) >= LOW_BYTES:
            return None
        left = f"the disk of the state folder is almost full: {free / 1e6:.0f} MB are left in {folder}"
        return f"{left}; make room: once nothing can be written, no version gets more traffic"

    def _refused(self) -> str:
        """Requests that were refused while the release waits for requests, in words; empty: none."""
        release = self._deployment.active
        return self._run.refusals.words(release.spec.window) if release else ""

    def _unjudged_s(self, now_s: float) -> float:
        """For how long a release that should be judged has not been, seconds; a few windows do not count."""
        release = self._deployment.active
        if release is None or release.phase not in (Phase.STEPPING, Phase.WATCHING):
            return 0.0
        unjudged_s = self._run.unjudged_s(now_s)
        return unjudged_s if unjudged_s > UNJUDGED_WINDOWS * release.spec.window else 0.0

    def _unjudged(self) -> str | None:
        """The warning that the release is not judged; None: it is."""
        unjudged_s = self._unjudged_s(self._clock().steady_s)
        why = (
            "there is no reading of the counters"
            if self._run.is_blind
            else "no reading can be compared with the one before"
        )
        return f"the release has not been judged for {span(unjudged_s)}: {why}" if unjudged_s else None


def _has_bad(window: Window) -> bool:
    return window.stable.bad > 0 or window.canary.bad > 0


def _by(seconds: float) -> str:
    """By how much a clock was set, in words."""
    return f"{span(abs(seconds))} {'ahead' if seconds > 0 else 'back'}"
