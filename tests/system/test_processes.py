"""The keeper, the controller and the machine are killed while users send requests and a release runs."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from kanaria.stack import locks
from kanaria.stack.supervision import ProcessFiles
from rollout.ledger.places import companions
from rollout.routers.envoy import admin
from rollout.routers.envoy.settings import GatewaySettings
from tests.support.processes import Kept, until
from tests.support.stack import Kanaria

NASTY = "a b#c %s 'q'"  # a project folder may have such a name


@pytest.fixture
def nasty(tmp_path: Path, bento_home: Path, require_program: Any) -> Iterator[Kanaria]:
    """A stack whose state folder has a difficult name."""
    require_program("envoy")
    made = Kanaria.at(tmp_path / NASTY, bento_home)
    yield made
    made("down")
    assert Kept(made.home).everything() == []


def at_weight(percent: int) -> Any:
    return lambda status: status["release"] and status["canary"] and status["canary"]["weight_percent"] == percent


def is_watched(status: dict[str, Any]) -> bool:
    return bool(status["release"]) and status["release"]["phase"] == "watching"


def is_over(status: dict[str, Any]) -> bool:
    return bool(status["release"]) and status["release"]["phase"] == "ended"


def test_no_request_and_no_decision_depends_on_the_keeper(nasty: Kanaria, samples: Path) -> None:
    """The keeper is killed, then keeper and controller, then an upgrade runs: no request fails, judging goes on.

    Meanwhile a good version is promoted and a bad one rolled back. At the end `down` leaves no process, not even a hung
    worker of a version without a keeper.
    """
    kept = Kept(nasty.home)
    nasty.ok("up", "digits:v1")
    assert ProcessFiles(nasty.home).program("gateway").droppable == (str(nasty.home / "gateway" / "segments.jsonl"),)
    with nasty.users(samples) as users:
        nasty.ok("release", "digits:v2", "--spec", nasty.plan(soak="3s"))
        nasty.until(at_weight(10))
        served_by = nasty.pid("gateway"), nasty.pid("digits@v1"), nasty.pid("digits@v2")
        first = kept.keeper
        os.kill(first, signal.SIGKILL)
        nasty.until(at_weight(50))
        until(lambda: kept.supervisor.is_running and kept.keeper != first)  # the controller has started another one

        both = kept.keeper, nasty.pid("controller")
        for number in (signal.SIGSTOP, signal.SIGKILL):  # first SIGSTOP, or one could restart the other
            for pid in both:
                os.kill(pid, number)
        assert "took over" in nasty.ok("up")
        nasty.until(is_over)
        assert (nasty.pid("gateway"), nasty.pid("digits@v2")) == (served_by[0], served_by[2])

        before = kept.keeper, nasty.pid("controller")
        output = nasty.ok("upgrade")
        assert "gateway" in output
        assert "digits:v2" in output
        assert nasty.pid("gateway") == served_by[0]
        assert {kept.keeper, nasty.pid("controller")}.isdisjoint(before)

        nasty.ok("release", "digits:failing", "--spec", nasty.plan(steps=[50, 100]))
        nasty.until(at_weight(50))
        os.kill(kept.keeper, signal.SIGKILL)
        nasty.until(is_over)
        summary = users.stop()
    assert {failure.version for failure in summary.failure_list} <= {"digits:failing"}
    assert [row["outcome"] for row in json.loads(nasty.ok("history", "--json"))] == ["promoted", "rolled_back"]

    (worker, *_) = psutil.Process(nasty.pid("digits@v2")).children(recursive=True)
    os.kill(worker.pid, signal.SIGSTOP)
    until(lambda: kept.supervisor.is_running)  # the controller has started a new one
    for pid in (kept.keeper, nasty.pid("controller")):
        os.kill(pid, signal.SIGKILL)
    assert "stopped" in nasty.ok("down")
    assert kept.everything() == []
    assert "nothing is running" in nasty.ok("down")


def kill_all(kanaria: Kanaria) -> None:
    """Simulate a power cut: every process is killed at once, and the files stay."""
    kept = Kept(kanaria.home)
    for number in (signal.SIGSTOP, signal.SIGKILL):  # first SIGSTOP, or one of them would see another's end
        for process in kept.everything():
            with suppress(psutil.NoSuchProcess):  # a short-lived child of one of them has ended meanwhile
                process.send_signal(number)
    until(lambda: not kept.everything())


def test_a_release_continues_after_the_machine_was_restarted(nasty: Kanaria, samples: Path) -> None:
    """The canary loads longer than `down_after`, in a step and in its watch: nothing is rolled back.

    `up --foreground`, as a service runs it, restarts keeper and controller when both are killed; SIGTERM stops all.
    """
    plan = nasty.plan(steps=[25, 100], soak="5m", step_deadline="10m", watch="10m", down_after="1s")
    nasty.ok("up", "digits:v1")
    with nasty.users(samples):
        nasty.ok("release", "digits:v2", "--spec", plan)
        nasty.until(at_weight(25))
        kill_all(nasty)
        nasty.ok("up")
        status = nasty.until(lambda status: at_weight(25)(status) and status["canary"]["health"] == "ready")
        assert status["release"]["outcome"] is None
        nasty.ok("promote")
        nasty.until(is_watched)
        kill_all(nasty)
        up = nasty.begin("up", "--foreground")
        status = nasty.until(lambda status: is_watched(status) and status["stable"]["health"] == "ready")
        assert status["stable"]["tag"] == "digits:v2"
        served_by = nasty.pid("gateway"), nasty.pid("digits@v2")
        kept = Kept(nasty.home)
        for pid in (kept.keeper, controller := nasty.pid("controller")):
            os.kill(pid, signal.SIGKILL)
        until(lambda: kept.supervisor.is_running and kept.pid("controller") != controller)
        assert (nasty.pid("gateway"), nasty.pid("digits@v2")) == served_by
        up.send_signal(signal.SIGTERM)
        output, _ = up.communicate(timeout=200)
    assert up.returncode == 0, output
    assert "`kanaria down` interrupted the watch" in output
    assert kept.everything() == []
    assert "interrupted the watch" in " ".join(nasty.ok("why").split())
    (row,) = json.loads(nasty.ok("history", "--json"))
    assert row["outcome"] == "promoted"
    assert "interrupted the watch" in row["reason"]


def test_up_keeps_waiting_for_a_slow_version_after_a_controller_restart(nasty: Kanaria) -> None:
    """It waits as long as a version may take to load, not the shorter time for a crashed one."""
    up = nasty.begin("up", "digits:v1")
    nasty.until(lambda status: status["stable"] is not None and status["stable"]["health"] != "ready")
    version = psutil.Process(Kept(nasty.home).pid("digits@v1"))
    version.suspend()
    nasty.kill("controller")
    assert up.stdout is not None
    said = next(line for line in up.stdout if line.startswith(("waiting for the stable version", "error")))
    version.resume()
    output, _ = up.communicate(timeout=300)
    assert up.returncode == 0, said + output


def test_concurrent_commands_wait_for_each_other(nasty: Kanaria, samples: Path) -> None:
    """Two `up` start one stack. `down` during a controller restart records that the release is aborted.

    An unreadable ledger does not prevent a stop; it is reported afterwards with exit code 3.
    """
    both = [nasty.begin("up", "digits:v1") for _ in range(2)]
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert len([process for process in Kept(nasty.home).everything() if "envoy" in process.name()]) == 1
    nasty.ok("release", "digits:v2", "--spec", nasty.plan(soak="30s"))
    nasty.until(at_weight(10))
    nasty.kill("controller")
    assert "is aborted" in nasty.ok("down")
    (row,) = json.loads(nasty.ok("history", "--json"))
    assert (row["outcome"], row["reason"]) == ("aborted", "the stack was taken down")

    nasty.ok("up")
    kept, ledger = Kept(nasty.home), nasty.home / "ledger.db"
    psutil.Process(nasty.pid("controller")).suspend()  # it would start another keeper
    kept.kill_keeper()
    nasty.kill("controller")  # it would put its ledger back
    for file in (*companions(ledger), ledger):  # the ledger's own log would put it back too
        file.unlink(missing_ok=True)
    ledger.write_bytes(b"damaged" * 1000)
    done = nasty("down")
    assert (done.returncode, "everything is stopped" in done.stderr) == (3, True), done.stderr
    assert kept.everything() == []


@contextmanager
def suspended_keeper(kanaria: Kanaria) -> Iterator[None]:
    """Suspend the keeper: it stops no process when asked, so a restart stays in progress."""
    keeper = locks.holder(kanaria.home / "keeper.lock")
    assert keeper is not None
    os.kill(keeper.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(keeper.pid, signal.SIGCONT)


def test_a_command_waits_for_a_controller_that_is_restarting(nasty: Kanaria) -> None:
    """After a kill or a restart by a command, the next command said to start the stack, which was running.

    `up` waits too: it took a stack without a controller for a broken one, and stopped it with all its versions.
    """
    nasty.ok("up", "digits:v1")
    nasty.kill("controller")
    assert "digits:v1" in nasty.ok("status")
    nasty.ok("processes", "restart", "controller")
    refused = nasty("promote")
    assert (refused.returncode, "no release is running" in refused.stderr) == (2, True), refused.stderr

    gateway = nasty.pid("gateway")
    with suspended_keeper(nasty):
        restart = nasty.begin("processes", "restart", "controller")
        until(lambda: ProcessFiles(nasty.home).program("controller") is None)
        up = nasty.begin("up")
        assert up.stdout is not None
        said = up.stdout.readline()
    outputs = [process.communicate(timeout=300)[0] for process in (restart, up)]
    assert (restart.returncode, up.returncode, nasty.pid("gateway")) == (0, 0, gateway), outputs
    assert said.startswith("waiting for `kanaria processes restart`"), said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_restart_leaves_the_process(nasty: Kanaria, number: signal.Signals) -> None:
    """Stopped by `kill` or with its terminal, it left the stack without a controller."""
    nasty.ok("up", "digits:v1")
    with suspended_keeper(nasty):
        before = signal.signal(number, signal.default_int_handler)  # a shell lets its background commands ignore it
        restart = nasty.begin("processes", "restart", "controller")
        signal.signal(number, before)
        until(lambda: ProcessFiles(nasty.home).program("controller") is None)
        restart.send_signal(number)
        output = restart.communicate(timeout=300)[0]
    assert restart.returncode != 0, output
    assert ProcessFiles(nasty.home).program("controller") is not None, output
    assert "digits:v1" in nasty.ok("status")


def test_a_gateway_that_does_not_answer_is_restarted(nasty: Kanaria) -> None:
    """Its listeners are drained, then it hangs: the status says that it is silent, and soon it serves again."""
    nasty.ok("up", "digits:v1")
    nasty.until(lambda status: status["gateway"] == "ready")
    gateway = GatewaySettings(nasty.home / "gateway")

    def drain(_: int) -> None:
        with admin.client(gateway, timeout_s=10.0) as owner:
            owner.post("/drain_listeners").raise_for_status()

    for strike in (drain, lambda pid: os.kill(pid, signal.SIGSTOP)):
        before = nasty.pid("gateway")
        strike(before)
        silent = nasty.until(lambda status: status["gateway"] == "silent" and status["troubles"])
        assert silent["troubles"][0].startswith("the gateway has not answered for ")
        nasty.until(lambda status: status["gateway"] == "ready" and not status["troubles"])
        assert nasty.pid("gateway") != before
