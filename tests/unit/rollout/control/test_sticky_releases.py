"""Releases with sticky callers: the failures of one user are not the canary's fault; harm to many users is."""

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
    """Users with a fixed place in the split. Broken users send one request in 25 and fail on both versions."""

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
    """A deployment with stable v1, and v2, which fails a share of its requests."""
    versions = {"m:v1": Version(), "m:v2": Version(error_ratio=canary)}
    world = StickyWorld(path, versions=versions, broken=broken)
    controller = world.controller()
    controller.execute(c.SetStable("m:v1", "ann"))
    world.live(controller, 20)
    return world, controller


def errors_only(spec: RolloutSpec, **changes: object) -> RolloutSpec:
    """The plan with errors as its only signal, and no absolute limit on them."""
    signals, guards = spec.signals.only("errors"), Guards(error_ratio=0.9)
    return spec.model_copy(update={"signals": signals, "guards": guards, **changes})


def released(path: Path, spec: RolloutSpec, **world: object) -> Timeline:
    """The timeline of v2's release from beginning to end."""
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


def affected_users(release: Timeline) -> tuple[int, int]:
    """Users affected, on stable and on canary."""
    counted = windows(release, AFFECTED_USERS)
    return sum(window.stable.bad for window in counted), sum(window.canary.bad for window in counted)


def test_one_user_with_bad_inputs_does_not_roll_back_the_canary(tmp_path: Path) -> None:
    """The user is on the canary and fails for minutes. Counted by request, the canary would be rolled back."""
    release = released(tmp_path / "ledger.db", errors_only(STICKY), broken=(ON_CANARY,))
    judge = Judge(errors_only(RANDOM).judge_config())
    judge.observe(windows(release, "errors"))
    assert judge.judgement(next_weight=None).verdict is Verdict.FAIL
    assert affected_users(release) == (0, 1)
    assert release.state.outcome_signal == "deadline", "it is not promoted either, as one request in ten fails"


def test_users_are_not_counted_if_callers_are_not_sticky(tmp_path: Path) -> None:
    """The same user meets both versions; raw errors are judged, and no user keys are stored."""
    release = released(tmp_path / "ledger.db", errors_only(RANDOM), broken=(ON_CANARY,))
    assert (release.state.outcome, release.user_phi) == ("promoted", None)
    assert AFFECTED_USERS not in release.signals


@pytest.mark.parametrize("steps", [(25, 50, 100), ("shadow", 25, 100)])
def test_a_canary_that_fails_many_users_is_rolled_back(tmp_path: Path, steps: tuple[int | str, ...]) -> None:
    """A user's first failure counts. In the shadow copies are not logged, and each failure counts."""
    release = released(tmp_path / "ledger.db", errors_only(STICKY, steps=steps), canary=0.15)
    assert (release.state.outcome, release.state.outcome_signal) == ("rolled_back", AFFECTED_USERS)
    assert "were the first failure of their user" in why(release).verdict


def test_repeated_failures_of_one_user_ask_for_more_proof_at_a_step(tmp_path: Path) -> None:
    """All failures of stable are one user's, and `why` says how much more proof a step needs."""
    release = released(tmp_path / "ledger.db", errors_only(STICKY), broken=(ON_STABLE,))
    assert release.user_phi is not None
    assert release.user_phi > 10
    text = "\n".join(line for topic in why(release).topics for line in topic.lines)
    assert "distinguished by `x-user-id`" in text
    assert f"{release.user_phi:.1f} times the proof" in text


def test_raw_errors_bound_the_risk_but_fail_no_canary(tmp_path: Path) -> None:
    """Their threshold is infinite, which JSON cannot hold, so the status has none."""
    world, controller = sticky_world(tmp_path / "ledger.db")
    controller.execute(c.StartRelease("m:v2", errors_only(STICKY), "ann"))
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
def test_plans_by_caller_key_are_refused_if_the_gateway_asks_for_no_keys(tmp_path: Path, by_keys: str) -> None:
    """An open gateway removes the key's name, so each request would be drawn at random without a warning."""
    world, controller = sticky_world(tmp_path / "ledger.db")
    plan = parse_spec(by_keys)
    world.router.asks_for_keys = False
    with pytest.raises(CommandRefused, match="the gateway asks for no keys"):
        controller.execute(c.StartRelease("m:v2", plan, "ann"))
    world.router.asks_for_keys = True
    assert controller.execute(c.StartRelease("m:v2", plan, "ann")) == 1
    controller.close()


def test_the_report_of_a_sticky_release_is_written(tmp_path: Path) -> None:
    """Its pictures show the users affected instead of the errors."""
    release = released(tmp_path / "ledger.db", errors_only(STICKY), canary=0.15)
    (evidence,) = [picture for picture in pictures(release) if picture.key == "evidence"]
    assert [trace.name for trace in evidence.figure.data] == ["users affected", "all together"]


def test_user_keys_are_deleted_when_the_release_ends(tmp_path: Path) -> None:
    """They are removed from the ledger, and the gateway's log is emptied."""
    world, controller = sticky_world(tmp_path / "ledger.db", broken=(ON_CANARY,))
    controller.execute(c.StartRelease("m:v2", errors_only(STICKY), "ann"))
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
def test_a_controller_killed_at_any_point_counts_every_user_once(tmp_path: Path, before: bool) -> None:
    """Killed before or after any write, it counts each of ten broken users at most once."""
    broken = tuple(range(0, USERS, USERS // 10))
    for nth in range(1, 40):
        path = tmp_path / f"{nth}.db"
        world, first = sticky_world(path, broken=broken)
        first.execute(c.StartRelease("m:v2", errors_only(STICKY), "ann"))
        acts = (first._ledger, "append"), (world.failures, "trim")
        with Killer(nth, before).counting(*acts), pytest.raises(Killed):
            world.live(first, 60)
        first.close()
        world.pass_time(3)
        second = world.controller()
        world.live(second, 20)
        second.close()
        stable, canary = affected_users(story(path))
        assert 5 <= stable + canary <= len(broken), f"killed at call {nth}"


def test_a_log_that_cannot_be_read_holds_the_release(tmp_path: Path) -> None:
    """Nothing is judged without the log: the weight stays, and the deadline does not run."""
    world, controller = sticky_world(tmp_path / "ledger.db")
    controller.execute(c.StartRelease("m:v2", errors_only(STICKY), "ann"))
    world.live(controller, 5)
    world.failures.is_readable = False
    world.live(controller, 100)
    assert controller.snapshot.deployment.active
    assert controller.snapshot.deployment.active.weight_percent == 25
    assert story(world.path).blind_since_s is not None
    world.failures.is_readable = True
    assert world.live_until_ended(controller) == "promoted"
    controller.close()
