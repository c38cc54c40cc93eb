"""Runs one combination on its own stack, from `up` to `down`, and collects the facts."""

import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from contract.errors import KanariaError
from kanaria.cli import Commands
from rollout.ledger.events import Event
from rollout.ledger.state import Phase, desired, fold
from tests.chaos.combinations import Combination
from tests.chaos.on_machine import CLOCK
from tests.chaos.seen import (
    Seen,
    applied_by,
    asked_by,
    failures_of,
    held_by,
    is_bad_answer,
    outcome_of,
    phase_of,
    promoter_of,
)
from tests.chaos.site import NotReached, Site, named
from tests.chaos.states import CANARY, IDLE, PAUSED, STABLE, State
from tests.chaos.users import Users

REACHED_WITHIN_S = 45.0
SETTLED_WITHIN_S = 30.0  # after the fault was undone
IDLE_S = 4.0  # without a release: how long nothing may happen
QUIET_S = 1.0  # no request may fail for this long before a combination ends
_QUIET_WITHIN_S = 12.0
_IN_FORCE_WITHIN_S = 8.0
_GONE_WITHIN_S = 5.0


@dataclass
class Course:
    """When things happened (Unix seconds), and what the users observed."""

    fault_s: float
    undone_s: float
    ticks_after: int = 0  # ticks and decisions after the fault was undone
    watched_s: float | None = None  # length of the watch; None: not observed from start to end
    users: Users | None = None


def run(one: Combination, folder: Path, store: Path, stopping: threading.Event, *, kept: Path) -> Seen:
    """Run a combination and return what was observed.

    Args:
        one: the fault and the state.
        folder: for the stack's files; removed afterwards.
        store: the BentoML home with both versions.
        stopping: set when the driver has to stop.
        kept: the folder to which the logs and the ledger are copied.

    Raises: Interrupted.
    """
    began_s = time.monotonic()
    clock = {"CHAOS_CLOCK": str(folder / CLOCK)}
    site = Site(
        folder,
        store,
        stopping,
        environment=clock | dict(one.fault.environment),
        disk=one.fault.disk,
        has_own_temporary=one.fault.has_own_temporary,
    )
    with site.open():
        (folder / CLOCK).write_text("0")
        course = Course(time.time(), time.time())
        try:
            _live(site, one, course)
        except (NotReached, KanariaError, psutil.Error, OSError) as error:
            site.problems.append(f"{type(error).__name__}: {error}".replace("\n", " "))
        seen = _seen(site, one, course)
        left = _leave(site, one.state)
        _keep(site, kept)
    return seen.model_copy(
        update={
            "left": left,
            "commands": site.commands,
            "problems": tuple(site.problems),
            "took_s": round(time.monotonic() - began_s, 1),
        }
    )


def _live(site: Site, one: Combination, course: Course) -> None:
    """From `up` until requests succeed again."""
    if site.command("up", STABLE, label="first up"):
        raise NotReached("the stack did not start")
    with site.users() as course.users:
        _reach(site, one.state, course.users)
        reached_s = time.monotonic()
        course.fault_s = time.time()
        with one.fault.strike(site):
            site.wait(one.fault.lasts_s)
        course.undone_s = time.time()
        if one.state is PAUSED:
            resume(site)
        known = site.count_ticks()
        if _settle(site, one.state) and one.state.phase is Phase.WATCHING:
            course.watched_s = round(time.monotonic() - reached_s, 1)
        _become_quiet(site, course.users)
    course.ticks_after = site.count_ticks() - known


def _reach(site: Site, state: State, users: Users) -> None:
    """Bring the release to the state; if the state is bad, switch the canary to fail."""
    if not site.until(lambda: users.split is not None and len(users.answers) > 20, limit_s=10.0):
        raise NotReached("the gateway shows no split")
    if state is IDLE:
        return
    site.release(state.plan())
    if not site.until(lambda: state.is_reached(site.deployment), limit_s=REACHED_WITHIN_S):
        raise NotReached(f"the release did not reach `{state.name}`")
    if state.phase is Phase.STARTING:
        site.wait(1.0)
    else:
        site.until(lambda: (split := users.split) is not None and state.is_in_force(split), limit_s=5.0)
    if state.asked:
        site.client().command(state.asked, reason="a person has seen enough")
    if state.is_bad:
        site.let_the_canary_fail()


