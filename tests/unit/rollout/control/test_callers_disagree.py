"""One caller's labels disagree with those of all others: a person is asked and told which caller it is."""

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from rollout.control import commands as c
from rollout.control.controller import Controller
from rollout.control.release_judge import replayed
from rollout.explain.timeline import Timeline, timeline
from rollout.explain.why import why
from rollout.ledger import events as e
from rollout.ledger.ledger import Ledger
from rollout.ledger.state import fold
from rollout.signals.plan import Signals
from rollout.spec import RolloutSpec
from rollout.ui.status import build_status
from tests.support.world import Version, World

STABLE, CANARY, LIAR = "m:v1", "m:v2", "clinic"
CALLERS = ("shop", "bank", "post", LIAR)
PLAN = RolloutSpec(
    steps=(50, 100),
    soak=120.0,
    step_deadline=600.0,
    watch=20.0,
    signals=Signals().only("errors", "wrong_label"),
)


@dataclass
class LabelledWorld(World):
    """Every answer is labelled at once; the callers take turns."""

    wrong_ratio: dict[str, float] = field(default_factory=dict)  # by version, as honest callers report it
    lies: dict[str, bool] = field(default_factory=dict)  # by version: whether the liar calls its answers wrong

    def _serve(self, tag: str, requests: int) -> None:
        super()._serve(tag, requests)
        for number in range(requests):
            caller = CALLERS[number % len(CALLERS)]
            is_wrong = bool(self.rng.random() < self.wrong_ratio[tag])
            bad = int(self.lies.get(tag, is_wrong) if caller == LIAR else is_wrong)
            self._count(tag, "wrong_label", bad, 1)
            self._count(tag, f"labels_by_caller:{caller}", bad, 1)


def released(path: Path, **world: object) -> tuple[LabelledWorld, Controller]:
    made = LabelledWorld(path, versions={STABLE: Version(), CANARY: Version()}, rps=20.0, **world)  # type: ignore[arg-type]
    controller = made.controller()
    controller.execute(c.SetStable(STABLE, "ann"))
    made.live(controller, 120)
    controller.execute(c.StartRelease(CANARY, PLAN, "ann"))
    return made, controller


def events(world: World) -> list[e.Event]:
    with closing(Ledger(world.path, read_only=True)) as ledger:
        return list(ledger.events(release=1))


def story(world: World) -> Timeline:
    return timeline(events(world))


def test_a_lying_caller_does_not_roll_back_a_good_version_and_is_named(tmp_path: Path) -> None:
    same = {STABLE: 0.05, CANARY: 0.05}
    world, controller = released(tmp_path / "ledger.db", wrong_ratio=same, lies={STABLE: False, CANARY: True})
    world.live(controller, 300)
    release = story(world)
    assert release.state.outcome is None
    assert release.state.asked is not None
    assert "callers disagree: by the labels of `clinic` 100 % of the canary's" in release.state.asked.reason
    assert release.state.asked.reason.endswith("a person must look")
    explained = why(release)
    assert "by the labels of `clinic`" in explained.verdict
    (labels,) = [topic.lines for topic in explained.topics if topic.title == "Its labels"]
    assert labels[0].startswith("Wrong by label, of m:v2 and of m:v1, by caller: ")
    assert "`clinic` " in labels[0]
    status = build_status("m", controller.snapshot, release)
    assert status.release is not None
    assert status.release.labels == labels[0]
    controller.execute(c.PromoteNow("ann"))
    assert world.live_until_ended(controller) == "promoted"
    controller.close()


def test_a_lying_caller_does_not_keep_a_bad_version(tmp_path: Path) -> None:
    """Nobody decides, so it is rolled back at the deadline of the step, as always when a person is awaited."""
    wrong = {STABLE: 0.05, CANARY: 0.15}
    world, controller = released(tmp_path / "ledger.db", wrong_ratio=wrong, lies={STABLE: True, CANARY: False})
    assert world.live_until_ended(controller) == "rolled_back"
    release = story(world)
    controller.close()
    assert release.state.outcome_signal == "deadline"
    assert release.end is not None
    assert "without them harm is proven; nobody decided in 600 s" in release.end.reason


def test_harm_that_all_callers_report_is_rolled_back_at_once(tmp_path: Path) -> None:
    world, controller = released(tmp_path / "ledger.db", wrong_ratio={STABLE: 0.05, CANARY: 0.3})
    assert world.live_until_ended(controller) == "rolled_back"
    assert story(world).state.outcome_signal == "wrong_label"
    assert not [event for event in events(world) if isinstance(event, e.PersonAsked)]
    controller.close()


def test_a_restarted_controller_keeps_labels_apart_by_caller(tmp_path: Path) -> None:
    same = {STABLE: 0.05, CANARY: 0.05}
    world, controller = released(tmp_path / "ledger.db", wrong_ratio=same, lies={STABLE: False, CANARY: True})
    for seconds in (20.0, 100.0):
        world.live(controller, seconds)
        own = events(world)
        ticks = [event for event in own if isinstance(event, e.Ticked)]
        judge, release = replayed(own), fold(own).release
        assert judge is not None
        assert release is not None
        assert judge.judgement(release) == ticks[-1].evidence
        controller.close()
        controller = world.controller()
    assert ticks[-1].evidence.without is not None
    assert ticks[-1].evidence.without.caller == LIAR
    controller.close()
