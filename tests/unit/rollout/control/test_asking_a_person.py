"""When a person is asked: once for each reason. The ledger has it, and it ends when the reason is gone."""

from dataclasses import replace
from pathlib import Path

import pytest

from rollout.control import commands as c
from rollout.control.asking import CALM_S, NEEDED_S, Asking
from rollout.control.clock import Instant
from rollout.control.decide import Action, Hold, Rollback
from rollout.explain.asked import by_itself
from rollout.ledger import events as e
from rollout.ledger.ledger import Ledger
from rollout.ledger.state import Deployment, Release, apply
from rollout.signals.options import Classes
from rollout.signals.plan import Signals
from rollout.spec import RolloutSpec
from tests.support.releases import LIVE, NO_SEVENS, DigitsWorld, digits_world

LEFT = Hold("worse; the plan leaves this to a person", needs_person=True, left_s=300.0)
NO_PROOF = Hold("no proof of safety in 300 s", needs_person=True)
FINE = Hold("passed; the step soaks 5 s more")


class Asked:
    """One release, to which events are applied as the controller applies them."""

    def __init__(self) -> None:
        request = e.ReleaseRequested(
            at_s=0, release=1, tag="m:v2", stable="m:v1", spec=RolloutSpec(steps=(5, 100)), by="ann"
        )
        entered = e.StepEntered(at_s=1, release=1, step=0, weight_percent=5, mirror=False, reason="ready")
        self._deployment = apply(apply(Deployment(stable="m:v1"), request), entered)
        self._asking = Asking()

    @property
    def release(self) -> Release:
        assert self._deployment.release is not None
        return self._deployment.release

    def events_for(self, action: Action, at_s: float) -> list[str]:
        """The kinds of the events that are written."""
        news = self._asking.news(self.release, action, Instant(1e9 + at_s, at_s))
        for event in news:
            self._deployment = apply(self._deployment, event)
        return [event.kind for event in news]

    def ask(self, at_s: float) -> None:
        """A person is needed for long enough that the controller asks."""
        assert self.events_for(LEFT, at_s) == []
        assert self.events_for(LEFT, at_s + NEEDED_S) == ["person_asked"]

    def pause(self) -> None:
        paused = e.Paused(at_s=9, release=1, reason="lunch", by="ann")
        self._deployment = apply(self._deployment, paused)

    def restart(self) -> None:
        self._asking = Asking()


def test_a_person_is_asked_once_for_one_reason() -> None:
    """A restart of the controller in between does not ask again."""
    asked = Asked()
    assert asked.events_for(FINE, 1) == []
    assert asked.events_for(LEFT, 2) == []
    assert asked.events_for(LEFT, 2 + NEEDED_S) == ["person_asked"]
    assert asked.events_for(LEFT, 8) == []
    asked.restart()
    assert asked.events_for(LEFT, 9) == []
    assert asked.events_for(LEFT, 9 + NEEDED_S) == []
    assert asked.release.asked is not None
    assert (asked.release.asked.reason, asked.release.asked.left_s) == (LEFT.reason, 300.0)


def test_a_reason_that_lasts_a_moment_asks_nobody() -> None:
    """A version that misses a probe alerts nobody, however often this happens."""
    asked = Asked()
    for at_s in range(0, 40, 8):
        assert asked.events_for(LEFT, at_s) == []
        assert asked.events_for(LEFT, at_s + NEEDED_S - 1) == []
        assert asked.events_for(FINE, at_s + NEEDED_S) == []


def test_an_intermittent_reason_is_one_reason() -> None:
    """Only after it has been away for a while is nobody needed; then a person may be asked again."""
    asked = Asked()
    asked.ask(0)
    for at_s, action in ((11, FINE), (20, LEFT), (30, LEFT), (31, FINE), (31 + CALM_S - 1, FINE)):
        assert asked.events_for(action, at_s) == []
    assert asked.events_for(FINE, 31 + CALM_S) == ["person_not_needed"]
    assert asked.release.asked is None
    assert asked.events_for(FINE, 500) == []
    asked.ask(501)


