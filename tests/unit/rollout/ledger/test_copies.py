"""A copy of the ledger is complete or absent, is made while the controller writes, and is restored by rules."""

import shutil
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest

from rollout.control.commands import PromoteNow, RollbackNow, SetStable, StartRelease
from rollout.errors import LedgerDamaged, LedgerError, LedgerGone, NotALedger
from rollout.ledger import copies, places
from rollout.ledger import events as e
from rollout.ledger.check import check
from rollout.ledger.kept import KeptDecisions
from rollout.ledger.ledger import Ledger
from rollout.ledger.own_names import RESTORE
from rollout.ledger.restoring import restore, start_new_ledger
from rollout.ledger.state import Phase
from rollout.spec import RolloutSpec
from tests.support.small_disk import SmallDisk
from tests.support.unreadable_ledgers import PAGE, whole
from tests.support.world import Version, World

NOW_S = 1_800_000_000.0


def note(number: int) -> e.Noted:
    return e.Noted(at_s=float(number), topic="fleet", text=f"event {number}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger with five releases."""
    (tmp_path / "state").mkdir()
    whole(tmp_path / "state" / "ledger.db")
    return tmp_path / "state" / "ledger.db"


def read(path: Path) -> list[e.Event]:
    with closing(Ledger(path, read_only=True)) as ledger:
        return list(ledger.events())


def add(path: Path, *events: e.Event) -> None:
    with closing(Ledger(path)) as ledger:
        ledger.append(*events)


def test_a_copy_holds_all_events_in_one_file(path: Path, tmp_path: Path) -> None:
    """It can be read in a folder that cannot be written."""
    target = tmp_path / "elsewhere" / "copy.db"
    target.parent.mkdir()
    with closing(Ledger(path)) as writer:
        writer.append(note(1))  # it is in SQLite's log, not in the file yet
        contents = copies.copy(path, target)
    assert read(target) == read(path)
    assert [file.name for file in target.parent.iterdir()] == ["copy.db"]
    assert (contents.events, contents.releases, contents.stable) == (len(read(path)), 5, "m:v2")


def test_copies_made_while_the_controller_writes_are_complete_and_block_nobody(path: Path, tmp_path: Path) -> None:
    """Each holds all events up to one moment, and no write fails."""
    ended = Event()

    def write() -> int:
        written = 0
        with closing(Ledger(path)) as ledger:
            while not ended.is_set():
                ledger.append(note(written), note(written + 1))
                written += 2
        return written

    before = len(read(path))
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        made = [copies.copy(path, tmp_path / f"{number}.db").events for number in range(5)]
        ended.set()
        assert writing.result(timeout=60) > 0
    assert made == sorted(made)
    assert {(events - before) % 2 for events in made} == {0}, "a transaction is in the copy completely or not at all"
    everything = read(path)
    for number, events in enumerate(made):
        assert read(tmp_path / f"{number}.db") == everything[:events]


def test_a_copy_overwrites_an_older_copy_and_nothing_else(path: Path, tmp_path: Path) -> None:
    """It overwrites neither the ledger nor any other file."""
    copies.copy(path, tmp_path / "copy.db")
    add(path, note(1))
    assert copies.copy(path, tmp_path / "copy.db").events == len(read(path))
    (tmp_path / "model.pt").write_bytes(b"weights")
    for target in (tmp_path / "model.pt", path, tmp_path):
        with pytest.raises(NotALedger):
            copies.copy(path, target)
    assert (tmp_path / "model.pt").read_bytes() == b"weights"


def test_the_set_number_of_copies_is_kept(path: Path) -> None:
    """The oldest are removed after a new one; without new events there is no new copy."""
    made = []
    for number in range(4):
        made.append(copies.scheduled_copy(path, keep=2, now_s=NOW_S + number))
        again = copies.scheduled_copy(path, keep=2, now_s=NOW_S + 100)
        assert (again.is_new, again.path) == (False, made[-1].path)
        add(path, note(number))
    assert made[3].removed == (made[1].path,)
    assert places.copies(path) == [made[3].path, made[2].path]


def test_setting_the_clock_back_does_not_remove_a_new_copy(path: Path) -> None:
    """The latest copy stays, whatever time its name has."""
    copies.scheduled_copy(path, keep=1, now_s=NOW_S)
    add(path, note(1))
    made = copies.scheduled_copy(path, keep=1, now_s=NOW_S - 3600)
    assert places.copies(path) == [made.path]


def test_copies_within_one_second_get_different_files(path: Path) -> None:
    """They sort by order of creation. A ledger that is replaced twice within a second leaves two files."""
    made = []
    for number in range(12):
        made.append(copies.scheduled_copy(path, keep=20, now_s=NOW_S).path)
        add(path, note(number))
    assert places.copies(path) == made[::-1]
    before, asides = read(path), [start_new_ledger(path, now_s=NOW_S)]
    add(path, note(1))
    asides.append(start_new_ledger(path, now_s=NOW_S))
    assert [len(read(aside)) for aside in asides if aside] == [len(before), 1]


def test_a_damaged_newest_copy_is_made_again(path: Path) -> None:
    """A file is a copy only if every page of it can be read."""
    made = copies.scheduled_copy(path, keep=3, now_s=NOW_S)
    damage(made.path)
    assert copies.scheduled_copy(path, keep=3, now_s=NOW_S + 1).is_new


def damage(path: Path) -> None:
    """Overwrite one page of its events with garbage."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // PAGE // 2 * PAGE)
        file.write(b"\xff" * PAGE)


def test_a_damaged_ledger_makes_no_copy_and_removes_none(path: Path) -> None:
    """It is restored from the last good copies; the error names the newest."""
    good = copies.scheduled_copy(path, keep=1, now_s=NOW_S)
    add(path, note(1))
    damage(path)
    with pytest.raises(LedgerDamaged, match="no copy was made") as refused:
        copies.scheduled_copy(path, keep=1, now_s=NOW_S + 1)
    assert f"kanaria ledger restore {good.path}`" in refused.value.do
    assert str(path) in refused.value.saw
    assert [file.name for file in good.path.parent.iterdir()] == [good.path.name]


def test_a_full_disk_leaves_no_partial_copy(path: Path, small_disk: SmallDisk) -> None:
    """Earlier copies and the ledger stay."""
    state = small_disk.folder / "ledger.db"
    shutil.copy(path, state)
    with pytest.raises(LedgerError, match="no room for a copy") as refused:
        copies.scheduled_copy(state, keep=1, now_s=NOW_S)
    assert "make room" in refused.value.do
    small_disk.fill()
    with pytest.raises(LedgerError):
        copies.copy(state, small_disk.folder / "copy.db")
    assert {file.name for file in small_disk.folder.iterdir() if "copy" in file.name} == set()
    assert check(path).releases == 5


@pytest.mark.parametrize("page", range(0, 55, 6))
def test_a_check_finds_a_damaged_page(path: Path, page: int) -> None:
    """This includes a page that no command reads."""
    whole_file = path.read_bytes()
    start = page * PAGE
    path.write_bytes(whole_file[:start] + b"\xff" * PAGE + whole_file[start + PAGE :])
    with pytest.raises(LedgerDamaged) as found:
        check(path)
    assert str(path) in found.value.saw
    assert "kanaria ledger restore" in found.value.do


def test_a_check_finds_missing_events(path: Path) -> None:
    """Events are numbered without gaps, and so are releases."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DROP TRIGGER events_are_never_deleted")
        db.execute("DELETE FROM events WHERE seq = 7")
    with pytest.raises(LedgerDamaged, match="numbered from 1 to"):
        check(path)


