"""The preflight of a release: it runs once, before any traffic, and never blocks the control loop."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rollout.control import commands as c
from rollout.control.controller import Controller
from rollout.control.preflight import Loss
from rollout.errors import CommandRefused
from rollout.explain.plan import plan_in_words
from rollout.explain.timeline import timeline
from rollout.explain.why import why
from rollout.fleet import Backend
from rollout.ledger import events as e
from rollout.ledger.findings import PreflightResult
from rollout.ledger.ledger import Ledger
from rollout.spec import RolloutSpec, parse_spec
from tests.support.thread_limit import no_more_threads
from tests.support.world import Version, World

SPEC = RolloutSpec(steps=(5, 50, 100), soak=5, window=2, step_deadline=300, holdback=0, watch=20, risk_budget=0.02)
# Simulated seconds pass quickly while a real thread works.
PATIENT = SPEC.model_copy(update={"startup_deadline": 600_000.0})
WITHIN_S = 120.0


@dataclass
class ChosenPreflight:
    """A preflight whose outcome a test chooses."""

    outcome: PreflightResult | Exception = field(
        default_factory=lambda: PreflightResult((), golden_requests=20, p50_ms=1.5, slowest_ms=9.0, memory_mb=300)
    )
    may_end: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str]] = field(default_factory=list)
    lost: tuple[Loss, ...] = ()

    def losses(self, canary: str, stable: str) -> tuple[Loss, ...]:  # noqa: ARG002 - Protocol
        return self.lost

    def check(self, canary: Backend, stable: str, *_: object, **__: object) -> PreflightResult:
        self.asked.append((canary.tag, stable))
        assert self.may_end.wait(WITHIN_S)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.fixture
def trial() -> Iterator[ChosenPreflight]:
    made = ChosenPreflight()
    made.may_end.set()
    yield made
    made.may_end.set()  # no thread remains


@pytest.fixture
def world(tmp_path: Path, trial: ChosenPreflight) -> World:
    return World(tmp_path / "ledger.db", versions={"m:v1": Version(), "m:v2": Version()}, preflight=trial)


def live_until(world: World, controller: Controller, holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline_s, controller.snapshot
        world.live(controller, 1)


def preflights(world: World) -> list[PreflightResult]:
    ledger = Ledger(world.path, read_only=True)
    try:
        return [event.result for event in ledger.events() if isinstance(event, e.Preflighted)]
    finally:
        ledger.close()


def story(world: World) -> str:
    ledger = Ledger(world.path, read_only=True)
    try:
        explained = why(timeline(ledger.of_release(1)))
    finally:
        ledger.close()
    return "\n".join((explained.verdict, *(line for topic in explained.topics for line in topic.lines)))


def is_over(controller: Controller) -> bool:
    return controller.snapshot.deployment.release is not None and controller.snapshot.deployment.active is None


def test_a_version_that_passes_its_preflight_enters_its_first_step(
    world: World, controller: Controller, trial: ChosenPreflight
) -> None:
    """The preflight ran once, for the canary against stable, and `why` reports what it found."""
    controller.execute(c.StartRelease("m:v2", PATIENT, "ann"))
    live_until(world, controller, lambda: is_over(controller))
    assert (trial.asked, len(preflights(world))) == ([("m:v2", "m:v1")], 1)
    assert "m:v2 was promoted" in story(world)
    assert "expected answer to 20 golden requests" in story(world)


def test_a_version_that_fails_its_preflight_never_gets_a_request(
    world: World, controller: Controller, trial: ChosenPreflight
) -> None:
    """No split gave it traffic; the reason is the difference, and the tag is in quarantine."""
    trial.outcome = PreflightResult(("golden request 3: row 0: `label` is '8', expected '3'",), golden_requests=20)
    controller.execute(c.StartRelease("m:v2", PATIENT, "ann"))
    live_until(world, controller, lambda: is_over(controller))
    release = controller.snapshot.deployment.release
    assert release is not None
    assert (release.outcome, release.outcome_signal) == ("rolled_back", "preflight")
    assert not [split for split in world.router.history if split.canary_percent or split.mirror]
    assert "`label` is '8', expected '3'" in controller.snapshot.deployment.quarantined["m:v2"]
    assert "rolled back before it took any traffic: m:v2 failed its preflight" in story(world)


def test_a_canary_that_cannot_be_tested_gets_no_traffic(
    world: World, controller: Controller, trial: ChosenPreflight
) -> None:
    """An error of the preflight itself counts against the canary."""
    trial.outcome = OSError("the store is gone")
    controller.execute(c.StartRelease("m:v2", PATIENT, "ann"))
    live_until(world, controller, lambda: is_over(controller))
    assert "the store is gone" in story(world)


def test_a_preflight_that_gets_no_thread_starts_at_a_later_beat(
    world: World, controller: Controller, trial: ChosenPreflight
) -> None:
    """It was treated as running, until the version was rolled back at the deadline."""
    controller.execute(c.StartRelease("m:v2", PATIENT, "ann"))
    with no_more_threads():
        world.live(controller, 60)
    live_until(world, controller, lambda: is_over(controller))
    assert trial.asked == [("m:v2", "m:v1")]
    assert "m:v2 was promoted" in story(world)


def test_the_startup_deadline_ends_a_preflight_that_hangs(
    world: World, controller: Controller, trial: ChosenPreflight
) -> None:
    """The loop continues meanwhile."""
    trial.may_end.clear()
    controller.execute(c.StartRelease("m:v2", SPEC, "ann"))
    assert world.live_until_ended(controller) == "rolled_back"
    assert "had not ended after 120 s" in story(world)


def test_a_preflight_with_recorded_requests_gets_the_deadline_twice(
    world: World, controller: Controller, trial: ChosenPreflight
) -> None:
    """Loading uses part of the deadline, and stable decides how long the recorded requests take."""
    trial.may_end.clear()
    controller.execute(c.StartRelease("m:v2", parse_spec("golden: recorded"), "ann"))
    assert world.live_until_ended(controller) == "rolled_back"
    assert "had not ended after 240 s" in story(world)


def test_why_says_how_many_recorded_requests_were_sent_again(
    world: World, controller: Controller, trial: ChosenPreflight
) -> None:
    """It also reports differences that did not refuse the version."""
    trial.outcome = PreflightResult((), remarks=("it differs in `label` of /a (1 of 8)",), recorded_requests=8)
    controller.execute(c.StartRelease("m:v2", PATIENT, "ann"))
    live_until(world, controller, lambda: is_over(controller))
    assert "It answers 8 recorded requests with the status and the fields of m:v1's answers." in story(world)
    assert "It differs in `label` of /a (1 of 8)." in story(world)


def test_a_release_can_be_aborted_during_its_preflight(
    world: World, controller: Controller, trial: ChosenPreflight
) -> None:
    """What that preflight finds later does not affect the next release."""
    trial.may_end.clear()
    controller.execute(c.StartRelease("m:v2", PATIENT, "ann"))
    live_until(world, controller, lambda: bool(trial.asked))
    controller.execute(c.Abort("ann"))
    live_until(world, controller, lambda: is_over(controller))
    trial.may_end.set()
    controller.execute(c.StartRelease("m:v2", PATIENT, "ann"))
    live_until(world, controller, lambda: bool(preflights(world)))
    assert len(trial.asked) == 2


def test_a_restarted_controller_does_not_repeat_the_preflight(
    world: World, controller: Controller, trial: ChosenPreflight
) -> None:
    """Its result is in the ledger."""
    controller.execute(c.StartRelease("m:v2", PATIENT, "ann"))
    live_until(world, controller, lambda: bool(preflights(world)))
    again = world.controller()
    try:
        live_until(world, again, lambda: is_over(again))
    finally:
        again.close()
    assert (len(trial.asked), len(preflights(world))) == (1, 1)


def test_a_version_that_lacks_what_callers_use_is_refused_before_it_starts(
    world: World, controller: Controller, trial: ChosenPreflight
) -> None:
    """Nothing starts and nothing goes into quarantine; the plan may allow the loss by name."""
    trial.lost = (Loss("/rare", "it has no route /rare"), Loss("/a label", "its answers at /a lack `label`"))
    with pytest.raises(CommandRefused) as refused:
        controller.execute(c.StartRelease("m:v2", PATIENT.model_copy(update={"may_break": ("/a",)}), "ann"))
    assert refused.value.saw == "it has no route /rare"
    assert "`may_break: [/rare]`" in refused.value.do
    assert (controller.snapshot.deployment.release, controller.snapshot.deployment.quarantined) == (None, {})
    allowing = PATIENT.model_copy(update={"may_break": ("/rare", "/a label")})
    controller.execute(c.StartRelease("m:v2", allowing, "ann"))
    live_until(world, controller, lambda: is_over(controller))
    assert "m:v2 was promoted" in story(world)
    assert "Callers of the previous version may lose /rare, `label` of /a." in plan_in_words(allowing)
