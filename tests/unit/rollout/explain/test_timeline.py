"""The timeline of a release: which counts belong to which step, and when things began and ended."""

from pathlib import Path

import pytest

from rollout.control import commands as c
from rollout.explain.timeline import timeline
from rollout.fleet import Health
from rollout.judge import Pair
from rollout.ledger import events as e
from tests.support.releases import NO_SEVENS, SPEC, digits_world, finished, newest, turned_wrong


def test_a_timeline_without_its_request_event_is_refused() -> None:
    """The list of events is incomplete."""
    with pytest.raises(ValueError, match="begin with its request"):
        timeline([e.Ended(at_s=1.0, release=1, outcome="promoted")])


def test_steps_follow_each_other_without_gaps(tmp_path: Path) -> None:
    """Each step begins when the previous one ends; the last step of a finished release has an end too."""
    release = finished(tmp_path / "ledger.db")
    assert [step.name for step in release.steps] == ["shadow", "5 %", "25 %", "50 %", "100 %"]
    assert [step.until_s for step in release.steps[:-1]] == [step.from_s for step in release.steps[1:]]
    assert release.steps[-1].ended_by is release.end


def test_copied_requests_are_not_users_requests(tmp_path: Path) -> None:
    """The judge counts the shadow step, but its copies are not users' traffic."""
    release = finished(tmp_path / "ledger.db")
    compared = sum((step.canary for step in release.steps if not step.mirror), Pair(0, 0))
    live = compared + release.users("watched_errors")
    assert release.steps[0].canary.total > 0
    assert release.users("watched_errors").total > 0
    assert (release.canary_requests, release.canary_failures) == (live.total, live.bad)


def test_the_failed_signal_is_the_one_that_the_judge_rolled_back_on(tmp_path: Path) -> None:
    """Its counts are those at that moment."""
    failed_signal = finished(tmp_path / "ledger.db", classes=NO_SEVENS).failed_signal
    assert failed_signal is not None
    assert failed_signal.signal == "class:7"
    assert failed_signal.judged.canary.bad / failed_signal.judged.canary.total < 0.05


def test_a_rollback_by_a_person_has_no_failed_signal(tmp_path: Path) -> None:
    """It has a reason, but no evidence of its own."""
    _, controller = digits_world(tmp_path / "ledger.db")
    controller.execute(c.StartRelease("digits:v2", SPEC, "ann"))
    controller.execute(c.RollbackNow("bob", "customers complain"))
    controller.close()
    release = newest(tmp_path / "ledger.db")
    assert (release.failed_signal, release.end and release.end.by) == (None, "bob")


def test_the_time_in_traffic_ends_when_the_gateway_has_weight_zero(tmp_path: Path) -> None:
    """The time of the decision does not count."""
    release = turned_wrong(tmp_path / "ledger.db")
    assert release.first_canary_s is not None
    assert release.out_of_traffic_s is not None
    assert release.first_canary_s < release.out_of_traffic_s
    assert (release.weights[-1][1], release.weights[-1][0]) == (0, release.out_of_traffic_s)


def test_a_canary_that_never_started_has_no_time_in_traffic(tmp_path: Path) -> None:
    """It has no steps, no times and no requests."""
    release = finished(tmp_path / "ledger.db", starts_at_all=False)
    assert (release.steps, release.first_canary_s, release.out_of_traffic_s, release.canary_requests) == (
        (),
        None,
        None,
        0,
    )


def test_a_metric_outage_is_known_while_it_lasts(tmp_path: Path) -> None:
    """It lasts from the note that the metric source is gone to the note that it is back."""
    world, controller = digits_world(tmp_path / "ledger.db")
    controller.execute(c.StartRelease("digits:v2", SPEC, "ann"))
    world.live(controller, 10)
    world.is_source_up = False
    world.live(controller, 10)
    blind = newest(tmp_path / "ledger.db").blind_since_s
    world.is_source_up = True
    world.live(controller, 10)
    controller.close()
    assert blind is not None
    assert newest(tmp_path / "ledger.db").blind_since_s is None


def test_a_version_that_dies_after_promotion_was_promoted_first(tmp_path: Path) -> None:
    """Both decisions are listed, in order."""
    world, controller = digits_world(tmp_path / "ledger.db")
    controller.execute(c.StartRelease("digits:v2", SPEC, "ann"))
    world.live(controller, 65)
    world.edit("digits:v2", health=Health.DEAD, has_crashed=True)
    world.live_until_ended(controller)
    controller.close()
    actions = [decision.action for decision in newest(tmp_path / "ledger.db").decisions]
    assert actions[-3:] == ["promoted", "rolled_back", "ended"]
