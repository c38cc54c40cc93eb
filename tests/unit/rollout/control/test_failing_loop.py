"""Whatever fails in a beat, the loop continues, reports it, and keeps traffic where it is safe."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from contract.errors import KanariaError
from rollout.control import commands as c
from rollout.control.controller import Controller
from rollout.control.timing import BEAT_S
from rollout.control.trouble import RETURNED_AFTER, SAID_AFTER
from rollout.errors import LedgerError
from rollout.ledger import events as e
from rollout.ledger.ledger import Ledger
from rollout.spec import RolloutSpec
from tests.support.waiting import eventually
from tests.support.world import Version, World

SPEC = RolloutSpec(steps=(5, 50, 100), soak=5, window=2, step_deadline=300, holdback=0, watch=60, risk_budget=0.02)
ERRORS = [
    OSError(28, "No space left on device"),
    ZeroDivisionError("division by zero"),
    KeyError("m:v1"),
    ValueError("Expecting value: line 1 column 1 (char 0)"),
    KanariaError("the stack is not running", saw="no socket", do="start it with `kanaria up`"),
]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "ledger.db", versions={"m:v1": Version(), "m:v2": Version()})


def run_beats(world: World, controller: Controller, number: int) -> None:
    """Beats as the loop makes them."""
    for _ in range(number):
        world.pass_time(BEAT_S)
        controller.turn(wait_s=0)


def fails(error: Exception) -> Callable[..., NoReturn]:
    def fail(*_: Any, **__: Any) -> NoReturn:
        raise error

    return fail


def at_half(world: World, controller: Controller) -> None:
    controller.execute(c.StartRelease("m:v2", SPEC, "ann"))
    while world.router.history[-1].canary_percent != 50:
        world.live(controller, 0.5)


def shown(controller: Controller) -> str:
    return controller._metrics.exposition().decode()


def decisions(world: World) -> list[e.Event]:
    ledger = Ledger(world.path, read_only=True)
    try:
        return [event for event in ledger.events() if isinstance(event, e.RolledBack | e.Aborted | e.Ended)]
    finally:
        ledger.close()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_the_loop_continues_after_any_error(world: World, controller: Controller, error: Exception) -> None:
    """When the cause is gone, the release continues as if nothing had happened; a short failure is not reported."""
    at_half(world, controller)
    read, world.read = world.read, fails(error)  # type: ignore[method-assign]
    run_beats(world, controller, SAID_AFTER - 1)
    assert controller.snapshot.troubles == ()
    world.read = read  # type: ignore[method-assign]
    run_beats(world, controller, 3)
    assert world.live_until_ended(controller) == "promoted"


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_loop_that_keeps_failing_reports_it(world: World, controller: Controller, error: Exception) -> None:
    """Status and metrics show the last error, until the first beat that succeeds."""
    status, world.status = world.status, fails(error)  # type: ignore[method-assign]
    run_beats(world, controller, SAID_AFTER)
    (trouble,) = controller.snapshot.troubles
    assert trouble.startswith("the controller cannot work: ")
    assert str(getattr(error, "what", error)) in trouble
    assert f"kanaria_controller_failed_beats_in_a_row {SAID_AFTER}.0" in shown(controller)
    assert f"kanaria_controller_failed_beats_total {SAID_AFTER}.0" in shown(controller)
    world.status = status  # type: ignore[method-assign]
    run_beats(world, controller, 2)
    assert controller.snapshot.troubles == ()
    assert "kanaria_controller_failed_beats_in_a_row 0.0" in shown(controller)


@pytest.mark.parametrize("broken", ["status", "read", "running", "start"])
def test_a_canary_loses_its_traffic_while_the_loop_keeps_failing(
    world: World, controller: Controller, broken: str
) -> None:
    """After half a minute without a beat stable gets all traffic. This needs only the gateway, without quarantine."""
    at_half(world, controller)
    whole = getattr(world, broken)
    setattr(world, broken, fails(ZeroDivisionError("a fault")))
    run_beats(world, controller, RETURNED_AFTER - 1)
    assert world.router.history[-1].canary_percent == 50
    run_beats(world, controller, 5)
    assert (world.router.history[-1].stable.tag, world.router.history[-1].canary) == ("m:v1", None)
    aborted, *_ = decisions(world)
    assert isinstance(aborted, e.Aborted)
    assert (aborted.by, "a fault" in aborted.reason) == ("controller", True)
    setattr(world, broken, whole)
    run_beats(world, controller, 3)
    assert [event.kind for event in decisions(world)] == ["aborted", "ended"]
    assert controller.snapshot.deployment.quarantined == {}


def test_an_unreachable_gateway_ends_no_release(world: World, controller: Controller) -> None:
    """No rollback is possible then, and nobody is served; the release continues when it is back."""
    at_half(world, controller)
    world.router.reachable = False
    run_beats(world, controller, RETURNED_AFTER + 20)
    assert "the controller cannot work" in controller.snapshot.troubles[0]
    assert decisions(world) == []
    world.router.reachable = True
    run_beats(world, controller, 5)
    assert world.live_until_ended(controller) == "promoted"


def test_a_promoted_version_stays_while_the_loop_fails(world: World, controller: Controller) -> None:
    """It was judged; being unwatched for a while does not return the previous version."""
    controller.execute(c.StartRelease("m:v2", SPEC, "ann"))
    while controller.snapshot.deployment.stable != "m:v2":
        world.live(controller, 1)
    world.status = fails(ZeroDivisionError("a fault"))  # type: ignore[method-assign]
    run_beats(world, controller, RETURNED_AFTER + 5)
    assert world.router.history[-1].stable.tag == "m:v2"
    assert decisions(world) == []


def test_a_rollback_works_while_the_keeper_is_away(world: World, controller: Controller) -> None:
    """It needs only the gateway: the versions run where they were."""
    at_half(world, controller)
    for method in ("status", "start", "running"):
        setattr(world, method, fails(KanariaError("the stack is not running", saw="no socket", do="wait")))
    with pytest.raises(KanariaError, match="not running"):  # from carrying it out; the decision stands
        controller.execute(c.RollbackNow("ann"))
    run_beats(world, controller, 1)
    assert world.router.history[-1].canary is None


def test_the_controller_retries_a_ledger_that_cannot_be_opened(world: World, controller: Controller) -> None:
    """The process stays, says what is wrong, and starts as soon as it can."""
    controller.close()
    again = world.unstarted_controller()
    opened, again._open_ledger = (
        again._open_ledger,
        fails(LedgerError("the ledger cannot be opened", saw="disk full", do="make room")),
    )
    run_beats(world, again, SAID_AFTER)
    assert again.snapshot.troubles == ("the controller cannot work: the ledger cannot be opened: disk full",)
    again._open_ledger = opened
    run_beats(world, again, 2)
    assert again.snapshot.troubles == ()
    assert again.snapshot.deployment.stable == "m:v1"
    again.close()


def test_an_error_in_a_command_does_not_end_the_loop(world: World, controller: Controller) -> None:
    """Its sender gets the error; the next command is answered."""
    controller.close()
    again = world.unstarted_controller()
    loop = threading.Thread(target=again.run)
    loop.start()
    try:
        eventually(lambda: again.snapshot.deployment.stable == "m:v1")
        known, world.known_tags = world.known_tags, fails(ZeroDivisionError("a fault"))  # type: ignore[method-assign]
        with pytest.raises(ZeroDivisionError):
            again.submit(c.StartRelease("m:v2", SPEC, "ann"), timeout_s=60)
        world.known_tags = known  # type: ignore[method-assign]
        assert again.submit(c.StartRelease("m:v2", SPEC, "ann"), timeout_s=60) == 1
    finally:
        again.stop()
        loop.join()


def test_low_disk_space_is_shown(world: World, controller: Controller) -> None:
    """It is shown before anything fails."""
    world.live(controller, 1)
    assert "kanaria_state_folder_free_bytes" in shown(controller)
    assert controller.snapshot.free_bytes > 0
