"""`kanaria ledger`: its output and exit codes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kanaria.cli import app
from rollout.ledger import places
from rollout.ledger.lock import WriterLock
from tests.support.unreadable_ledgers import LOST, OF_A_NEWER_VERSION, UNREADABLE, whole

Typed = Callable[..., tuple[int, str]]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A ledger in a state folder."""
    (tmp_path / ".kanaria").mkdir()
    whole(tmp_path / ".kanaria" / "ledger.db")
    return tmp_path / ".kanaria" / "ledger.db"


@pytest.fixture
def typed(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> Typed:
    """Runs a `kanaria ledger` command; gives its exit code and its whole output."""
    monkeypatch.setenv("KANARIA_HOME", str(ledger.parent))
    monkeypatch.setenv("KANARIA_LEDGER_BACKUPS", "2")

    def run(*arguments: object) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["ledger", *map(str, arguments)])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.output

    return run


def test_a_valid_ledger_is_reported_as_whole(ledger: Path, typed: Typed) -> None:
    """The output has its content, as text and as JSON."""
    words = f"{ledger}: whole, 116 events, the last of 2027-01-15 08:08:32 UTC, 5 releases, stable m:v2\n"
    code, printed = typed("check", "--json")
    found = json.loads(printed)
    assert (code, found["events"], found["head"]["events"]) == (0, 116, 116)
    head = found["head"]["hash"]
    hashed = f"event 116 has the hash {head}, {int(head, 16)} as the metric kanaria_ledger_head\n"
    assert typed("check") == (0, words + hashed)
    assert typed("check", "--at", 116) == (0, words + hashed)
    code, printed = typed("check", "--at", 117)
    assert (code, "the ledger lacks events" in printed) == (1, True)


@pytest.mark.parametrize("how", UNREADABLE)
@pytest.mark.parametrize("is_named", [True, False])
def test_a_check_distinguishes_damage_from_what_it_cannot_judge(
    ledger: Path, typed: Typed, how: str, is_named: bool
) -> None:
    """1: damaged or gone; 2: a named file is not a ledger; 3: only a newer version can read it."""
    UNREADABLE[how](ledger)
    code, _ = typed("check", *([ledger] if is_named else []))
    if how in OF_A_NEWER_VERSION or (how == "folder" and not is_named):
        assert code == 3
    elif is_named and (how == "folder" or not ledger.exists()):
        assert code == 2
    else:
        assert code == 1


@pytest.mark.parametrize("command", ["check", "restore"])
def test_a_missing_file_is_bad_input(tmp_path: Path, typed: Typed, command: str) -> None:
    """A mistyped name is not damage."""
    code, printed = typed(command, tmp_path / "non.db")
    assert (code, "there is no such file" in printed) == (2, True)


def test_a_backup_is_made_and_restored(ledger: Path, typed: Typed, tmp_path: Path) -> None:
    """A backup, then damage, then the ledger as it was."""
    code, printed = typed("backup")
    (copy,) = places.copies(ledger)
    assert (code, printed.startswith(f"{copy}: whole, 116 events")) == (0, True)
    assert typed("backup")[1].endswith("it already holds everything\n")
    assert typed("backup", tmp_path / "mine.db")[0] == 0
    UNREADABLE["garbage"](ledger)
    code, printed = typed("check")
    assert (code, f"`kanaria ledger restore {copy}`" in printed) == (1, True)
    code, printed = typed("restore", copy)
    assert code == 0
    assert "later events are unknown" in printed
    assert "ledger-damaged-" in printed
    assert typed("check")[0] == 0


@pytest.mark.parametrize("how", LOST)
def test_without_a_copy_only_kanaria_ledger_new_starts_a_new_ledger(ledger: Path, typed: Typed, how: str) -> None:
    """It says that history starts again; nothing is deleted."""
    UNREADABLE[how](ledger)
    before = {file.name for file in ledger.parent.iterdir()}
    code, printed = typed("new")
    assert (code, "a new ledger begins with `kanaria up TAG`" in printed) == (0, True)
    assert len(list(ledger.parent.iterdir())) >= len(before - {"ledger.id"})
    code, printed = typed("check")
    assert (code, "there is no ledger yet" in printed) == (3, True)


@pytest.mark.parametrize("command", ["restore", "new"])
def test_a_ledger_is_not_replaced_while_a_controller_runs(ledger: Path, typed: Typed, command: str) -> None:
    """The message says which process holds the state folder. A backup is always allowed."""
    assert typed("backup")[0] == 0
    lock = WriterLock(ledger, who="the controller")
    lock.take()
    code, printed = typed(command, *places.copies(ledger)[: command == "restore"])
    assert code == 3
    assert "the controller, pid" in printed
    assert "kanaria down" in printed
    assert typed("backup")[0] == 0
    lock.release()