@pytest.fixture
def world(tmp_path: Path) -> World:
    versions = {f"m:v{number}": Version() for number in (1, 2, 3)}
    (tmp_path / "live").mkdir()
    return World(tmp_path / "live" / "ledger.db", versions=versions, now_s=NOW_S + 1)


@pytest.fixture
def copied(world: World, tmp_path: Path) -> Iterator[Path]:
    """A copy made during release 1, which was rolled back later, before release 2 started."""
    controller = world.controller()
    controller.execute(SetStable("m:v1", "ann"))
    controller.execute(StartRelease("m:v2", RolloutSpec(steps=(5, 100)), "ann"))
    world.live(controller, 10)
    assert controller.snapshot.deployment.active
    copies.copy(world.path, tmp_path / "copy.db")
    controller.execute(RollbackNow("ann", "wrong answers"))
    world.live_until_ended(controller)
    controller.execute(StartRelease("m:v3", RolloutSpec(steps=(5, 100)), "ann"))
    world.live(controller, 3)
    controller.close()
    return tmp_path / "copy.db"


def test_a_restored_ledger_gives_no_release_its_traffic_back(world: World, copied: Path) -> None:
    """What happened after the copy is unknown. Stable is the copy's, and a new release may start."""
    before = read(world.path)
    done = restore(world.path, copied, now_s=world.now_s)
    assert done.lost
    assert done.lost.events == len(before) - len(read(copied))
    assert done.lost.decisions[0].startswith("release 1 was rolled back, and its version is no longer in quarantine")
    assert "release 2 (m:v3) was begun" in done.lost.decisions
    assert done.aborted == "release 1 (m:v2)"
    assert done.aside
    assert read(done.aside) == before
    noted, aborted = read(world.path)[-2:]
    assert isinstance(noted, e.Noted)
    assert f"{done.lost.events} later events are lost" in noted.text
    assert isinstance(aborted, e.Aborted)
    assert aborted.by == RESTORE
    controller = world.controller()
    world.live(controller, 10)
    split = world.router.observed()
    assert split
    assert (split.stable, split.canary_percent, controller.snapshot.deployment.active) == ("m:v1", 0, None)
    assert world.running() == ("m:v1",)
    assert controller.execute(StartRelease("m:v3", RolloutSpec(steps=(5, 100)), "ann")) == 2
    controller.close()
    assert check(world.path).releases == 2


