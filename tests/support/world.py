"""A small world for the controller: versions, users and a clock, all in memory and seeded.

Its router is the in-memory one that passes the routers' contract; its fleet and its source follow the
Protocols of the controller. Events are random, but the same in every run.
"""

import contextlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from contract.http import ANSWER_TIMEOUT_S
from rollout.compare import copied
from rollout.control.clock import Instant
from rollout.control.controller import Controller
from rollout.control.metrics import ControllerMetrics
from rollout.control.preflight import Preflight
from rollout.control.timing import BEAT_S
from rollout.errors import RouterRefused, SourceUnreachable
from rollout.fleet import CONTRACT, Backend, Health, Service, VersionStatus
from rollout.judge import Pair
from rollout.ledger.ledger import Ledger
from rollout.routers.router import SegmentLog
from rollout.signals.catalogue import ANSWERED_ELSEWHERE
from rollout.signals.counters import Reading, SeriesKey
from rollout.signals.custom import OwnCounter
from rollout.signals.options import LATENCY_BOUNDS_MS
from rollout.signals.sticky_users import UserFailure
from rollout.sources.source import Observer
from tests.support.memory_router import MemoryRouter


class Router(MemoryRouter):
    """The in-memory router, open for tests that wrap its methods."""


@dataclass
class Version:
    """How one version behaves."""

    error_ratio: float = 0.0
    slow_ratio: float = 0.01  # answers slower than any bound
    classes: tuple[float, ...] = (0.25, 0.25, 0.25, 0.25)  # shares of the predicted classes
    rejected_ratio: float | None = None  # share of its answers that call the request wrong; None: not counted
    read_ratio: float = 1.0  # share of its answers whose class and confidence are counted
    differs_ratio: float = 0.0  # share of its answers to copied requests that differ from stable's
    lost_ratio: float | None = None  # share of these for which labels say that stable was right; None: no labels
    start_s: float = 2.0
    prepare_s: float = 0.0  # how long it takes to make its environment before the start
    prepared_s: float = 0.0
    health: Health = Health.ABSENT
    ready_s: float = 0.0
    has_crashed: bool = False
    restarts: int = 0
    starts_at_all: bool = True
    hangs: bool = False  # it accepts requests and does not answer
    service: Service = CONTRACT
    hang_ratio: float = 0.0  # share of its requests that it never answers; they fail at the gateway's timeout


@dataclass(frozen=True)
class Hanging:
    """Requests that wait for the gateway's timeout."""

    until_s: float
    tag: str
    requests: int
    are_copies: bool


@dataclass
class Failures:
    """The FailureLog: what the gateway of a sticky split wrote. Offsets are indices."""

    written: list[UserFailure] = field(default_factory=list)
    is_readable: bool = True

    def read(self, offset: int) -> tuple[list[UserFailure], int]:
        if not self.is_readable:
            raise SourceUnreachable("the log cannot be read", saw="permission denied", do="wait")
        start = offset if offset <= len(self.written) else 0
        return self.written[start:], len(self.written)

    def trim(self, offset: int) -> int:
        return offset

    def clear(self) -> None:
        self.written.clear()


