"""Versions that reject requests: more than stable does is harm; as much as stable does is the callers' fault."""

from pathlib import Path

import pytest

from rollout.control import commands as c
from rollout.explain.timeline import Timeline
from rollout.explain.why import why
from rollout.fleet import Route, Service
from rollout.spec import RolloutSpec
from rollout.ui.report import render_report
from tests.support.releases import newest
from tests.support.world import Version, World

PLAN = {
    "soak": 10,
    "warmup": 0,
    "window": 2,
    "step_deadline": 120,
    "watch": 20,
    "holdback": "none",
    "risk_budget": "2%",
}
SHADOW_FIRST = {**PLAN, "steps": ["shadow", 25, 50, 100]}
LIVE = {**PLAN, "steps": [25, 50, 100]}
STICKY = {"sticky": "header:x-user-id"}
OWN = Service((Route("/summarize"),), 60)


def released(path: Path, plan: dict[str, object], *, stable: float, canary: float, service: Service = OWN) -> Timeline:
    """The end of v2's release; both versions reject a share of their requests."""
    versions = {
        "m:v1": Version(rejected_ratio=stable, service=service),
        "m:v2": Version(rejected_ratio=canary, service=service),
    }
    world = World(path, versions=versions)
    controller = world.controller()
    controller.execute(c.SetStable("m:v1", "ann"))
    world.live(controller, 60)
    controller.execute(c.StartRelease("m:v2", RolloutSpec.model_validate(plan), "ann"))
    world.live_until_ended(controller)
    controller.close()
    return newest(path)


class WithARareRoute(World):
    """One request in 200 is for a route that v2 lacks; of all others, 1 % fail on both versions."""

    def _serve(self, tag: str, requests: int) -> None:
        rare = int(self.rng.binomial(requests, 0.005))
        failed = rare if tag == "m:v2" else int(self.rng.binomial(rare, 0.01))
        for route, bad, total in (
            ("/rare", failed, rare),
            ("/usual", int(self.rng.binomial(requests - rare, 0.01)), requests - rare),
        ):
            self._count(tag, "errors", bad, total)
            self._count(tag, f"route:{route}", bad, total)
        self._count(tag, "latency:100", 0, requests)


@pytest.mark.parametrize("is_by_route", [True, False])
def test_a_broken_rare_route_is_found_only_by_route(tmp_path: Path, is_by_route: bool) -> None:
    """Over all requests its error ratio is 1.5 times stable's, which does not prove harm."""
    path = tmp_path / "ledger.db"
    world = WithARareRoute(path, versions={"m:v1": Version(service=OWN), "m:v2": Version(service=OWN)})
    controller = world.controller()
    controller.execute(c.SetStable("m:v1", "ann"))
    world.live(controller, 60)
    plan = {**LIVE, "soak": 60, "risk_budget": "3%", "signals": {} if is_by_route else {"route": None}}
    controller.execute(c.StartRelease("m:v2", RolloutSpec.model_validate(plan), "ann"))
    world.live_until_ended(controller)
    controller.close()
    release = newest(path)
    assert outcome(release) == (("rolled_back", "route:/rare") if is_by_route else ("promoted", None))
    if is_by_route:
        explained = why(release)
        assert " failed or were rejected at `/rare`" in explained.verdict
        advised = next(topic.lines for topic in explained.topics if topic.title == "What to do")
        assert any("Send requests to `/rare`" in line for line in advised)
        assert "Bad answers by route" in render_report([release], title="m")


def outcome(release: Timeline) -> tuple[str | None, str | None]:
    return release.state.outcome, release.state.outcome_signal


@pytest.mark.parametrize("plan", [SHADOW_FIRST, LIVE, {**SHADOW_FIRST, **STICKY}], ids=["shadow", "live", "sticky"])
def test_a_version_that_rejects_a_tenth_is_rolled_back(tmp_path: Path, plan: dict[str, object]) -> None:
    """No answer is a 5xx; the reason says what was rejected, and the report has its picture."""
    release = released(tmp_path / "ledger.db", plan, stable=0.0, canary=0.1)
    assert outcome(release) == ("rolled_back", "rejected")
    explained = why(release)
    assert " were rejected (4xx)" in explained.verdict
    assert "Rejected requests" in render_report([release], title="m")


def test_rejections_are_found_in_the_shadow_before_any_user_sees_one(tmp_path: Path) -> None:
    """Copies show them before the first live request."""
    release = released(tmp_path / "ledger.db", SHADOW_FIRST, stable=0.0, canary=0.1)
    assert outcome(release) == ("rolled_back", "rejected")
    assert release.canary_requests == 0


@pytest.mark.parametrize("plan", [SHADOW_FIRST, LIVE], ids=["shadow", "live"])
def test_invalid_requests_of_callers_do_not_roll_back(tmp_path: Path, plan: dict[str, object]) -> None:
    """A tenth of the requests is invalid, whichever version answers."""
    release = released(tmp_path / "ledger.db", plan, stable=0.1, canary=0.1)
    assert outcome(release)[0] == "promoted"


def test_a_version_that_rejects_less_than_stable_is_promoted(tmp_path: Path) -> None:
    """Only more rejections than stable's are harm."""
    assert outcome(released(tmp_path / "ledger.db", LIVE, stable=0.2, canary=0.0))[0] == "promoted"


def test_one_sticky_caller_with_only_invalid_requests_does_not_roll_back(tmp_path: Path) -> None:
    """The hash keeps that caller on the canary, so live rejections are not evidence here, and `why` says so."""
    release = released(tmp_path / "ledger.db", {**LIVE, **STICKY}, stable=0.0, canary=0.1)
    assert outcome(release)[0] == "promoted"
    text = "\n".join(line for topic in why(release).topics for line in topic.lines)
    assert "Judged only for copied requests, because one caller, who stays on one version" in text
