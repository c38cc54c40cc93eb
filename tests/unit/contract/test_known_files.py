"""Files that are looked at again and again: every change is seen, and what did not change is not read."""

import os
import time
from pathlib import Path

import pytest

from contract.known_files import KnownFiles, Notes


class Reader:
    """Reads text, and counts how often."""

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
    """Let time go on: the last change of a file is one of a minute ago."""
    now_ns = time.time_ns() + round(after_s * 1e9)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns)


def test_what_did_not_change_is_read_once(
    tmp_path: Path, files: KnownFiles[str | None], reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is looked at."""
    path = tmp_path / "state.json"
    path.write_text("one")
    settled(monkeypatch)
    assert [files.at(path) for _ in range(5)] == ["one"] * 5
    assert reader.reads == 1


@pytest.mark.parametrize("is_replaced", [True, False], ids=["replaced", "written over"])
def test_a_change_is_seen(
    tmp_path: Path, files: KnownFiles[str | None], monkeypatch: pytest.MonkeyPatch, is_replaced: bool
) -> None:
    """Also one of the same size, whose time of change was set back."""
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


def test_two_changes_at_once_are_both_seen(tmp_path: Path, files: KnownFiles[str | None]) -> None:
    """The system gives both the same time: what was changed a moment ago is read again."""
    path = tmp_path / "state.json"
    for number in range(200):
        path.write_text(f"{number:03}")
        assert files.at(path) == f"{number:03}"


def test_a_clock_that_was_set_back_hides_no_change(
    tmp_path: Path, files: KnownFiles[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file from the future is read each time."""
    path = tmp_path / "state.json"
    settled(monkeypatch, after_s=-3600.0)
    for content in ("one", "two", "six"):
        path.write_text(content)
        assert files.at(path) == content


def test_what_is_gone_is_gone_and_may_come_again(
    tmp_path: Path, files: KnownFiles[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is remembered."""
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
    """As where this process had no more files to open: that it changed since nobody says."""
    path = tmp_path / "state.json"
    path.write_text("one")
    settled(monkeypatch)
    reader.fails = True
    assert files.at(path) is None
    reader.fails = False
    assert files.at(path) == "one"


def test_the_names_in_a_folder_are_known_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that comes, goes or gets another name is seen."""
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


def test_the_path_of_a_note_is_put_together_once(tmp_path: Path) -> None:
    """A controller looks at dozens with each beat."""
    notes = Notes(tmp_path)
    assert notes["digits@v1"] == tmp_path / "digits@v1.json"
    assert notes["digits@v1"] is notes["digits@v1"]
    assert notes["digits@v2"] == tmp_path / "digits@v2.json"