def test_a_restore_that_cannot_record_itself_changes_nothing(world: World, copied: Path) -> None:
    """Else the release that was rolled back later would get its traffic again."""
    before, files = read(world.path), sorted(path.name for path in world.path.parent.iterdir())
    whole = check(copied).events
    with closing(sqlite3.connect(copied)) as db:  # a copy that accepts no more events
        db.execute("CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'no room'); END")
    assert check(copied).events == whole
    with pytest.raises(LedgerError, match="no room"):
        restore(world.path, copied, now_s=world.now_s)
    assert read(world.path) == before
    assert sorted(path.name for path in world.path.parent.iterdir()) == files


def test_a_restored_watch_continues(world: World, tmp_path: Path) -> None:
    """The promoted version has the traffic, the previous one keeps running, and evidence may still roll back."""
    controller = world.controller()
    controller.execute(SetStable("m:v1", "ann"))
    controller.execute(StartRelease("m:v2", RolloutSpec(steps=(5, 100), holdback=0, watch=600.0), "ann"))
    world.live(controller, 10)
    controller.execute(PromoteNow("ann"))
    release = controller.snapshot.deployment.active
    assert release
    assert release.phase is Phase.WATCHING
    controller.close()
    copies.copy(world.path, tmp_path / "copy.db")
    done = restore(world.path, tmp_path / "copy.db", now_s=world.now_s)
    assert (done.aborted, done.lost and done.lost.events) == (None, 0)
    controller = world.controller()
    world.live(controller, 2)
    assert set(world.running()) == {"m:v1", "m:v2"}
    assert controller.snapshot.deployment.stable == "m:v2"
    controller.close()


@pytest.mark.parametrize("how", ["damaged", "gone"])
def test_an_unreadable_ledger_is_replaced_by_a_copy(world: World, copied: Path, how: str) -> None:
    """The old file is kept under another name, with its log; which events are lost is unknown."""
    with closing(Ledger(world.path)) as left_open:
        left_open.append(note(1))
        log = Path(f"{world.path}-wal").read_bytes()
    world.path.write_bytes(b"\xff" * 50_000) if how == "damaged" else world.path.unlink()
    Path(f"{world.path}-wal").write_bytes(log)
    done = restore(world.path, copied, now_s=world.now_s)
    assert done.lost is None
    assert (done.aside is None) == (how == "gone")
    kept = [file for file in world.path.parent.iterdir() if file.name.startswith("ledger-damaged-")]
    assert log in [file.read_bytes() for file in kept]
    assert check(world.path).stable == "m:v1", "the log of the old ledger was not applied to it"


def test_a_rollback_that_could_not_be_written_is_added_to_the_restored_ledger(world: World, copied: Path) -> None:
    """The damage prevented its write; the bad version stays in quarantine."""
    rolled_back = e.RolledBack(at_s=world.now_s, release=1, signal="guard", reason="9 of 9 failed")
    later = e.RolledBack(at_s=world.now_s, release=2, signal="guard", reason="8 of 8 failed")
    world.path.write_bytes(b"\xff" * 50_000)
    KeptDecisions(world.path).keep([rolled_back, later])
    done = restore(world.path, copied, now_s=world.now_s)
    assert done.aborted is None
    assert done.forgotten == ("release 2 was rolled back, and its version is no longer in quarantine",)
    controller = world.controller()
    world.live(controller, 10)
    deployment = controller.snapshot.deployment
    controller.close()
    assert deployment.release
    assert (deployment.release.outcome, deployment.active) == ("rolled_back", None)
    assert "m:v2" in deployment.quarantined
    assert KeptDecisions(world.path).read() == (), "another release will get number 2"


def test_a_damaged_or_foreign_copy_changes_nothing(world: World, copied: Path, path: Path) -> None:
    """It is checked first. Another deployment's history is accepted only with the option."""
    before = world.path.read_bytes()
    with pytest.raises(LedgerError, match="another deployment"):
        restore(world.path, path, now_s=world.now_s)
    damage(copied)
    with pytest.raises(LedgerDamaged):
        restore(world.path, copied, now_s=world.now_s)
    with pytest.raises(NotALedger, match="the ledger itself"):
        restore(world.path, world.path, now_s=world.now_s)
    assert world.path.read_bytes() == before
    done = restore(world.path, path, now_s=world.now_s, is_other_allowed=True)
    assert done.lost
    assert done.lost.decisions == ("the whole history of another deployment",)
    Ledger(world.path).close()


def test_a_new_ledger_starts_only_on_request(world: World, copied: Path) -> None:
    """The old one keeps its content under another name, and its copies are not offered for the new one."""
    before = read(world.path)
    copies.scheduled_copy(world.path, keep=3, now_s=NOW_S)
    aside = start_new_ledger(world.path, now_s=NOW_S)
    assert aside
    assert read(aside) == before
    controller = world.controller()
    assert controller.snapshot.deployment.stable is None
    controller.execute(SetStable("m:v3", "ann"))
    controller.close()
    assert places.newest_copy(world.path) is None
    world.path.unlink()
    with pytest.raises(LedgerGone):
        Ledger(world.path)
