"""Releases with sticky callers in a small world: one user's failures are not the canary's fault, harm to many is."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from rollout.control import commands as c
from rollout.control.controller import Controller
from rollout.errors import CommandRefused
from rollout.explain.timeline import Timeline, timeline
from rollout.explain.why import why
from rollout.judge import Verdict, Window
from rollout.judge.judge import Judge
from rollout.ledger.ledger import Ledger
from rollout.signals.catalogue import AFFECTED_USERS
from rollout.signals.sticky_users import UserFailure
from rollout.spec import Guards, RolloutSpec, parse_spec
from rollout.ui.report.pictures import pictures
from rollout.ui.status import build_status
from rollout.ui.views import StatusView
from rollout.ui.web import status_page
from tests.support.killing import Killed, Killer
from tests.support.world import Version, World

USERS = 400
ON_CANARY, ON_STABLE = 0, USERS - 1  # at any weight of the plan below 100 %
PLAN = {
    "steps": (25, 50, 100),
    "soak": 5,
    "window": 2,
    "step_deadline": 60,
    "watch": 4,
    "holdback": "none",
    "risk_budget": 0.05,
    "on_deadline": "rollback",
}
RANDOM = RolloutSpec.model_validate(PLAN)
STICKY = RANDOM.model_copy(update={"sticky": "x-user-id"})


@dataclass
class StickyWorld(World):
    """Users with a fixed place in the split. Broken ones send one request in 25 and fail on both versions."""

    broken: tuple[int, ...] = ()

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.steady_s += seconds
        split = self.router.observed()
        if split is None:
            return
        is_sticky = self.router.history[-1].sticky is not None
        for _ in range(self.rng.poisson(self.rps * seconds)):
            is_broken = self.broken and self.rng.random() < 0.04
            user = int(self.rng.choice(self.broken) if is_broken else self.rng.integers(USERS))
            place = user / USERS if is_sticky else self.rng.random()
            to_canary = split.canary is not None and 100 * place < split.canary_percent
            for tag in {split.canary if to_canary else split.stable, split.canary if split.mirror else None} - {None}:
                self._answer(str(tag), user, is_logged=is_sticky and not split.mirror)

    def _answer(self, tag: str, user: int, *, is_logged: bool) -> None:
        has_failed = user in self.broken or self.rng.random() < self.versions[tag].error_ratio
        self._count(tag, "errors", int(has_failed), 1)
        if has_failed and is_logged:
            self.failures.written.append(UserFailure(self.now_s, tag, str(user).encode()))


def sticky_world(path: Path, *, broken: tuple[int, ...] = (), canary: float = 0.0) -> tuple[StickyWorld, Controller]:
    """A deployment with v1 stable, and v2, which fails a share of its requests."""
    versions = {"m:v1": Version(), "m:v2": Version(error_ratio=canary)}
    world = StickyWorld(path, versions=versions, broken=broken)
    controller = world.controller()
    controller.execute(c.SetStable("m:v1", "ann"))
    world.live(controller, 20)
    return world, controller


def alone(spec: RolloutSpec, **changes: object) -> RolloutSpec:
    """The plan with nothing to judge but errors, and no absolute limit on them."""
    signals, guards = spec.signals.only("errors"), Guards(error_ratio=0.9)
    return spec.model_copy(update={"signals": signals, "guards": guards, **changes})


def released(path: Path, spec: RolloutSpec, **world: object) -> Timeline:
    """The story of v2's release from beginning to end."""
    made, controller = sticky_world(path, **world)  # type: ignore[arg-type]
    controller.execute(c.StartRelease("m:v2", spec, "ann"))
    made.live_until_ended(controller)
    controller.close()
    return story(path)


def story(path: Path) -> Timeline:
    ledger = Ledger(path, read_only=True)
    try:
        return timeline(ledger.of_release(1))
    finally:
        ledger.close()


def windows(release: Timeline, signal: str) -> list[Window]:
    return [tick.window for tick in release.signals[signal]]


def charged(release: Timeline) -> tuple[int, int]:
    """Users affected, on stable and on canary."""
    counted = windows(release, AFFECTED_USERS)
    return sum(window.stable.bad for window in counted), sum(window.canary.bad for window in counted)


def test_one_user_with_bad_inputs_does_not_roll_back_the_canary(tmp_path: Path) -> None:
    """The user is on the canary and fails for minutes. Counted request by request, the canary would be rolled back."""
    release = released(tmp_path / "ledger.db", alone(STICKY), broken=(ON_CANARY,))
    judge = Judge(alone(RANDOM).judge_config())
    judge.observe(windows(release, "errors"))
    assert judge.judgement(next_weight=None).verdict is Verdict.FAIL
    assert charged(release) == (0, 1)
    assert release.state.outcome_signal == "deadline", "nor is a canary promoted on which every tenth request fails"


def test_users_are_not_counted_where_callers_are_not_sticky(tmp_path: Path) -> None:
    """The same user meets both versions; raw errors are judged, and no user keys are stored."""
    release = released(tmp_path / "ledger.db", alone(RANDOM), broken=(ON_CANARY,))
    assert (release.state.outcome, release.user_phi) == ("promoted", None)
    assert AFFECTED_USERS not in release.signals