def resume(site: Site) -> None:
    """Run `resume`, which uses the machine's clock, until the controller accepts it or the release is not paused."""

    def is_resumed() -> bool:
        release = site.deployment.active
        is_paused = release is not None and release.phase is Phase.STEPPING and release.is_paused
        return not is_paused or site.command("resume") == 0

    site.until(is_resumed, limit_s=SETTLED_WITHIN_S)


def _settle(site: Site, state: State) -> bool:
    """Wait for the end of the release; False if it does not end in time."""
    if state is IDLE:
        site.wait(IDLE_S)
        return False

    def is_settled() -> bool:
        release = site.deployment.release
        if release is None or release.phase is Phase.ENDED:
            return release is not None
        return release.phase is Phase.WATCHING and state.phase is not Phase.WATCHING and not state.is_bad

    return site.until(is_settled, limit_s=SETTLED_WITHIN_S)


def _become_quiet(site: Site, users: Users) -> None:
    """Wait, with a limit, until the last decision is in force and requests succeed again."""

    def is_in_force() -> bool:
        wish, split = desired(site.deployment), users.split
        return split is None or (split.stable, split.canary, split.canary_percent) == (
            wish.stable,
            wish.canary,
            wish.weight_percent,
        )

    def is_quiet() -> bool:
        since_s = time.time() - QUIET_S
        recent = [answer for answer in users.read().answers[-200:] if answer.ended_s >= since_s]
        return len(recent) > 10 and not any(answer.has_failed for answer in recent)

    site.until(is_in_force, limit_s=_IN_FORCE_WITHIN_S)
    site.until(is_quiet, limit_s=_QUIET_WITHIN_S)


def _leave(site: Site, state: State) -> tuple[str, ...]:
    """Take the stack down and run the usual commands afterwards; returns the processes that still run."""
    site.command("status", "--json")
    site.command("down")
    site.until(lambda: not site.everything(), limit_s=_GONE_WITHIN_S)
    left = tuple(named(process) for process in site.everything())
    site.command("history", "--json")
    if state is not IDLE:
        site.command("why", "--json")
    if "ledger" in Commands.sources:
        site.command("ledger", "check")
    return left


def _seen(site: Site, one: Combination, course: Course) -> Seen:
    events = _events(site)
    deployment = fold(events)
    release = deployment.release
    fault_s, users = course.fault_s, course.users
    answers, splits = (users.answers, users.splits) if users else ([], [])
    bad = CANARY if one.state.is_bad else None
    bad_answers = [answer for answer in answers if is_bad_answer(answer, bad)]
    return Seen(
        fault=one.fault.name,
        state=one.state.name,
        took_s=0.0,
        undone_s=round(course.undone_s - fault_s, 2),
        requests=len(answers),
        slowest_s=round(max((answer.took_s for answer in answers), default=0.0), 2),
        failures=failures_of(answers, bad, fault_s),
        bad_answers=len(bad_answers),
        bad_until_s=round(max((answer.sent_s - fault_s for answer in bad_answers), default=0.0), 2),
        held=held_by(splits, fault_s, time.time()),
        asked=asked_by(events),
        applied=applied_by(events),
        outcome=outcome_of(deployment),
        phase=phase_of(deployment),
        signal=(release.outcome_signal if release else None) or "",
        reason=(release.outcome_reason if release else None) or "",
        promoted_by=promoter_of(events),
        quarantined=dict(deployment.quarantined),
        ticks_after=course.ticks_after,
        watched_s=course.watched_s,
    )


def _events(site: Site) -> Sequence[Event]:
    try:
        return site.events()
    except KanariaError as error:
        site.problems.append(f"the ledger cannot be read: {error}".replace("\n", " "))
        return ()


def _keep(site: Site, kept: Path) -> None:
    """Keep the files that a person needs to find out what happened."""
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for path in (
        *site.folder.glob("*.log"),
        site.folder / "users.jsonl",
        *site.home.glob("ledger.db*"),
        *site.home.glob("logs/*"),
    ):
        with suppress(OSError):
            shutil.copy(path, kept)
