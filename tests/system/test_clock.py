"""A controller in a real process whose system clock is changed with libfaketime."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.files import write_whole
from rollout.ledger import events as e
from rollout.ledger.ledger import Ledger
from tests.support.absence import leave_out
from tests.support.children import started
from tests.support.paths import ROOT
from tests.support.waiting import eventually


@pytest.fixture
def library(require_program: Callable[[str], str]) -> str:
    """libfaketime, from the package of the program `faketime`."""
    require_program("faketime")
    found = next(Path("/usr/lib").rglob("libfaketimeMT.so.1"), None)
    return str(found) if found else leave_out("libfaketimeMT.so.1 is not there (Debian: apt-get install libfaketime)")


@pytest.mark.parametrize("by", ["-3600", "+3600"])
def test_a_bad_canary_is_rolled_back_although_the_clock_was_changed(tmp_path: Path, library: str, by: str) -> None:
    """At 25 %, in a step that soaks for ten minutes: the rollback takes seconds, and the jump is in the ledger."""
    clock, begun, go = tmp_path / "clock", tmp_path / "begun", tmp_path / "go"
    clock.write_text("+0")
    environment = {
        **os.environ,
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "tests.support.faked_clock", str(tmp_path / "ledger.db"), str(begun), str(go)]
    with started(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        eventually(begun.exists, within_s=300)
        write_whole(clock, by)  # the file is read all the time, and an empty one would be another time
        go.touch()
        output, _ = process.communicate(timeout=300)
    assert output.splitlines()[-1] == "rolled_back"
    ledger = Ledger(tmp_path / "ledger.db", read_only=True)
    notes = [event.text for event in ledger.events() if isinstance(event, e.Noted) and event.topic == "clock_jumped"]
    ledger.close()
    assert len(notes) == 1
    assert ("60 min back" if by == "-3600" else "60 min ahead") in notes[0]
