"""Records that a release was taken down with its stack. Only for use when no controller runs."""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from kanaria.errors import StackError
from rollout.control.writer import Writer
from rollout.errors import RolloutError
from rollout.explain.timeline import timeline
from rollout.ledger import events as e
from rollout.ledger import places
from rollout.ledger.kept import KeptDecisions
from rollout.ledger.ledger import Ledger
from rollout.ledger.lock import WriterLock
from rollout.ledger.reserve import open_ledger, reserve_of
from rollout.ledger.state import Phase, Release, fold


def end_release(path: Path, *, by: str, say: Callable[[str], None]) -> None:
    """Abort the running release of the ledger `path`; a watch goes on later. Raises StackError."""
    if not path.exists() and not places.had_ledger(path):
        say(f"nothing was recorded about a release: there is no ledger and no trace of one ({path})")
        return
    try:
        if not path.exists():
            Ledger(path, read_only=True)  # raises: a lost ledger must not be replaced by an empty one
        lock = WriterLock(path, who="kanaria down")
        lock.take()
        try:
            with closing(open_ledger(path)) as ledger:
                _settle(ledger, by=by, say=say)
        finally:
            lock.release()
    except (RolloutError, OSError) as error:
        saw, do = str(error), "make the state folder writable"
        if isinstance(error, RolloutError):
            saw, do = f"{error.what}: {error.saw}", error.do
        raise StackError(
            "everything is stopped, but the end of a release could not be recorded",
            saw=saw,
            do=f"{do}; a release that was running goes on with the next `kanaria up`",
        ) from error


def _settle(ledger: Ledger, *, by: str, say: Callable[[str], None]) -> None:
    release = fold(ledger.events(without_ticks=True)).active
    if release is None:
        return
    kept = KeptDecisions(ledger.path, ledger.identity)
    writer = Writer(ledger, kept, reserve_of(ledger.path))
    if missing := kept.missing(release, ledger.of_release(release.number)):
        writer.write(*missing)
    state = timeline(ledger.of_release(release.number)).state
    if missing and state.phase is Phase.LEAVING:
        say(f"{state.name} had been decided, which is recorded now: {state.outcome_reason}")
    _end(state, writer, by=by, say=say)


def _end(release: Release, writer: Writer, *, by: str, say: Callable[[str], None]) -> None:
    now_s, number = time.time(), release.number
    match release.phase:
        case Phase.STARTING | Phase.STEPPING:
            aborted = e.Aborted(at_s=now_s, release=number, reason="the stack was taken down", by=by)
            writer.write(aborted, e.Ended(at_s=now_s, release=number, outcome="aborted"))
            say(f"release {number} ({release.canary}) is aborted: the stack was taken down")
        case Phase.LEAVING if release.outcome:  # its last requests have ended
            writer.write(e.Ended(at_s=now_s, release=number, outcome=release.outcome))
        case Phase.WATCHING:
            measured = f"{release.seen_s:.0f} s of {release.spec.watch:.0f} s"
            text = f"`kanaria down` interrupted the watch: {measured} were measured"
            writer.write(e.Noted(at_s=now_s, release=number, topic=e.WATCH_INTERRUPTED, text=text))
            say(f"release {number} ({release.canary}): {text}; it goes on with the next `kanaria up`")
