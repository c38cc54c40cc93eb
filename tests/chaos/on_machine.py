"""Faults of clock, network and machine, and what people do.

Each is a context manager: the fault happens on entry and is undone on exit.
"""

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil

from tests.chaos.on_processes import Strike, stopped
from tests.chaos.seen import numbered
from tests.chaos.site import Site

SLEEPS_S = 600.0
CLOCK = "clock"  # this file says how far the wall clock is shifted


@contextmanager
def taken_down(site: Site) -> Iterator[None]:
    """`kanaria down`, then `kanaria up`."""
    site.command("down", label="down in between")
    yield
    site.command("up")


@contextmanager
def promoted_too_late(site: Site) -> Iterator[None]:
    """A person promotes while the controller hangs, and the command fails; then the controller continues."""
    with stopped(site.tree("controller")):
        if site.command("promote") == 0:
            site.problems.append("`promote` succeeded while the controller hung")
        yield


@contextmanager
def upgraded(site: Site) -> Iterator[None]:
    """`kanaria upgrade`."""
    site.command("upgrade")
    yield


@contextmanager
def restored(site: Site) -> Iterator[None]:
    """A person copies the ledger; later they stop the stack, put the copy back and start the stack again."""
    copied = str(site.folder / "copy.db")
    site.command("ledger", "backup", copied, label="ledger backup")
    yield
    site.command("down", label="down in between")
    site.command("ledger", "restore", copied, label="ledger restore")
    site.command("up")


def at_once(*commands: str) -> Strike:
    """Several people run a command at the same time. Each label has a number, so that every exit code is kept."""

    @contextmanager
    def strike(site: Site) -> Iterator[None]:
        labels = [numbered(command, number) for number, command in enumerate(commands, 1)]
        with ThreadPoolExecutor() as people:
            list(people.map(lambda command, label: site.command(command, label=label), commands, labels))
        yield

    return strike


def clock_set(shift_s: float) -> Strike:
    """The wall clock of every Python process jumps permanently; the monotonic clock does not."""

    @contextmanager
    def strike(site: Site) -> Iterator[None]:
        (site.folder / CLOCK).write_text(str(shift_s))
        yield

    return strike


@contextmanager
def suspended(site: Site) -> Iterator[None]:
    """The machine sleeps: no process runs, and all continue when the wall clock has advanced ten minutes."""
    with stopped(site.everything()):
        (site.folder / CLOCK).write_text(str(SLEEPS_S))
        yield


@contextmanager
def no_loopback(site: Site) -> Iterator[None]:
    """The network device that connects all processes is down."""
    subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def not_alone_in_network() -> str:
    is_alone = os.geteuid() == 0 and set(psutil.net_if_addrs()) == {"lo"}
    return "" if is_alone else "requires its own network: `unshare --net`, `ip link set lo up`, `--jobs 1`"
