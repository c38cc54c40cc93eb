"""Files that are polled: every change is seen, and an unchanged file is not read again."""

import os
import time
from pathlib import Path

import pytest

from contract.known_files import KnownFiles, Notes


class Reader:
    """Reads text and counts the reads."""

    def __init__(self) -> None:
        self.reads = 0
        self.fails = False

    def __call__(self, path: Path) -> str | None:
        self.reads += 1
        try:
            return None if self.fails else path.read_text()
        except OSError:
            return None


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def files(reader: Reader) -> KnownFiles[str | None]:
    return KnownFiles(reader)


def settled(monkeypatch: pytest.MonkeyPatch, *, after_s: float = 60.0) -> None:
    """Move the clock forward, so that the last change of a file was a minute ago."""
    now_ns = time.time_ns() + round(after_s * 1e9)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns)


def test_an_unchanged_file_is_read_once(
    tmp_path: Path, files: KnownFiles[str | None], reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Polling it again does not read it."""
    path = tmp_path / "state.json"
    path.write_text("one")
    settled(monkeypatch)
    assert [files.at(path) for _ in range(5)] == ["one"] * 5
    assert reader.reads == 1


@pytest.mark.parametrize("is_replaced", [True, False], ids=["replaced", "overwritten"])
def test_a_change_is_seen(
    tmp_path: Path, files: KnownFiles[str | None], monkeypatch: pytest.MonkeyPatch, is_replaced: bool
) -> None:
    """A change is seen even if the size is the same and the modification time was set back."""
    path, new = tmp_path / "state.json", tmp_path / "new"
    path.write_text("one")
    with monkeypatch.context() as later:
        settled(later)
        assert files.at(path) == "one"
    (new if is_replaced else path).write_text("two")
    os.utime(new if is_replaced else path, (1.0, 1.0))
    if is_replaced:
        new.replace(path)
    settled(monkeypatch)
    assert files.at(path) == "two"


def test_two_changes_in_one_clock_tick_are_both_seen(tmp_path: Path, files: KnownFiles[str | None]) -> None:
    """The system gives both changes the same time, so a file that has just changed is read again."""
    path = tmp_path / "state.json"
    for number in range(200):
        path.write_text(f"{number:03}")
        assert files.at(path) == f"{number:03}"


def test_a_clock_that_was_set_back_hides_no_change(
    tmp_path: Path, files: KnownFiles[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file whose modification time is in the future is read each time."""
    path = tmp_path / "state.json"
    settled(monkeypatch, after_s=-3600.0)
    for content in ("one", "two", "six"):
        path.write_text(content)
        assert files.at(path) == content


def test_a_deleted_file_is_gone_and_may_come_back(
    tmp_path: Path, files: KnownFiles[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No content of the deleted file is remembered."""
    path = tmp_path / "state.json"
    settled(monkeypatch)
    assert files.at(path) is None
    path.write_text("one")
    assert files.at(path) == "one"
    path.unlink()
    assert files.at(path) is None
    path.write_text("two")
    assert files.at(path) == "two"


def test_a_file_that_could_not_be_read_is_read_again(
    tmp_path: Path, files: KnownFiles[str | None], reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process may have been out of file descriptors: nothing would report a later change."""
    path = tmp_path / "state.json"
    path.write_text("one")
    settled(monkeypatch)
    reader.fails = True
    assert files.at(path) is None
    reader.fails = False
    assert files.at(path) == "one"


def test_a_change_of_the_names_in_a_folder_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is added, removed or renamed is seen."""
    folders = KnownFiles(lambda path: tuple(sorted(each.name for each in path.iterdir())))
    (tmp_path / "a").touch()
    settled(monkeypatch)
    assert folders.at(tmp_path) == ("a",)
    (tmp_path / "b").touch()
    assert folders.at(tmp_path) == ("a", "b")
    (tmp_path / "a").rename(tmp_path / "c")
    assert folders.at(tmp_path) == ("b", "c")
    (tmp_path / "b").unlink()
    assert folders.at(tmp_path) == ("c",)


def test_the_path_of_a_note_is_built_once(tmp_path: Path) -> None:
    """A controller reads dozens of notes in each tick."""
    notes = Notes(tmp_path)
    assert notes["digits@v1"] == tmp_path / "digits@v1.json"
    assert notes["digits@v1"] is notes["digits@v1"]
    assert notes["digits@v2"] == tmp_path / "digits@v2.json"
