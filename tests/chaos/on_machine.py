"""What happens to clock, network and machine, and what people do. Entered, each strikes; left, it is undone."""

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
CLOCK = "clock"  # the file that says how far the wall clock is off


@contextmanager
def taken_down(site: Site) -> Iterator[None]:
    """`kanaria down`, then `kanaria up`."""
    site.command("down", label="down in between")
    yield
    site.command("up")


@contextmanager
def promoted_too_late(site: Site) -> Iterator[None]:
    """A person promotes while the controller hangs, and reads that it failed; then the controller wakes up."""
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
    """A copy is made; later a person takes the stack down, puts the copy back and starts it again."""
    copied = str(site.folder / "copy.db")
    site.command("ledger", "backup", copied, label="ledger backup")
    yield
    site.command("down", label="down in between")
    site.command("ledger", "restore", copied, label="ledger restore")
    site.command("up")


def at_once(*commands: str) -> Strike:
    """Several people give a command in the same moment; each has a number, so that none hides another's exit code."""

    @contextmanager
    def strike(site: Site) -> Iterator[None]:
        labels = [numbered(command, number) for number, command in enumerate(commands, 1)]
        with ThreadPoolExecutor() as people:
            list(people.map(lambda command, label: site.command(command, label=label), commands, labels))
        yield

    return strike


def clock_set(shift_s: float) -> Strike:
    """The wall clock of every Python process jumps, for good; time as such goes on evenly."""

    @contextmanager
    def strike(site: Site) -> Iterator[None]:
        (site.folder / CLOCK).write_text(str(shift_s))
        yield

    return strike


@contextmanager
def suspended(site: Site) -> Iterator[None]:
    """The machine sleeps: nothing runs, and ten minutes later by the wall clock all go on."""
    with stopped(site.everything()):
        (site.folder / CLOCK).write_text(str(SLEEPS_S))
        yield


@contextmanager
def no_loopback(site: Site) -> Iterator[None]:
    """The network device by which everything talks is down."""
    subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def not_alone_in_network() -> str:
    is_alone = os.geteuid() == 0 and set(psutil.net_if_addrs()) == {"lo"}
    return "" if is_alone else "takes a network of its own: `unshare --net`, `ip link set lo up`, `--jobs 1`"
