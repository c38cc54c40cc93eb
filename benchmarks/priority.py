"""Gives a benchmark priority over all other work, so that other work does not cause its slowest requests."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

_AHEAD = 1  # above all threads that share cores in turn; Linux still gives these 50 ms of each second


@contextmanager
def ahead_of_others(*servers: psutil.Process) -> Iterator[bool]:
    """Give servers, the calling load generator, and what they start a core whenever they want one (SCHED_FIFO).

    Yields whether the system allows it: Linux, as root or with CAP_SYS_NICE. If not, the block runs as usual.
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
