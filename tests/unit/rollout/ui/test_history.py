"""Each release as one line of the history, and its small chart."""

from pathlib import Path

from rollout.control import commands as c
from rollout.ledger.ledger import Ledger
from rollout.ui.chart import chart
from rollout.ui.history import past_releases
from rollout.ui.trace import MOST_POINTS, trace
from tests.support.releases import LIVE, digits_world, finished, newest


def test_each_release_has_its_outcome_and_who_decided_it(tmp_path: Path) -> None:
    """The newest comes first; a running release has its phase."""
    path = tmp_path / "ledger.db"
    world, controller = digits_world(path)
    controller.execute(c.StartRelease("digits:v2", LIVE, "ann"))
    world.live_until_ended(controller)
    controller.execute(c.Restore("digits:v1", "bob"))
    world.live_until_ended(controller)
    controller.execute(c.StartRelease("digits:v2", LIVE, "ann"))
    world.live(controller, 5)
    controller.execute(c.Abort("eve", "enough"))
    world.live_until_ended(controller)
    controller.execute(c.StartRelease("digits:v2", LIVE, "ann"))
    world.live(controller, 5)
    controller.close()
    ledger = Ledger(path, read_only=True)
    found = past_releases(ledger.events(without_ticks=True))
    ledger.close()
    assert [(past.release.number, past.outcome, past.by) for past in found] == [
        (4, "stepping", ""),
        (3, "aborted", "eve"),
        (2, "restored", "bob"),
        (1, "promoted", "judge"),
    ]


def test_a_trace_has_few_points_for_a_long_release(tmp_path: Path) -> None:
    """It still has all traffic: 120 requests a second, with more for the canary at each step."""
    release = finished(tmp_path / "ledger.db", LIVE.model_copy(update={"watch": 300.0}))
    drawn = trace(release, release.seen_s)
    assert drawn is not None
    assert len(drawn.traffic) <= MOST_POINTS + 1
    assert [percent for _, percent in drawn.weights if percent][:4] == [5, 25, 50, 100]
    assert all(95 < stable + canary < 145 for _, stable, canary in drawn.traffic[3:])
    picture = chart(drawn)
    assert picture.weight.startswith("0.0,100.0 ")
    assert picture.weight.endswith("1000.0,0.0")
    assert "5 %, 25 %, 50 %, 100 %" in picture.says


def test_nothing_is_drawn_before_the_first_count(tmp_path: Path) -> None:
    """A canary that is starting has no traffic."""
    path = tmp_path / "ledger.db"
    world, controller = digits_world(path, start_s=60)
    controller.execute(c.StartRelease("digits:v2", LIVE, "ann"))
    world.live(controller, 3)
    controller.close()
    assert trace(newest(path), world.now_s) is None
