"""Finds out why nothing listens at the controller's address, from the files of its state folder.

Commands use it when they cannot reach the controller, so it imports little.
"""

import signal
import time
from pathlib import Path

from kanaria.stack import locks
from kanaria.stack.process_state import ProcessState, state_in
from rollout.format import sentence, span
from rollout.ui.client import Absence

_CONTROLLER, _KEEPER = "controller", "keeper"  # the controller's program; `doing` in the keeper's lock
_LEFT = Absence(
    "there is no keeper to restart it", "run `kanaria up`, which takes over what still runs and starts the rest"
)
_KILLED_FOR_MEMORY = "`journalctl -k | grep -i memory` tells whether the machine was out of memory"


def controller_absence(home: Path) -> Absence | None:
    """What is known about the controller, and what to do; None: no stack was started in this folder."""
    keeper = locks.holder(home / locks.KEEPER_LOCK)
    other = locks.holder(home / locks.COMMAND_LOCK)
    if keeper is not None and keeper.doing != _KEEPER:  # a command that stopped the keeper and took its lock
        other = keeper
    is_wanted = (home / "programs" / f"{_CONTROLLER}.json").exists()
    if keeper is None or keeper is other or not is_wanted:
        if other is None:
            return _LEFT if is_wanted else None
        return Absence(f"`{other.doing}`, process {other.pid}, is running", "wait until it has ended")
    path = home / "processes" / f"{_CONTROLLER}.json"
    state = state_in(path)
    seen = _seen(state, _age_s(path)) if state else "it was never started"
    ended = _ended(state) if state else ""
    again = "" if state and state.is_alive else f"; the keeper, process {keeper.pid}, restarts it"
    is_killed = state is not None and state.exit_code == -signal.SIGKILL
    why = f"; {_KILLED_FOR_MEMORY}" if is_killed else ""
    return Absence(
        f"{seen}{ended}{again}",
        f"try again in some seconds; `tail {home / 'logs' / 'controller.log'}` shows what it did last{why}",
    )


def nobody_decides(home: Path) -> str | None:
    """Why no controller of this folder runs, and what to do; None if one runs."""
    state = state_in(home / "processes" / f"{_CONTROLLER}.json")
    if state is not None and state.is_alive:
        return None
    found = controller_absence(home)
    if found is None:
        return "no controller runs here"
    return f"the controller does not run. {sentence(found.saw)}. {sentence(found.do)}"


def _seen(state: ProcessState, age_s: float) -> str:
    """The state of the controller, `age_s` after it was recorded."""
    if state.is_alive:
        return f"its process, {state.pid}, was started {span(age_s)} ago and does not listen yet"
    if state.pid:  # its end is not recorded yet
        return "it ended a moment ago"
    return f"it has been down for {span(age_s)}"


def _ended(state: ProcessState) -> str:
    """How it ended by itself; empty if it never did."""
    if not state.exits:
        return ""
    how = "in an unknown way"
    if state.exit_code is not None:
        how = f"with exit code {state.exit_code}"
        if state.exit_code < 0:
            how = f"killed by {_signal(-state.exit_code)}"
    times = f"{state.exits} times unexpectedly, last" if state.exits > 1 else "once unexpectedly,"
    return f"; it has ended {times} {how}"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no names
        return f"signal {number}"


def _age_s(path: Path) -> float:
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except OSError:  # it is just being replaced
        return 0.0
