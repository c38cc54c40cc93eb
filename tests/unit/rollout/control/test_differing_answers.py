"""A canary whose answers differ, by an observer's count, does not leave the shadow, and its release says where."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kanaria.stack.ports import free_port
from rollout.control import commands as c
from rollout.explain.timeline import timeline
from rollout.explain.why import why
from rollout.fleet import Route, Service
from rollout.ledger.ledger import Ledger
from rollout.sources.observer import ObserverPage
from rollout.spec import RolloutSpec
from tests.support.world import Version, World

OWN = Service((Route("/label"),), 60)
FOUND = "its answers differ from m:v1's in `label` of /label (23 of 100)"


@dataclass
class FixedFindings:
    """An Observer that always reports the same differences."""

    found: str
    asked: list[tuple[str, str]] = field(default_factory=list)

    def differences(self, *, stable: str, canary: str) -> str:
        self.asked.append((stable, canary))
        return self.found


def explained(path: Path) -> tuple[str | None, dict[str, tuple[str, ...]]]:
    """The outcome of the release, and its notes by topic."""
    ledger = Ledger(path, read_only=True)
    release = timeline(ledger.of_release(1))
    ledger.close()
    return release.state.outcome, {topic.title: topic.lines for topic in why(release).topics}


def released(path: Path, observer: FixedFindings | None, *, differs: float) -> World:
    world = World(path, versions={"m:v1": Version(service=OWN), "m:v2": Version(service=OWN, differs_ratio=differs)})
    world.observer = observer
    controller = world.controller()
    controller.execute(c.SetStable("m:v1", "ann"))
    world.live(controller, 60)
    controller.execute(c.StartRelease("m:v2", RolloutSpec(warmup=0.0, soak=10.0), "ann"))
    world.live(controller, 240)
    controller.close()
    return world


@pytest.mark.parametrize(("differs", "outcome"), [(0.23, None), (0.9, "rolled_back")])
def test_a_canary_that_differs_is_held_or_rolled_back_and_the_fields_are_named(
    tmp_path: Path, differs: float, outcome: str | None
) -> None:
    observer = FixedFindings(FOUND)
    world = released(tmp_path / "ledger.db", observer, differs=differs)
    ended, topics = explained(world.path)
    assert ended == outcome
    assert f"{FOUND[0].upper()}{FOUND[1:]}." in topics["The evidence"]
    assert not any(FOUND in line for line in topics["Worth knowing"])
    assert observer.asked[0] == ("m:v1", "m:v2")


def test_a_canary_that_may_continue_still_reports_where_it_differs(tmp_path: Path) -> None:
    """All answers of one route may differ and still be few of all answers, or too few to be judged."""
    observer = FixedFindings(FOUND)
    world = released(tmp_path / "ledger.db", observer, differs=0.0)
    outcome, topics = explained(world.path)
    assert outcome == "promoted"
    assert f"{FOUND[0].upper()}{FOUND[1:]}." in topics["The evidence"]
    assert observer.asked == [("m:v1", "m:v2")]  # asked when it left the shadow


def test_a_canary_that_does_not_differ_is_promoted_without_a_note(tmp_path: Path) -> None:
    world = released(tmp_path / "ledger.db", FixedFindings(""), differs=0.0)
    outcome, topics = explained(world.path)
    assert outcome == "promoted"
    assert not any("its answers differ" in line.lower() for line in topics["The evidence"])


def test_without_an_observer_differences_are_not_judged(tmp_path: Path) -> None:
    world = released(tmp_path / "ledger.db", None, differs=0.9)
    assert explained(world.path)[0] == "promoted"


def test_an_observer_that_does_not_answer_reports_no_difference() -> None:
    assert ObserverPage(f"127.0.0.1:{free_port()}").differences(stable="m:v1", canary="m:v2") == ""
