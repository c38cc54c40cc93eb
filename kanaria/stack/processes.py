"""Processes of this machine: finds all processes of a program and stops them.

If they cannot be looked up because this machine is out of file descriptors or memory, OSError is raised: a process
that cannot be inspected is not treated as ended.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from kanaria.stack.identity import Identity, start_of
from kanaria.stack.shortage import is_shortage

# Marks in the environment of every process that a stack starts. Children inherit them.
KEPT_IN = "KANARIA_KEPT_IN"  # the state folder: absolute path without links
KEPT_AS = "KANARIA_KEPT_AS"  # the program's name
KEPT_PORT = "KANARIA_KEPT_PORT"  # port of a version that is not a Bento

_POLL_S = 0.1


def marks(home: Path, name: str) -> dict[str, str]:
    """The variables by which the process `name` of the state folder `home` is found again."""
    return {"KANARIA_HOME": str(home), KEPT_IN: str(home.resolve()), KEPT_AS: name}


def marked(home: Path) -> dict[str, list[psutil.Process]]:
    """Every living process with the mark of this state folder, by the program's name; never this process.

    Raises OSError.
    """
    folder, found = str(home.resolve()), dict[str, list[psutil.Process]]()
    own = _self_and_parents()
    for process in psutil.process_iter():
        if process.pid in own:
            continue
        try:
            environment = process.environ()
            if environment.get(KEPT_IN) == folder and process.status() != psutil.STATUS_ZOMBIE:
                found.setdefault(environment.get(KEPT_AS, ""), []).append(process)
        except psutil.Error:
            continue
        except OSError as error:
            if is_shortage(error):
                raise
    return found


def belongings(main: Identity | None, marked_as: Sequence[psutil.Process]) -> list[psutil.Process]:
    """All living processes of a program: the main one, its session, those with its mark, and all their children.

    A worker may have left its process group, lost its parent, or overwritten its environment. Raises OSError.
    """
    own, found = _self_and_parents(), {process.pid: process for process in marked_as}
    # While a session has members, its number is not given to another process.
    is_alive = main is not None and _may_be_alive(main)
    is_own_session = main is not None and (is_alive or start_of(main.pid) is None)
    everyone = {process.pid: process for process in psutil.process_iter()}
    if main is not None and is_own_session:
        found |= {pid: process for pid, process in everyone.items() if _session(pid) == main.pid}
    if main is not None and is_alive:
        with suppress(KeyError):
            found[main.pid] = everyone[main.pid]
    for pid in list(found):
        with suppress(psutil.Error):
            found |= {child.pid: child for child in found[pid].children(recursive=True)}
    return [process for pid, process in found.items() if pid not in own and _is_there(pid)]


def leader(processes: Sequence[psutil.Process]) -> Identity | None:
    """The main process of a program: the oldest that leads a session, as each main process does."""
    leaders = [
        found for process in processes if _session(process.pid) == process.pid and (found := Identity.of(process.pid))
    ]
    return min(leaders, key=lambda one: one.started_s, default=None)


def send(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to each living process, then SIGCONT: a suspended process must run to act on the signal."""
    for process in processes:
        for one in (number, signal.SIGCONT):
            with suppress(psutil.Error):
                process.send_signal(one)


def end(find: Callable[[], list[psutil.Process]], *, wait_s: float) -> bool:
    """Send SIGTERM to all that `find` returns, and after `wait_s` SIGKILL to the rest. True if none is left.

    This also ends a process that is suspended or ignores SIGTERM.
    """
    send(find(), signal.SIGTERM)
    if _gone(find, wait_s):
        return True
    for _ in _tries(5.0):
        if not (left := find()):
            return True
        send(left, signal.SIGKILL)
    return not find()


def _gone(find: Callable[[], list[psutil.Process]], wait_s: float) -> bool:
    return any(not find() for _ in _tries(wait_s))


def _tries(for_s: float) -> Iterator[None]:
    deadline = time.monotonic() + for_s
    while True:
        yield
        if time.monotonic() >= deadline:
            return
        time.sleep(_POLL_S)


def _may_be_alive(main: Identity) -> bool:
    try:
        return main.is_alive
    except PermissionError:
        return True


def _is_there(pid: int) -> bool:
    try:
        return start_of(pid) is not None
    except PermissionError:
        return True


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _self_and_parents() -> set[int]:
    """This process and its ancestors: a command never stops the shell that it runs in."""
    own = psutil.Process()
    with suppress(psutil.Error):
        return {own.pid, *(parent.pid for parent in own.parents())}
    return {own.pid}
