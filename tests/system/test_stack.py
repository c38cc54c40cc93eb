"""How long `kanaria up` waits, and what can prevent it and other commands."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kanaria.errors import StackError
from kanaria.settings import Settings
from kanaria.stack import stack
from kanaria.stack.stack import Stack, startup_deadline_s
from kanaria.stack.supervision import Program
from rollout.ledger import events as e
from rollout.ledger.ledger import Ledger
from rollout.spec import RolloutSpec
from tests.support.processes import WITH_WORKER, Kept, until


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A state folder in a project folder without a plan."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KANARIA_HOME", ".kanaria")
    return Settings()


def test_a_version_may_load_for_as_long_as_a_plan_says(settings: Settings) -> None:
    """The longest of ./rollout.yaml and the newest release counts, or the default without either or if it is broken."""
    default_s = RolloutSpec().startup_deadline
    assert startup_deadline_s(settings) == default_s
    Path("rollout.yaml").write_text("startup_deadline: 15m")
    assert startup_deadline_s(settings) == 900
    settings.root.mkdir()
    ledger = Ledger(settings.ledger)
    spec = RolloutSpec(startup_deadline=1200)
    ledger.append(e.ReleaseRequested(at_s=1, release=1, tag="m:v2", stable="m:v1", spec=spec, by="me"))
    ledger.close()
    assert startup_deadline_s(settings) == 1200
    Path("rollout.yaml").write_text("startup_deadline: -1")
    assert startup_deadline_s(settings) == default_s


def test_nothing_is_running_is_reported_only_if_it_is_true(settings: Settings) -> None:
    """The state folder was removed while a process ran without a keeper: `down` finds and stops the process."""
    kept = Kept(settings.root)
    kept.supervisor.start()
    pid = kept.run("one", WITH_WORKER)
    until(lambda: len(kept.everything()) == 3)
    os.kill(kept.keeper, signal.SIGKILL)
    subprocess.run(["rm", "-r", str(settings.root)], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "kanaria", "down"], capture_output=True, text=True, check=False, timeout=300
    )
    assert "stopped" in done.stdout
    assert "there is no ledger" in done.stdout
    assert done.returncode == 0
    assert kept.everything() == []
    assert until(lambda: not kept.supervisor.alive()), pid
    lines: list[str] = []
    Stack(settings, by="me").down(say=lines.append)
    assert lines == ["nothing is running"]


def test_an_upgrade_whose_controller_does_not_start_says_how_to_go_back(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other processes go on, and the controller's last output is shown."""
    monkeypatch.setattr(stack, "_RESTART_GRACE_S", 0.5)
    kept = Kept(settings.root)
    kept.supervisor.start()
    try:
        gateway, keeper = kept.run("gateway"), kept.keeper
        kept.supervisor.add(
            Program("controller", ("another-python", "-c", "raise ImportError('the new code is broken')"))
        )
        with pytest.raises(StackError, match="new controller did not start") as caught:
            Stack(settings, by="me").upgrade(say=print)
        assert "the new code is broken" in caught.value.saw
        assert "to go back" in caught.value.do
        assert kept.pid("gateway") == gateway
        assert kept.keeper != keeper
    finally:
        kept.supervisor.shutdown()


def test_a_keeper_that_ends_while_up_waits_is_restarted(settings: Settings) -> None:
    """Otherwise `up` would wait for a process that is never started."""
    kept = Kept(settings.root)
    kept.supervisor.start()
    try:
        kept.run("controller", ("sleep", "600"))
        kept.kill_keeper()
        Stack(settings, by="me")._wait(
            "the keeper", lambda: kept.supervisor.is_running, program="controller", say=print, limit_s=120
        )
    finally:
        kept.supervisor.shutdown()
