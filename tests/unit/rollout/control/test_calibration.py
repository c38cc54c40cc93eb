"""Calibration: what is measured on stable before a release, for every signal that a plan may use."""

from dataclasses import replace
from pathlib import Path

import pytest

from rollout.control import commands as c
from rollout.control.calibration import HISTORY_S, Calibration
from rollout.control.controller import Controller
from rollout.control.timing import IDLE_BEAT_S
from rollout.explain.why import why
from rollout.judge import Pair, Window, own_noise
from rollout.signals.options import CONFIDENCE_BOUNDS, LATENCY_BOUNDS_MS, Latency, LowConfidence
from rollout.signals.plan import Signals
from rollout.spec import RolloutSpec
from rollout.ui.status import build_status
from tests.support.releases import SPEC, digits_world, newest

BURST = tuple(0.2 if window % 30 < 6 else 0.005 for window in range(300))  # a slow minute every five


def bursts(signal: str) -> list[Window]:
    """Ten minutes of 2 s windows in which stable's failures come in bursts."""
    return [
        Window(end_s=2.0 * number, window_s=2.0, signal=signal, stable=Pair(round(200 * ratio), 200), canary=Pair(0, 0))
        for number, ratio in enumerate(BURST)
    ]


@pytest.mark.parametrize("bound", LATENCY_BOUNDS_MS)
def test_the_noise_of_every_latency_bound_is_known(bound: int) -> None:
    """The default plan judges up to 1000 ms; a plan may choose any bound that the gateway measures."""
    calibration = Calibration()
    calibration.observe(bursts(f"latency:{bound}"), 600.0, release=None, stable="m:v1")
    plan = Signals({"latency": Latency(slower_than_ms=(bound,))})
    assert calibration.noise(plan.selection())[f"latency:{bound}"].blips > 2


@pytest.mark.parametrize("bound", CONFIDENCE_BOUNDS)
def test_the_noise_of_every_confidence_bound_is_known(bound: float) -> None:
    """Whichever bound a plan chooses, the signal is called `low_confidence`."""
    calibration = Calibration()
    calibration.observe(bursts(f"low_confidence:{bound}"), 600.0, release=None, stable="m:v1")
    plan = Signals({"low_confidence": LowConfidence(below=bound)})
    assert calibration.noise(plan.selection())["low_confidence"].blips > 2


@pytest.mark.parametrize("bounds", [(25, 50, 100, 250, 500, 1000), (5, 2500), (5000,)])
def test_a_release_knows_the_noise_of_all_its_signals(tmp_path: Path, bounds: tuple[int, ...]) -> None:
    """It was measured while no release ran, before the plan was known."""
    world, controller = digits_world(tmp_path / "ledger.db")
    plan = RolloutSpec(signals=Signals({"latency": Latency(slower_than_ms=bounds)}))
    controller.execute(c.StartRelease("digits:v2", plan, "ann"))
    world.live(controller, 5)
    controller.close()
    expected = {"errors", *(f"latency:{bound}" for bound in bounds), "low_confidence", "wrong_label"}
    assert expected <= set(newest(tmp_path / "ledger.db").phi)


@pytest.mark.exhaustive
def test_noise_is_measured_during_a_watch(tmp_path: Path) -> None:
    """The next plan may use signals that the plan of the promoted version did not."""
    world, controller = digits_world(tmp_path / "ledger.db")
    few = Signals({"latency": Latency(slower_than_ms=(25,))})
    plan = RolloutSpec(steps=(50, 100), soak=2, window=1, holdback=0, watch=3000, risk_budget=0.1, signals=few)
    controller.execute(c.StartRelease("digits:v2", plan, "ann"))
    world.live(controller, 2400)
    controller.execute(c.PromoteNow("ann"))
    assert "latency:1000" in controller._calibration.noise(RolloutSpec().signals.selection())
    controller.close()


def known(controller: Controller) -> float:
    return controller._calibration.span_s


@pytest.mark.parametrize("is_killed", [False, True], ids=["stopped", "killed"])
def test_a_restart_does_not_lose_the_history(tmp_path: Path, is_killed: bool) -> None:
    """A release right after the restart knows how noisy stable is; a kill loses at most two minutes."""
    world, controller = digits_world(tmp_path / "ledger.db")
    world.live(controller, 1200, beat_s=IDLE_BEAT_S)
    before_s = known(controller)
    assert before_s > 1200
    if not is_killed:
        controller.close()
    world.pass_time(60)
    again = world.controller()
    world.live(again, 1)
    assert known(again) >= before_s - (130 if is_killed else 5)
    world.live(again, HISTORY_S - 1000, beat_s=IDLE_BEAT_S)
    assert HISTORY_S - 200 <= known(again) <= HISTORY_S + 10
    again.close()
    controller._ledger.close()  # as when a process is killed


def test_a_history_that_is_too_old_is_not_used(tmp_path: Path) -> None:
    """The controller was down for an hour."""
    world, controller = digits_world(tmp_path / "ledger.db")
    world.live(controller, 600, beat_s=IDLE_BEAT_S)
    controller.close()
    world.pass_time(3600)
    again = world.controller()
    assert known(again) == 0
    again.close()


def test_stables_requests_during_a_release_count_as_history(tmp_path: Path) -> None:
    """A long release at 50 % leaves the next one half an hour of history, from stable's own requests only."""
    world, controller = digits_world(tmp_path / "ledger.db")
    world.edit("digits:v2", error_ratio=0.001)
    plan = RolloutSpec(steps=(50, 100), step_deadline=7200, risk_budget=1e-5)
    controller.execute(c.StartRelease("digits:v2", plan, "ann"))
    world.live(controller, HISTORY_S + 100, beat_s=plan.window)
    assert known(controller) > 0.95 * HISTORY_S
    assert controller._calibration.errors.total == pytest.approx(HISTORY_S * world.rps / 2, rel=0.05)
    controller.execute(c.Abort("", "ann"))
    world.live(controller, 30)
    assert controller._calibration.errors.total > HISTORY_S * world.rps / 2
    controller.close()


def test_noise_measured_on_a_share_of_traffic_is_scaled_to_all_of_it() -> None:
    """Stable had half of the requests, so its bursts were half as large; the size of clusters was not affected."""
    windows = bursts("errors")
    halved = [replace(one, canary=one.stable) for one in windows]
    whole, half = own_noise(windows), own_noise(halved)
    assert half.clusters == whole.clusters
    assert half.bursts - half.clusters == pytest.approx(2 * (whole.bursts - whole.clusters))


@pytest.mark.parametrize(("waited_s", "warns"), [(0, True), (600, False)])
def test_a_release_with_little_history_of_stable_says_so(tmp_path: Path, waited_s: float, warns: bool) -> None:
    """Its explanation and its status say it; ten minutes of history are enough."""
    world, controller = digits_world(tmp_path / "ledger.db")
    world.live(controller, waited_s, beat_s=IDLE_BEAT_S)
    controller.execute(c.StartRelease("digits:v2", SPEC, "ann"))
    world.live(controller, 5)
    controller.close()
    release = newest(tmp_path / "ledger.db")
    lines = [line for topic in why(release).topics for line in topic.lines]
    assert any("of digits:v1's counts were known before the canary's first request" in line for line in lines) is warns
    view = build_status("digits", controller.snapshot, release)
    assert view.release
    assert (view.release.caution is not None) is warns