@pytest.mark.parametrize(("first", "then", "after_s"), [(NO_PROOF, LEFT, NEEDED_S), (LEFT, NO_PROOF, CALM_S)])
def test_a_person_is_asked_again_when_what_happens_without_an_answer_changes(
    first: Hold, then: Hold, after_s: float
) -> None:
    """A person who read that nothing happens automatically is told of the coming rollback, and the reverse."""
    asked = Asked()
    assert asked.events_for(first, 0) == []
    assert asked.events_for(first, NEEDED_S) == ["person_asked"]
    assert asked.events_for(then, 10) == []
    assert asked.events_for(then, 10 + after_s - 1) == []
    assert asked.events_for(then, 10 + after_s) == ["person_asked"]
    assert asked.release.asked is not None
    assert (asked.release.asked.reason, asked.release.asked.left_s) == (then.reason, then.left_s)
    assert ("it is rolled back in" in by_itself(asked.release)) is (then is LEFT)
    assert asked.events_for(then, 500) == []


def test_alternating_reasons_announce_the_rollback_once() -> None:
    """Reasons that alternate faster than a person answers are one reason; the one with the earlier deadline counts."""
    asked = Asked()
    assert [asked.events_for(LEFT if at_s // 10 % 2 else NO_PROOF, at_s) for at_s in range(200)].count(
        ["person_asked"]
    ) == 2
    assert asked.release.asked is not None
    assert asked.release.asked.left_s is not None


def test_a_pause_asks_nobody_again() -> None:
    """A pause stops the deadline, and the person who paused knows the reason already."""
    asked = Asked()
    asked.ask(0)
    asked.pause()
    for at_s in (10, 10 + CALM_S, 500):
        assert asked.events_for(replace(LEFT, left_s=None), at_s) == []
    assert by_itself(asked.release).startswith("It stays as it is")


@pytest.mark.parametrize(
    "decision",
    [
        e.RolledBack(at_s=9, release=1, signal="errors", reason="worse"),
        e.Promoted(at_s=9, release=1, reason="promoted by ann without waiting", by="ann"),
        e.Aborted(at_s=9, release=1, reason="enough", by="ann"),
        e.Resumed(at_s=9, release=1, by="ann"),
        e.StepEntered(at_s=9, release=1, step=1, weight_percent=100, mirror=False, reason="passed"),
    ],
    ids=lambda event: event.kind,
)
def test_a_decision_ends_the_request_for_a_person(decision: e.Event) -> None:
    """No separate event records the end."""
    asked = Asked()
    asked.ask(0)
    assert asked.events_for(Rollback("errors", "worse"), 1) == []
    after = apply(Deployment(stable="m:v1", release=asked.release), decision)
    assert after.release is not None
    assert after.release.asked is None


@pytest.fixture
def left_to_a_person(tmp_path: Path) -> tuple[DigitsWorld, Path]:
    """v2 predicts other classes; its plan leaves this to a person, and one was asked."""
    path = tmp_path / "ledger.db"
    world, controller = digits_world(path, classes=NO_SEVENS)
    spec = LIVE.model_copy(update={"signals": Signals({"class": Classes(on_fail="hold")})})
    controller.execute(c.StartRelease("digits:v2", spec, "ann"))
    for _ in range(300):
        world.live(controller, 1)
        release = controller.snapshot.deployment.active
        if release and release.asked:
            break
    world.live(controller, 20)
    controller.close()
    return world, path


def test_a_restarted_controller_asks_nobody_again(left_to_a_person: tuple[DigitsWorld, Path]) -> None:
    """The ledger says who was asked. When nobody decides within the deadline of a step, the release is rolled back."""
    world, path = left_to_a_person
    controller = world.controller()
    world.live_until_ended(controller)
    controller.close()
    ledger = Ledger(path, read_only=True)
    events = list(ledger.events(without_ticks=True))
    ledger.close()
    asked = [event for event in events if isinstance(event, e.PersonAsked)]
    assert len(asked) == 1
    assert asked[0].left_s is not None
    assert 285 < asked[0].left_s < 300
    assert [event.signal for event in events if isinstance(event, e.RolledBack)] == ["deadline"]
