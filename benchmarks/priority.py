"""Puts a benchmark ahead of whatever else the machine does, so that its slowest requests are its own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

_AHEAD = 1  # of everything that shares a core in turn; where that waits for long, Linux gives it 50 ms of a second


@contextmanager
def ahead_of_others(*servers: psutil.Process) -> Iterator[bool]:
    """Give servers and the caller, who loads them, a core whenever they want one (SCHED_FIFO); what they start, too.

    Yields whether the system allows it: Linux, as root or with CAP_SYS_NICE. If not, the block runs as always.
    """
    threads = [0, *(thread.id for server in servers for thread in server.threads())]
    try:
        _schedule(threads, "SCHED_FIFO", _AHEAD)
    except (AttributeError, PermissionError):
        yield False
        return
    try:
        yield True
    finally:
        _schedule(threads, "SCHED_OTHER", 0)


def _schedule(threads: list[int], policy: str, priority: int) -> None:
    for thread in threads:
        os.sched_setscheduler(thread, getattr(os, policy), os.sched_param(priority))