@dataclass
class World:
    """Everything outside the controller."""

    path: Path
    rps: float = 100.0
    seed: int = 7
    now_s: float = 1_800_000_000.0
    steady_s: float = 1000.0
    versions: dict[str, Version] = field(default_factory=dict)
    router: Router = field(default_factory=Router)
    is_source_up: bool = True
    is_compared: bool = True  # whether answers to copied requests are compared with stable's
    preflight: Preflight | None = None
    observer: Observer | None = None
    failures: Failures = field(default_factory=Failures)
    segments: SegmentLog | None = None
    reserve_bytes: int = 0  # disk space that the controller reserves for the ledger
    hanging: list[Hanging] = field(default_factory=list)
    hung: int = 0  # users' requests that were never answered

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.counters: defaultdict[SeriesKey, Pair] = defaultdict(lambda: Pair(0, 0))

    # ---- the Fleet

    def known_tags(self) -> tuple[str, ...]:
        return tuple(self.versions)

    def service(self, tag: str) -> Service:
        return self.versions[tag].service

    def start(self, tag: str) -> None:
        version = self.versions[tag]
        if version.health is Health.ABSENT:
            version.health, version.has_crashed = Health.STARTING, False
            version.prepared_s = self.steady_s + version.prepare_s
            version.ready_s = version.prepared_s + version.start_s
            if not version.starts_at_all:
                version.health, version.has_crashed = Health.DEAD, True

    def status(self, tag: str) -> VersionStatus:
        version = self.versions[tag]
        if version.health is Health.STARTING and self.steady_s >= version.ready_s:
            version.health = Health.READY
        if version.health is Health.ABSENT:
            return VersionStatus(Health.ABSENT)
        port = 20_000 + list(self.versions).index(tag)
        detail = "ImportError: no module named model" if version.health is Health.DEAD else ""
        is_preparing = version.health is Health.STARTING and self.steady_s < version.prepared_s
        return VersionStatus(
            version.health,
            (Backend(tag, "127.0.0.1", port),),
            version.has_crashed,
            detail,
            version.restarts,
            "Downloading torch" if is_preparing else "",
        )

    def stop(self, tag: str) -> None:
        self.versions[tag].health = Health.ABSENT

    def suspend(self, tag: str) -> bool:
        self.versions[tag].hangs = True
        return True

    def running(self) -> tuple[str, ...]:
        return tuple(tag for tag, version in self.versions.items() if version.health is not Health.ABSENT)

    # ---- the MetricSource

    trouble: str | None = None

    def read(
        self,
        backends: tuple[Backend, ...],  # noqa: ARG002 - Protocol
        *,
        mirrored: str | None = None,  # noqa: ARG002 - Protocol
        own: Sequence[OwnCounter] = (),  # noqa: ARG002 - Protocol
    ) -> Reading:
        if not self.is_source_up:
            raise SourceUnreachable("the metric store is gone", saw="connection refused", do="wait")
        return Reading(self.now_s, dict(self.counters))

    # ---- life

    def set_clock(self, by_s: float) -> None:
        """Move the wall clock forward, or back if `by_s` is negative. No time passes."""
        self.now_s += by_s

    def pass_time(self, seconds: float) -> None:
        """Let users send requests for a while, split as the router is set now."""
        self.now_s += seconds
        self.steady_s += seconds
        split = self.router.observed()
        if split is None:
            return
        self._time_out(mirrored=split.canary if split.mirror else None)
        requests = int(self.rng.poisson(self.rps * seconds))
        to_canary = int(self.rng.binomial(requests, split.canary_percent / 100)) if split.canary else 0
        self._serve(split.stable, requests - to_canary)
        if split.canary:
            self._serve(split.canary, requests if split.mirror else to_canary)
            if split.compare_percent:
                shares = copied(split.compare_percent / 100, split.canary_percent / 100)
                pairs = self.rng.binomial(requests - to_canary, shares.of_stable)
                pairs += self.rng.binomial(to_canary, shares.of_canary)
                self._pair(split.stable, split.canary, int(pairs))

    def _serve(self, tag: str, requests: int) -> None:
        version = self.versions[tag]
        if version.hangs:
            self._count(tag, "errors", requests, requests)  # the other version answers after this one was tried
            self._count(tag, ANSWERED_ELSEWHERE, requests, requests)
            return
        if version.health is not Health.READY:
            return  # the gateway gave them to the other version: evidence about neither
        if version.hang_ratio:
            requests -= self._hang(tag, int(self.rng.binomial(requests, version.hang_ratio)))
        failed = int(self.rng.binomial(requests, version.error_ratio))
        self._count(tag, "errors", failed, requests)
        self._count(tag, ANSWERED_ELSEWHERE, 0, requests)
        for bound, slow in self._slow(version, requests).items():
            self._count(tag, f"latency:{bound}", slow, requests)
        answered = requests - failed
        if version.rejected_ratio is not None:
            rejected = int(self.rng.binomial(answered, version.rejected_ratio))
            self._count(tag, "rejected", rejected, requests)
            answered -= rejected
        read = int(self.rng.binomial(answered, version.read_ratio)) if version.read_ratio < 1 else answered
        for label, rows in enumerate(self.rng.multinomial(read, version.classes)):
            self._count(tag, f"class:{label}", int(rows), read)
        self._count(tag, "low_confidence:0.5", int(self.rng.binomial(read, 0.02)), read)
        split = self.router.observed()
        if split and split.mirror and split.canary == tag:
            self._pair(split.stable, tag, answered)

    def _pair(self, stable: str, canary: str, requests: int) -> None:
        """Both versions answered these requests."""
        version = self.versions[canary]
        if not self.is_compared or version.health is not Health.READY:
            return
        differ = int(self.rng.binomial(requests, version.differs_ratio))
        for compared in (stable, canary):  # both versions count each pair of answers
            self._count(compared, "disagreement", differ, requests)
        if version.lost_ratio is not None:
            lost = int(self.rng.binomial(differ, version.lost_ratio))
            self._count(canary, "paired_label", lost, differ)
            self._count(stable, "paired_label", differ - lost, differ)

    def _hang(self, tag: str, requests: int) -> int:
        """Let that many requests wait."""
        split = self.router.observed()
        are_copies = split is not None and split.mirror and split.canary == tag
        self.hanging.append(Hanging(self.steady_s + ANSWER_TIMEOUT_S, tag, requests, are_copies))
        self.hung += 0 if are_copies else requests
        return requests

    def _time_out(self, *, mirrored: str | None) -> None:
        """Count the requests that waited long enough; copies are read only while their shadow step lasts."""
        over = [wait for wait in self.hanging if wait.until_s <= self.steady_s]
        self.hanging = [wait for wait in self.hanging if wait.until_s > self.steady_s]
        for wait in over:
            if not wait.are_copies or wait.tag == mirrored:
                self._count(wait.tag, "errors", wait.requests, wait.requests)

    def _slow(self, version: Version, requests: int) -> dict[int, int]:
        """Answers slower than each bound, ms."""
        return dict.fromkeys(LATENCY_BOUNDS_MS, int(self.rng.binomial(requests, version.slow_ratio)))

    def _count(self, tag: str, signal: str, bad: int, total: int) -> None:
        self.counters[f"{tag}-process", tag, signal] += Pair(bad, total)

    # ---- the controller

    def controller(self) -> Controller:
        """A controller of this world, as a process that has just started; the caller makes it tick."""
        made = self.unstarted_controller()
        made.recover()
        return made

    def unstarted_controller(self) -> Controller:
        """A controller whose `run` was not called yet."""
        return Controller(
            open_ledger=lambda: Ledger(self.path),
            router=self.router,
            source=self,
            failures=self.failures,
            segments=self.segments,
            fleet=self,
            metrics=ControllerMetrics(),
            preflight=self.preflight,
            observer=self.observer,
            clock=lambda: Instant(self.now_s, self.steady_s),
            reserve_bytes=self.reserve_bytes,
        )

    def live(self, controller: Controller, seconds: float, *, beat_s: float = BEAT_S) -> None:
        """Let the controller tick while time passes.

        Args:
            beat_s: time from one tick to the next. For a long wait the length of a window is enough: ticks between two
                readings see only immediate changes.
        """
        end_s = self.steady_s + seconds
        while self.steady_s < end_s:
            self.pass_time(beat_s)
            with contextlib.suppress(RouterRefused):  # `Controller.run` logs it and continues
                controller.beat()

    def live_until_ended(
        self, controller: Controller, *, limit_s: float = 3600.0, beat_s: float = BEAT_S
    ) -> str | None:
        """Let time pass until the release is over; returns its outcome."""
        end_s = self.steady_s + limit_s
        while self.steady_s < end_s:
            self.live(controller, beat_s, beat_s=beat_s)
            release = controller.snapshot.deployment.release
            if release and controller.snapshot.deployment.active is None:
                return release.outcome
        return None

    def edit(self, tag: str, **changes: object) -> None:
        """Change how a version behaves from now on."""
        self.versions[tag] = replace(self.versions[tag], **changes)  # type: ignore[arg-type]
