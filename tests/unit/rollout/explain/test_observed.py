"""If an observer was shown only a share of the answers, the release says how many were read."""

import re
from pathlib import Path

import pytest

from contract.own_answers import OwnAnswers
from rollout.control import commands as c
from rollout.explain.observed import observed_sentence
from rollout.explain.timeline import Timeline
from rollout.explain.why import why
from rollout.fleet import Route, Service
from rollout.observe import Observe
from rollout.signals.options import Classes
from rollout.signals.plan import Signals
from rollout.sources.observer import ObserverPage
from rollout.spec import RolloutSpec
from tests.support.releases import newest
from tests.support.world import Version, World

OWN = Service((Route("/label"),), 60)
PLAN = RolloutSpec(
    steps=(50, 100),
    soak=10,
    holdback=0,
    watch=20,
    window=2,
    answers=OwnAnswers.model_validate({"/label": {"label": "label"}}),
    observe=Observe(share=0.2, per_s=300),
    signals=Signals({"class": Classes(on_fail="rollback")}),
)


def released(path: Path, *, read: float, spec: RolloutSpec = PLAN, classes: tuple[float, ...] = (0.5, 0.5)) -> Timeline:
    stable = Version(service=OWN, classes=(0.5, 0.5), read_ratio=read)
    world = World(path, versions={"m:v1": stable, "m:v2": Version(service=OWN, classes=classes, read_ratio=read)})
    world.observer = ObserverPage("127.0.0.1:9")  # it is never asked, as nothing is compared in the steps
    controller = world.controller()
    controller.execute(c.SetStable("m:v1", "ann"))
    world.live(controller, 60)
    controller.execute(c.StartRelease("m:v2", spec, "ann"))
    world.live_until_ended(controller)
    controller.close()
    return newest(path)


def text_of(release: Timeline) -> str:
    return " ".join(line for topic in why(release).topics for line in topic.lines)


def test_a_release_says_how_many_answers_were_read(tmp_path: Path) -> None:
    release = released(tmp_path / "ledger.db", read=0.2)
    sentence = observed_sentence(release) or ""
    assert release.state.outcome == "promoted"
    found = re.search(r"to users ([\d,]+) were read \(([\d.]+) %; `observe` is 20%\)", sentence)
    assert found is not None
    assert int(found[1].replace(",", "")) == release.users("class:0").total
    assert float(found[2]) == pytest.approx(20, abs=2)
    assert sentence in text_of(release)


def test_harm_is_estimated_from_the_answers_that_were_read(tmp_path: Path) -> None:
    release = released(tmp_path / "ledger.db", read=0.2, classes=(0.9, 0.1))
    assert release.state.outcome == "rolled_back"
    assert "of users' predictions that were read were" in text_of(release)


@pytest.mark.parametrize("spec", [PLAN, PLAN.model_copy(update={"answers": OwnAnswers({})})])
def test_nothing_is_said_if_all_or_no_answers_are_read(tmp_path: Path, spec: RolloutSpec) -> None:
    release = released(tmp_path / "ledger.db", read=1.0, spec=spec)
    assert observed_sentence(release) is None
    assert "that were read" not in text_of(release)
