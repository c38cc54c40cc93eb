"""How a release ends when its stack is taken down, in a real ledger."""

import time
from contextlib import closing
from pathlib import Path

import pytest

from kanaria.errors import StackError
from kanaria.stack.release_end import end_release
from rollout.explain.why import one_sentence
from rollout.ledger import events as e
from rollout.ledger.kept import KeptDecisions
from rollout.ledger.ledger import Ledger
from rollout.ledger.lock import WriterLock
from rollout.ledger.reserve import reserve_of
from rollout.ledger.state import Phase, fold
from rollout.spec import RolloutSpec
from rollout.ui.cli.reading import find_release
from tests.support.small_disk import SmallDisk

NOW_S = time.time()
REQUESTED = e.ReleaseRequested(
    at_s=NOW_S - 60, release=1, tag="m:v2", stable="m:v1", spec=RolloutSpec(holdback=0, watch=600), by="me"
)
STEPPING = e.StepEntered(at_s=NOW_S - 50, release=1, step=0, weight_percent=50, mirror=False, reason="ready")
PROMOTED = e.Promoted(at_s=NOW_S - 12, release=1, reason="proven")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def read(path: Path) -> list[e.Event]:
    with closing(Ledger(path, read_only=True)) as ledger:
        return list(ledger.events())


def write(path: Path, *events: e.Event) -> None:
    ledger = Ledger(path)
    ledger.append(e.StableSet(at_s=NOW_S - 100, tag="m:v1"), *events)
    ledger.close()


@pytest.mark.parametrize("events", [(REQUESTED,), (REQUESTED, STEPPING)], ids=["starting", "stepping"])
def test_taking_down_the_stack_aborts_the_release_on_record(path: Path, events: tuple[e.Event, ...]) -> None:
    """The ledger has who did it and why. The release is over, and stable is unchanged."""
    write(path, *events)
    lines: list[str] = []
    end_release(path, by="me", say=lines.append)
    state = fold(read(path))
    assert state.stable == "m:v1"
    assert state.release is not None
    assert (state.release.phase, state.release.outcome) == (Phase.ENDED, "aborted")
    assert state.release.outcome_reason == "the stack was taken down"
    assert lines == ["release 1 (m:v2) is aborted: the stack was taken down"]


def test_a_stack_that_never_had_a_ledger_has_no_release_to_end(path: Path) -> None:
    """It was taken down before its controller created the ledger.

    A ledger that is known to be lost is another matter.
    """
    lines: list[str] = []
    end_release(path, by="me", say=lines.append)
    assert "there is no ledger" in lines[0]
    assert list(path.parent.iterdir()) == []


def test_an_interrupted_watch_continues_later(path: Path) -> None:
    """A bad version does not become permanent this way; `why` and `history` show how long the watch ran."""
    write(path, REQUESTED, STEPPING, PROMOTED)
    lines: list[str] = []
    end_release(path, by="me", say=lines.append)
    release = find_release(path, None)
    assert (release.outcome, release.state.phase) == ("promoted", Phase.WATCHING)
    assert release.watch_interrupted is not None
    assert release.watch_interrupted == "`kanaria down` interrupted the watch: 0 s of 600 s were measured"
    assert release.watch_interrupted in lines[0]
    assert release.watch_interrupted in one_sentence(release)


@pytest.mark.parametrize(
    "events",
    [(), (REQUESTED, PROMOTED, e.Ended(at_s=NOW_S, release=1, outcome="promoted"))],
    ids=["no release", "ended"],
)
def test_without_a_running_release_nothing_is_written(path: Path, events: tuple[e.Event, ...]) -> None:
    """The ledger stays unchanged."""
    write(path, *events)
    before = read(path)
    end_release(path, by="me", say=lambda _: None)
    assert read(path) == before


def test_an_unreadable_ledger_is_reported_and_no_new_one_is_made(path: Path) -> None:
    """It is damaged or gone. Everything is stopped by then, and the message says so."""
    write(path)
    path.unlink()
    with pytest.raises(StackError, match="everything is stopped"):
        end_release(path, by="me", say=lambda _: None)
    assert not path.exists()
    path.write_bytes(b"damaged" * 1000)
    with pytest.raises(StackError, match="everything is stopped"):
        end_release(path, by="me", say=lambda _: None)
    assert path.read_bytes() == b"damaged" * 1000


def test_a_decided_rollback_that_was_not_written_is_written_now(path: Path) -> None:
    """The controller decided while the ledger was locked and was then taken down. The version stays in quarantine."""
    write(path, REQUESTED, STEPPING)
    with closing(Ledger(path, read_only=True)) as ledger:
        kept = KeptDecisions(path, ledger.identity)
        kept.keep([e.RolledBack(at_s=NOW_S - 5, release=1, signal="guard", reason="9 of 9 failed")])
    lines: list[str] = []
    end_release(path, by="me", say=lines.append)
    state = fold(read(path))
    assert state.release is not None
    assert (state.release.phase, state.release.outcome) == (Phase.ENDED, "rolled_back")
    assert "m:v2" in state.quarantined
    assert lines == ["release 1 (m:v2) had been decided, which is recorded now: 9 of 9 failed"]
    assert KeptDecisions(path).read() == ()


def test_a_decided_release_is_over(path: Path) -> None:
    """Its canary was still answering its last requests. A copy of this ledger said that the release had not ended."""
    write(path, REQUESTED, STEPPING, e.Aborted(at_s=NOW_S - 1, release=1, reason="no", by="ann"))
    lines: list[str] = []
    end_release(path, by="me", say=lines.append)
    state = fold(read(path))
    assert state.release is not None
    assert (state.active, state.release.outcome, state.release.outcome_reason) == (None, "aborted", "no")
    assert lines == []


def test_a_release_whose_pause_was_not_written_is_aborted(path: Path) -> None:
    """The ledger records the pause first, then the abort."""
    write(path, REQUESTED, STEPPING)
    KeptDecisions(path).keep([e.Paused(at_s=NOW_S - 5, release=1, reason="wait", by="ann")])
    end_release(path, by="me", say=lambda _: None)
    kinds = [event.kind for event in read(path)]
    assert kinds[-3:] == ["paused", "aborted", "ended"]


def test_on_a_full_disk_the_reserved_space_is_used(small_disk: SmallDisk) -> None:
    """Otherwise the release would continue at the next start, because its end could not be written."""
    path = small_disk.folder / "ledger.db"
    write(path, REQUESTED, STEPPING)
    assert reserve_of(path, 2**20).take()
    small_disk.fill()
    end_release(path, by="me", say=lambda _: None)
    small_disk.free()
    state = fold(read(path))
    assert state.release is not None
    assert (state.release.phase, state.release.outcome) == (Phase.ENDED, "aborted")


def test_a_ledger_that_another_process_holds_is_not_touched(path: Path) -> None:
    """A controller that somebody started manually still writes to it."""
    write(path, REQUESTED)
    lock = WriterLock(path, who="the controller")
    lock.take()
    try:
        with pytest.raises(StackError, match="another process holds"):
            end_release(path, by="me", say=lambda _: None)
    finally:
        lock.release()
    assert fold(read(path)).active is not None
