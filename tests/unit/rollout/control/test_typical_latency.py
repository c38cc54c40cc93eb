"""A version that is slower for every answer: it is reported, and judged if the plan asks for it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rollout.control import commands as c
from rollout.control.release_judge import replayed
from rollout.explain.timeline import Timeline
from rollout.explain.why import why
from rollout.judge.own_noise import INDEPENDENT
from rollout.ledger.events import Ticked
from rollout.ledger.kept_history import KeptHistory
from rollout.ledger.ledger import Ledger
from rollout.ledger.state import fold
from rollout.signals.options import LATENCY_BOUNDS_MS, LATENCY_STEPS_MS
from rollout.spec import RolloutSpec, parse_spec
from rollout.ui.report import render_report
from rollout.ui.status import build_status
from tests.support.releases import LIVE, DigitsVersion, DigitsWorld, newest
from tests.support.world import Version

PLAN = "steps: [5, 25, 50, 100]\nsoak: 60s\nwindow: 2s\nholdback: none\nwatch: 20s\nrisk_budget: 2%\n"
SAID = parse_spec(f"{PLAN}signals: {{latency: {{tolerance: 4}}}}")  # no latency bound alone rolls back
JUDGED = parse_spec(
    f"{PLAN}signals: {{latency: {{tolerance: 4}}, typical_latency: {{on_fail: rollback, tolerance: 10%}}}}"
)


@dataclass
class TimedWorld(DigitsWorld):
    """The gateway also has the finer bounds."""

    def _slow(self, version: Version, requests: int) -> dict[int, int]:
        assert isinstance(version, DigitsVersion)
        took_ms = self.rng.lognormal(np.log(version.median_ms), 0.45, requests)
        steps, most = np.searchsorted(LATENCY_STEPS_MS, took_ms), len(LATENCY_STEPS_MS)
        tag = next(tag for tag, known in self.versions.items() if known is version)
        self._count(tag, "typical_latency:sum", int(steps.sum()), most * requests)
        self._count(tag, "typical_latency:squares", int((steps**2).sum()), most**2 * requests)
        return {bound: int((took_ms > bound).sum()) for bound in LATENCY_BOUNDS_MS}


def released(path: Path, spec: RolloutSpec, **canary: object) -> Timeline:
    versions = {"digits:v1": DigitsVersion(error_ratio=0.01), "digits:v2": DigitsVersion(error_ratio=0.002)}
    world = TimedWorld(path, versions=dict(versions), rps=120.0)
    world.edit("digits:v2", **canary)
    controller = world.controller()
    controller.execute(c.SetStable("digits:v1", "ann"))
    world.live(controller, 120)
    controller.execute(c.StartRelease("digits:v2", spec, "ann"))
    world.live_until_ended(controller)
    status = build_status("digits", controller.snapshot, newest(path))
    controller.close()
    assert status.release is not None
    (view,) = (signal for signal in status.release.signals if signal.name == "typical_latency")
    assert view.means is not None
    assert (view.means.is_said_only, view.means.canary is None) == (spec is not JUDGED, False)
    return newest(path)


def lines(release: Timeline, title: str) -> str:
    return " ".join(line for topic in why(release).topics if topic.title == title for line in topic.lines)


def test_a_version_slower_for_every_answer_within_the_bounds_is_reported(tmp_path: Path) -> None:
    """The release continues, and people read by how much its answers are slower."""
    release = released(tmp_path / "ledger.db", SAID, median_ms=13.0)
    assert release.outcome == "promoted"
    said = lines(release, "Worth knowing")
    assert "Typical latency: " in said
    assert " more (between " in said
    assert "5 % more is allowed. It does not affect the verdict" in said
    html = render_report([release], title="digits")
    assert "How long answers took" in html
    assert "Geometric mean of all answer times" in html


def test_a_version_as_fast_as_stable_is_not_reported_as_slower(tmp_path: Path) -> None:
    """Its means and their limits are listed with the other signals."""
    release = released(tmp_path / "ledger.db", SAID)
    assert release.outcome == "promoted"
    assert "latency" not in lines(release, "Worth knowing")
    assert "no evidence of harm" in lines(release, "The other signals")
    assert "`typical_latency`: " in lines(release, "The other signals")


def test_a_plan_may_roll_back_on_mean_latency(tmp_path: Path) -> None:
    """It is a quarter slower where a tenth is allowed; the sentences name both means."""
    release = released(tmp_path / "ledger.db", JUDGED, median_ms=14.0)
    assert (release.outcome, release.state.outcome_signal) == ("rolled_back", "typical_latency")
    assert "11" in why(release).verdict
    assert "more (" in why(release).verdict
    assert "10 % more is allowed" in lines(release, "The evidence")


def test_a_replay_gives_the_identical_evidence(tmp_path: Path) -> None:
    """The ledger has everything that is needed."""
    released(tmp_path / "ledger.db", SAID, median_ms=13.0)
    ledger = Ledger(tmp_path / "ledger.db", read_only=True)
    events = list(ledger.of_release(1))
    ledger.close()
    at, last = max(
        (i, event) for i, event in enumerate(events) if isinstance(event, Ticked) and event.weight_percent == 50
    )
    judge, release = replayed(events[: at + 1]), fold(events[:at]).release
    assert judge is not None
    assert release is not None
    again = judge.judgement(release)
    assert again is not None
    assert again.signals["typical_latency"] == last.evidence.signals["typical_latency"]


def test_the_history_keeps_mean_latencies(tmp_path: Path) -> None:
    """So the noise of answer times survives a restart, and a promoted version keeps its own numbers."""
    versions = {"digits:v1": DigitsVersion(), "digits:v2": DigitsVersion()}
    world = TimedWorld(tmp_path / "ledger.db", versions=dict(versions), rps=120.0)
    controller = world.controller()
    controller.execute(c.SetStable("digits:v1", "ann"))
    world.live(controller, 200)
    controller.close()
    read = KeptHistory(tmp_path / "ledger.db", lambda: None).read()
    numbers = [w.numbers for tick in read for w in tick.windows if w.signal == "typical_latency"]
    assert sum(each.stable.total for each in numbers if each) > 10_000
    controller = world.controller()
    controller.execute(c.StartRelease("digits:v2", LIVE, "ann"))
    world.live(controller, 10)
    noise = newest(tmp_path / "ledger.db").state.noise["typical_latency"]
    controller.close()
    assert noise == INDEPENDENT or noise.blips < 2