@pytest.mark.parametrize("steps", [(25, 50, 100), ("shadow", 25, 100)])
def test_a_canary_that_fails_many_users_is_rolled_back_for_it(tmp_path: Path, steps: tuple[int | str, ...]) -> None:
    """Users' first failures count; in the shadow, whose copies are not logged, each failure counts."""
    release = released(tmp_path / "ledger.db", alone(STICKY, steps=steps), canary=0.15)
    assert (release.state.outcome, release.state.outcome_signal) == ("rolled_back", AFFECTED_USERS)
    assert "were the first failure of their user" in why(release).verdict


def test_users_who_repeat_are_little_evidence_for_more_weight(tmp_path: Path) -> None:
    """All of stable's failures are one user's: `why` says how much more proof a step needs."""
    release = released(tmp_path / "ledger.db", alone(STICKY), broken=(ON_STABLE,))
    assert release.user_phi is not None
    assert release.user_phi > 10
    text = "\n".join(line for topic in why(release).topics for line in topic.lines)
    assert "told apart by `x-user-id`" in text
    assert f"{release.user_phi:.1f} times the proof" in text


def test_raw_errors_are_shown_as_a_bound_on_the_risk(tmp_path: Path) -> None:
    """They bound the risk and fail nobody; an infinite threshold would not survive JSON."""
    world, controller = sticky_world(tmp_path / "ledger.db")
    controller.execute(c.StartRelease("m:v2", alone(STICKY), "ann"))
    world.live(controller, 10)
    status = build_status("test", controller.snapshot, story(world.path))
    controller.close()
    assert StatusView.model_validate_json(status.model_dump_json()) == status
    assert status.release is not None
    thresholds = {signal.name: signal.threshold for signal in status.release.signals}
    assert thresholds["errors"] is None
    assert thresholds[AFFECTED_USERS] is not None
    assert "bounds the risk only" in status_page(status)


@pytest.mark.parametrize("by_keys", ["sticky: header:x-api-key", "segments: header:x-kanaria-caller"])
def test_nobody_is_told_apart_by_a_key_where_there_are_none(tmp_path: Path, by_keys: str) -> None:
    """An open gateway removes the name of a key that a caller brings: each request would be drawn anew, unsaid."""
    world, controller = sticky_world(tmp_path / "ledger.db")
    plan = parse_spec(by_keys)
    world.router.asks_for_keys = False
    with pytest.raises(CommandRefused, match="the gateway asks for none"):
        controller.execute(c.StartRelease("m:v2", plan, "ann"))
    world.router.asks_for_keys = True
    assert controller.execute(c.StartRelease("m:v2", plan, "ann")) == 1
    controller.close()


def test_the_report_of_a_sticky_release_is_written(tmp_path: Path) -> None:
    """Its pictures show the users affected instead of the errors."""
    release = released(tmp_path / "ledger.db", alone(STICKY), canary=0.15)
    (evidence,) = [picture for picture in pictures(release) if picture.key == "evidence"]
    assert [trace.name for trace in evidence.figure.data] == ["users affected", "all together"]


def test_users_are_known_no_longer_than_the_release(tmp_path: Path) -> None:
    """Their keys leave the ledger with its end, and the gateway's log is emptied."""
    world, controller = sticky_world(tmp_path / "ledger.db", broken=(ON_CANARY,))
    controller.execute(c.StartRelease("m:v2", alone(STICKY), "ann"))
    world.live(controller, 20)
    known = controller._ledger.affected()
    assert known is not None
    assert set(known.failures_on_stable) == {b"0"}
    world.live_until_ended(controller)
    world.live(controller, 5)
    assert controller._ledger.affected() is None
    assert world.failures.written == []
    controller.close()


@pytest.mark.exhaustive
@pytest.mark.parametrize("before", [True, False])
def test_killed_at_any_point_it_counts_every_user_once(tmp_path: Path, before: bool) -> None:
    """Whenever the controller dies, before or after a write, each of ten broken users counts at most once."""
    broken = tuple(range(0, USERS, USERS // 10))
    for nth in range(1, 40):
        path = tmp_path / f"{nth}.db"
        world, first = sticky_world(path, broken=broken)
        first.execute(c.StartRelease("m:v2", alone(STICKY), "ann"))
        acts = (first._ledger, "append"), (world.failures, "trim")
        with Killer(nth, before).counting(*acts), pytest.raises(Killed):
            world.live(first, 60)
        first.close()
        world.pass_time(3)
        second = world.controller()
        world.live(second, 20)
        second.close()
        stable, canary = charged(story(path))
        assert 5 <= stable + canary <= len(broken), f"killed at call {nth}"


def test_a_log_that_cannot_be_read_holds_the_release(tmp_path: Path) -> None:
    """Without the log nothing is judged: the weight stays, and the deadline does not run."""
    world, controller = sticky_world(tmp_path / "ledger.db")
    controller.execute(c.StartRelease("m:v2", alone(STICKY), "ann"))
    world.live(controller, 5)
    world.failures.is_readable = False
    world.live(controller, 100)
    assert controller.snapshot.deployment.active
    assert controller.snapshot.deployment.active.weight_percent == 25
    assert story(world.path).blind_since_s is not None
    world.failures.is_readable = True
    assert world.live_until_ended(controller) == "promoted"
    controller.close()
