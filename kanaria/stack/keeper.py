"""The keeper's process, which runs the loop of `keeper_loop`.

It can be killed at any time: its programs run on, and the next keeper takes them over. Nothing ties a program to the
keeper's process: output goes straight to files, and each program has its own session.
"""

import argparse
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import structlog

from contract.log_lines import log_as_json
from kanaria.errors import StackError
from kanaria.private_files import only_for_the_owner
from kanaria.stack import locks
from kanaria.stack.confinement import leave_no_core_dumps
from kanaria.stack.keeper_loop import TICK_S, Keeper
from kanaria.stack.log_files import LogFiles
from kanaria.stack.supervision import KEEPER, keepers_of

log = structlog.get_logger()

LOCK_WAIT_S = 2.0  # the previous keeper may be about to end
OTHERS_END_S = LOCK_WAIT_S + 1.0  # for other keepers that wait for the same lock


class _Waiter:
    """Waits for a timeout, a signal such as SIGCHLD, or the request to end."""

    def __init__(self) -> None:
        self.is_over = False
        self._here, there = socket.socketpair()
        self._there = there
        for end in (self._here, there):
            end.setblocking(False)
        signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)

    def wait(self, seconds: float, others: Iterable[socket.socket | int]) -> None:
        """Wait, also until one of `others` becomes readable."""
        if self._here in select.select([self._here, *others], [], [], seconds)[0]:
            with suppress(BlockingIOError):
                self._here.recv(4096)

    def _end(self, *_: object) -> None:
        self.is_over = True


def run(home: Path, logs: Path, *, ready: BinaryIO) -> None:
    """Keep the programs running until SIGTERM, which ends none of them.

    Args:
        ready: a file that is closed once all running processes are taken over.

    Raises: StackError if another keeper has the lock.
    """
    with locks.locked(home / locks.KEEPER_LOCK, doing=KEEPER, wait_s=LOCK_WAIT_S) as lock:
        _be_alone(home)
        waiter, keeper = _Waiter(), Keeper(home, logs)
        keeper.adopt()
        keeper.tick()
        ready.close()
        while not waiter.is_over:
            waiter.wait(*keeper.pause())
            if not keeper.keep_lock(lock):
                return
            keeper.tick()


def _be_alone(home: Path) -> None:
    """Raise StackError if another keeper lives whose lock was removed, or was moved away with its folder."""
    until_s = time.monotonic() + OTHERS_END_S
    while others := keepers_of(home):
        if time.monotonic() >= until_s:
            pids = ", ".join(str(process.pid) for process in others)
            raise StackError(
                "another keeper takes care of these processes",
                saw=f"process {pids} holds a lock file that was removed or replaced, or moved away with its folder",
                do=f"wait some seconds: it takes the new lock; or stop it, which stops no other process: kill {pids}",
            )
        time.sleep(TICK_S)


def main() -> None:
    """Start a keeper in the background. The exit code tells whether it started."""
    parser = argparse.ArgumentParser(description="Keep the processes of a state folder. `kanaria up` does this.")
    parser.add_argument("home", type=Path)
    parser.add_argument("logs", type=Path)
    arguments = parser.parse_args()
    log_as_json()
    only_for_the_owner()
    leave_no_core_dumps()
    failed, ready = os.pipe()
    if os.fork():  # the keeper becomes an orphan, so no process has to wait for it
        os.close(ready)
        reason = b"".join(iter(lambda: os.read(failed, 4096), b""))
        sys.stderr.buffer.write(reason)
        sys.stderr.flush()
        os._exit(1 if reason else 0)
    os.close(failed)
    os.setsid()
    with LogFiles(arguments.logs).open(KEEPER) as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    with os.fdopen(ready, "wb", buffering=0) as said:
        try:
            run(arguments.home, arguments.logs, ready=said)
        except (StackError, OSError) as error:
            with suppress(OSError, ValueError):  # ValueError: the keeper had started, so the file is closed
                said.write(str(error).encode())
            if isinstance(error, StackError):  # another keeper runs: two commands may each have started one
                log.info("keeper_not_needed", why=error.saw)
            else:
                log.exception("keeper_failed")
            sys.exit(1)


if __name__ == "__main__":
    main()
