"""A release that is judged by the user's own counters, from the first reading to the report."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from rollout.control import commands as c
from rollout.control.controller import Controller
from rollout.explain.timeline import Timeline
from rollout.explain.why import caution, why
from rollout.fleet import Backend, Route, Service
from rollout.signals.counters import Reading, Sample, own_counters
from rollout.signals.custom import OwnCounter
from rollout.spec import parse_spec
from rollout.ui.report import render_report
from rollout.ui.status import build_status
from tests.support.releases import newest
from tests.support.world import Version, World

OWN = Service((Route("/chat"),), 60)
KEYS = "steps: [25, 50, 100]\nwindow: 2s\nsoak: 10s\nwatch: 30s\nsignals: {custom: {refusals: "
SHARE = KEYS + "{bad: refusals_total, of: answers_total}}}"
MEAN = KEYS + "{histogram: words, between: [0, 50], worse: lower, tolerance: 1, unit: words}}}"
REQUIRED = KEYS + "{bad: refusals_total, of: answers_total, required: true}}}"


@dataclass
class RefusingWorld(World):
    """Each version has a metrics page without version labels: refused requests and lengths of answers."""

    refuses: dict[str, float] = field(default_factory=dict)  # share of its answers, by version
    is_shown: bool = True  # whether the canary's page has these series

    def __post_init__(self) -> None:
        super().__post_init__()
        self.pages: dict[str, dict[tuple[str, str], float]] = {}

    def _serve(self, tag: str, requests: int) -> None:
        super()._serve(tag, requests)
        page = self.pages.setdefault(tag, {})
        refused = int(self.rng.binomial(requests, self.refuses[tag]))
        counted = {("refusals_total", ""): refused, ("answers_total", ""): requests}
        counted |= {
            ("words_bucket", "10"): refused,
            ("words_bucket", "40"): requests,
            ("words_bucket", "+Inf"): requests,
        }
        for key, events in counted.items():
            page[key] = page.get(key, 1000.0) + events  # the counter of a process that has run for long

    def read(
        self, backends: tuple[Backend, ...], *, mirrored: str | None = None, own: Sequence[OwnCounter] = ()
    ) -> Reading:
        reading = super().read(backends, mirrored=mirrored, own=own)
        found = dict(reading.counters)
        for tag, page in self.pages.items():
            if self.is_shown or tag == "m:v1":
                samples = [Sample(name, {"le": le} if le else {}, value) for (name, le), value in page.items()]
                found |= own_counters(f"{tag}-process", tag, samples, own)
        return replace(reading, counters=found)


def world(path: Path, *, refuses: float) -> tuple[RefusingWorld, Controller]:
    """A canary that refuses this share of its requests; stable refuses a tenth."""
    versions = {f"m:v{number}": Version(service=OWN) for number in (1, 2, 3)}
    shares = {"m:v1": 0.1, "m:v2": 0.1, "m:v3": refuses}
    made = RefusingWorld(path, rps=50.0, versions=versions, refuses=shares)
    controller = made.controller()
    controller.execute(c.SetStable("m:v1", "ann"))
    made.live(controller, 60)
    return made, controller


def released(path: Path, plan: str, *, refuses: float, tag: str = "m:v3") -> Timeline:
    """A release by a plan whose signals were counted for ten minutes before."""
    made, controller = world(path, refuses=refuses)
    controller.execute(c.StartRelease("m:v2", parse_spec(plan), "ann"))
    made.live(controller, 5)
    controller.execute(c.Abort("ann"))
    made.live(controller, 700)
    controller.execute(c.StartRelease(tag, parse_spec(plan), "ann"))
    made.live_until_ended(controller, limit_s=1500)
    status = build_status("m", controller.snapshot, newest(path, 2))
    assert status.release is not None
    assert "refusals" in [signal.title for signal in status.release.signals]
    controller.close()
    return newest(path, 2)


@pytest.mark.parametrize("plan", [SHARE, MEAN], ids=["a share", "a mean"])
def test_a_version_that_refuses_more_is_rolled_back(tmp_path: Path, plan: str) -> None:
    """The canary is judged once stable's counts are known; no answer fails and none is slow."""
    release = released(tmp_path / "ledger.db", plan, refuses=0.5)
    assert (release.state.outcome, release.state.outcome_signal) == ("rolled_back", "custom.refusals")
    assert "custom.refusals" in release.state.noise
    explained = why(release)
    advised = next(topic.lines for topic in explained.topics if topic.title == "What to do")
    assert any("Find out why m:v1 does better by `custom.refusals`" in line for line in advised)
    assert "Signal of your own: the " in render_report([release], title="m")


@pytest.mark.parametrize("plan", [SHARE, MEAN, REQUIRED], ids=["a share", "a mean", "required"])
def test_a_version_that_refuses_as_much_as_stable_is_promoted(tmp_path: Path, plan: str) -> None:
    release = released(tmp_path / "ledger.db", plan, refuses=0.1)
    assert release.state.outcome == "promoted"
    assert release.not_judged is None or "custom" not in release.not_judged


def test_the_first_release_that_names_a_counter_asks_a_person(tmp_path: Path) -> None:
    """Earlier counts are not evidence, and the counter's noise on stable is unknown."""
    path = tmp_path / "ledger.db"
    made, controller = world(path, refuses=0.3)
    controller.execute(c.StartRelease("m:v3", parse_spec(SHARE), "ann"))
    made.live(controller, 120)
    release = newest(path)
    assert release.state.outcome is None
    assert release.not_judged is not None
    assert "custom.refusals (0 of 10 min of history)" in release.not_judged
    status = build_status("m", controller.snapshot, release)
    assert status.release is not None
    assert "a person" in (status.release.waits_for or "")
    controller.execute(c.RollbackNow("ann"))
    controller.close()


def test_without_required_history_the_first_release_may_roll_back(tmp_path: Path) -> None:
    """This holds for a restarted controller too: it reads the same counters and counts nothing twice."""
    path = tmp_path / "ledger.db"
    made, controller = world(path, refuses=0.2)
    plan = SHARE.replace("of: answers_total", "of: answers_total, history: none")
    controller.execute(c.StartRelease("m:v3", parse_spec(plan), "ann"))
    made.live(controller, 12)
    controller.close()
    controller = made.controller()
    assert made.live_until_ended(controller, limit_s=300) == "rolled_back"
    controller.close()
    release = newest(path)
    assert release.state.outcome_signal == "custom.refusals"
    assert release.failed_signal is not None
    assert release.failed_signal.judged.canary.total <= made.pages["m:v3"]["answers_total", ""] - 1000


@pytest.mark.parametrize(("plan", "outcome"), [(SHARE, "promoted"), (REQUIRED, None)], ids=["not needed", "required"])
def test_a_version_without_the_counter_is_named(tmp_path: Path, plan: str, outcome: str | None) -> None:
    """A release waits for its counts only if the plan requires the signal."""
    path = tmp_path / "ledger.db"
    made, controller = world(path, refuses=0.1)
    made.is_shown = False
    controller.execute(c.StartRelease("m:v3", parse_spec(plan), "ann"))
    made.live(controller, 40)
    assert "No counts yet of custom.refusals on m:v3" in (caution(newest(path)) or "")
    made.live_until_ended(controller, limit_s=900)
    assert newest(path).state.outcome == outcome
    controller.close()
