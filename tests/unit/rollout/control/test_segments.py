"""Releases whose requests are divided into segments by a header."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rollout.control import commands as c
from rollout.errors import SourceUnreachable
from rollout.explain.plan import plan_in_words
from rollout.explain.timeline import Timeline
from rollout.explain.why import why
from rollout.signals.segments import Asked, Segments
from rollout.spec import RolloutSpec
from rollout.ui.report import render_report
from tests.support.releases import newest
from tests.support.world import Version, World

PLAN = {
    "steps": [25, 50, 100],
    "soak": 60,
    "warmup": 0,
    "window": 2,
    "step_deadline": 120,
    "watch": 20,
    "risk_budget": "3%",
    "segments": {"header": "x-tenant", "values": ["small"]},
}


@dataclass
class AnsweredWell:
    """A SegmentLog with the requests that stable answered well."""

    written: list[str] = field(default_factory=list)
    is_readable: bool = True

    def read(self, version: str) -> Sequence[Asked]:
        if not self.is_readable:
            raise SourceUnreachable("the log cannot be read", saw="permission denied", do="wait")
        assert version == "m:v1"
        found, self.written = self.written, []
        return [Asked(value) for value in found]

    def clear(self) -> None:
        self.written = []


class WithASmallTenant(World):
    """One request in 200 is of a tenant that v2 refuses; of all others, 1 % fail on both versions."""

    def _serve(self, tag: str, requests: int) -> None:
        split = self.router.history[-1]
        small = int(self.rng.binomial(requests, 0.005))
        failed = small if tag == "m:v2" else int(self.rng.binomial(small, 0.01))
        for tenant, bad, total in (
            ("small", failed, small),
            ("large", int(self.rng.binomial(requests - small, 0.01)), requests - small),
        ):
            self._count(tag, "errors", bad, total)
            if split.segments is not None:
                named = tenant if tenant in split.segments.names else "other"
                self._count(tag, f"segment:{named}", bad, total)
        self._count(tag, "latency:100", 0, requests)


def released(path: Path, plan: dict[str, object], *, values: AnsweredWell | None = None) -> Timeline:
    """The end of v2's release."""
    world = WithASmallTenant(path, versions={"m:v1": Version(), "m:v2": Version()}, segments=values)
    controller = world.controller()
    controller.execute(c.SetStable("m:v1", "ann"))
    world.live(controller, 60)
    spec = RolloutSpec.model_validate({**plan, "signals": {"class": None, "low_confidence": None}})
    controller.execute(c.StartRelease("m:v2", spec, "ann"))
    while controller.snapshot.deployment.active is not None:
        if values is not None:
            values.written += ["small"] * 3 + ["large"] * 9
        world.live(controller, 1)
    assert [split.segments for split in world.router.history[-1:]] == [None]
    controller.close()
    return newest(path)


@pytest.mark.parametrize("segments", [None, PLAN["segments"], "header:x-tenant"], ids=["none", "listed", "found"])
def test_harm_to_one_small_tenant_is_found(tmp_path: Path, segments: object) -> None:
    """Over all requests the error ratio is 1.5 times stable's, which does not prove harm."""
    path, values = tmp_path / "ledger.db", AnsweredWell()
    release = released(path, {**PLAN, "segments": segments}, values=values)
    outcome = release.state.outcome, release.state.outcome_signal
    assert outcome == (("rolled_back", "segment:small") if segments else ("promoted", None))
    if segments:
        explained = why(release)
        assert " failed or were rejected in segment `small`" in explained.verdict
        advised = next(topic.lines for topic in explained.topics if topic.title == "What to do")
        assert any("Send requests of segment `small`" in line for line in advised)
        assert "Bad answers by segment" in render_report([release], title="m")
    assert list(release.state.found_segments) == (["large", "small"] if segments == "header:x-tenant" else [])


def test_a_restarted_controller_keeps_the_segments_that_were_found(tmp_path: Path) -> None:
    """They are in the ledger, and the gateway still counts them separately."""
    values = AnsweredWell()
    world = WithASmallTenant(tmp_path / "ledger.db", versions={"m:v1": Version(), "m:v2": Version()}, segments=values)
    controller = world.controller()
    controller.execute(c.SetStable("m:v1", "ann"))
    world.live(controller, 10)
    spec = RolloutSpec.model_validate({**PLAN, "segments": "header:X-Tenant"})
    controller.execute(c.StartRelease("m:v2", spec, "ann"))
    world.live(controller, 5)
    values.written = ["large"] * 9
    world.live(controller, 5)
    segments = Segments("x-tenant", ("large",), is_open=True)
    assert world.router.history[-1].segments == segments
    controller.close()
    controller = world.controller()
    world.live(controller, 5)
    controller.close()
    assert world.router.history[-1].segments == segments


def test_unreadable_segment_values_do_not_stop_a_release(tmp_path: Path) -> None:
    """This is noted once, and all requests are judged together."""
    release = released(tmp_path / "ledger.db", {**PLAN, "segments": "x-tenant"}, values=AnsweredWell(is_readable=False))
    assert release.state.outcome == "promoted"
    assert [note.text for note in release.notes if note.topic == "segments_unread"] == [
        "the log cannot be read: permission denied"
    ]


def test_validate_explains_the_segments_of_a_plan() -> None:
    """These are the lines that `kanaria validate` prints."""
    listed, found = (
        " ".join(plan_in_words(RolloutSpec.model_validate({"segments": segments})))
        for segments in ({"header": "x-tenant", "values": ["acme", "beta"]}, "header:x-tenant")
    )
    assert "also judged by the value of the header x-tenant: acme, beta; all other values together as other" in listed
    assert "x-tenant: the first 20 values that stable answers well several times; all other" in found
    assert "segment" in listed
    assert "segment" not in " ".join(plan_in_words(RolloutSpec()))
