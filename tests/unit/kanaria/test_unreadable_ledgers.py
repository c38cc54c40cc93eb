"""Every command that reads the ledger reports in one message what is wrong with it, with the right exit code."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from kanaria import cli
from rollout.errors import LedgerError
from rollout.ui.cli.reading import all_releases, find_release
from tests.support.unreadable_ledgers import LOST, OF_A_NEWER_VERSION, PAGE, UNREADABLE, whole

READ = ("why", "why --json", "why 2", "history", "history --json", "report", "report 2")
NEED = (
    pytest.param("up", marks=pytest.mark.needs("serve")),
    pytest.param("drift report --release 2", marks=pytest.mark.needs("monitoring")),
)
COULD_NOT = {"drift report --release 2": 2}  # its exit code 3 is a result: too few rows
Typed = Callable[[str], tuple[int, str]]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """An intact ledger in a state folder."""
    home = tmp_path / ".kanaria"
    home.mkdir()
    whole(home / "ledger.db")
    return home / "ledger.db"


@pytest.fixture
def typed(ledger: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Type a command; returns its exit code and stderr. Any exception other than its end is a bug."""
    monkeypatch.setenv("KANARIA_HOME", str(ledger.parent))
    monkeypatch.setenv("BENTOML_HOME", str(ledger.parent.parent / "bentos"))

    def run(command: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["kanaria", *command.split()])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


@pytest.mark.parametrize("how", UNREADABLE)
@pytest.mark.parametrize("command", [*READ, *NEED])
def test_a_command_reports_what_is_wrong_with_the_ledger(command: str, how: str, ledger: Path, typed: Typed) -> None:
    """One line each says what happened, what was seen and what to do."""
    UNREADABLE[how](ledger)
    code, said = typed(command)
    lines = said.splitlines()
    assert (code, len(lines)) == (COULD_NOT.get(command, 3), 3), said
    assert str(ledger) in lines[1]
    if how in OF_A_NEWER_VERSION:
        assert "newer version of Kanaria" in lines[0]
    elif how != "folder":
        assert "kanaria ledger restore FILE" in lines[2]
    assert ("the ledger is gone" in lines[0]) == (how in LOST)


def bad_pages(good: bytes) -> Iterator[bytes]:
    """The file with one page after another overwritten, zeroed, replaced, or with a few bits changed."""
    random = Random(7)
    for start in range(0, len(good), PAGE):
        before, page, after = good[:start], bytearray(good[start : start + PAGE]), good[start + PAGE :]
        for other in (b"\xff" * PAGE, bytes(PAGE), random.randbytes(PAGE)):
            yield before + other + after
        for _ in range(3):
            for _ in range(8):
                page[random.randrange(PAGE)] ^= 1 << random.randrange(8)
            yield before + page + after


def test_any_damaged_page_is_a_ledger_error_or_goes_unnoticed(ledger: Path) -> None:
    """Any damage raises only this error, with one line for what was seen. Only a full check notices all damage."""
    good, noticed = ledger.read_bytes(), []
    for bad in bad_pages(good):
        ledger.write_bytes(bad)
        try:
            all_releases(ledger)
            find_release(ledger, None)
        except LedgerError as error:
            noticed.append(error.saw)
    assert len(noticed) > len(good) / PAGE
    assert [saw for saw in noticed if "\n" in saw or str(ledger) not in saw] == []
