"""A link, pipe or device that another user put in place of a file is neither followed nor waited for."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.plain_files import NotPlain, opened_file, opened_folder, read, read_within


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(path))


PLACED: dict[str, Callable[[Path], object]] = {
    "a link to a secret": lambda path: path.symlink_to(path.parents[1] / "secret"),
    "a link to a link": lambda path: path.symlink_to(path.parent / "link"),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a pipe": os.mkfifo,
    "a socket": _socket,
    "a folder": Path.mkdir,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # keeps the path of the socket short
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "secret")
    return tmp_path / "folder"


@pytest.mark.parametrize("left", PLACED)
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_CREAT | os.O_APPEND])
def test_only_plain_files_are_opened(folder: Path, left: str, flags: int) -> None:
    """A link, pipe, socket, folder or device under the file's name is refused, for reading and for writing."""
    PLACED[left](folder / "file")
    with opened_folder(folder) as opened, pytest.raises((NotPlain, IsADirectoryError)):
        opened_file("file", opened, flags)
    with pytest.raises(NotPlain):
        read(folder / "file")
    assert not (folder / "nothing").exists()


def test_a_link_in_place_of_the_folder_is_refused(folder: Path) -> None:
    """Links above the folder belong to the owner, for example a link to another disk, and are followed."""
    (folder / "file").write_text("content")
    (folder.parent / "led").symlink_to(folder)
    with pytest.raises(NotPlain):
        read(folder.parent / "led" / "file")
    (folder.parent / "above").symlink_to(folder.parent)
    assert read(folder.parent / "above" / "folder" / "file") == b"content"


def test_a_missing_file_is_distinguished_from_one_that_is_not_plain(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(folder / "missing")
    with pytest.raises(FileNotFoundError):
        read(folder / "missing" / "file")


def test_an_untrusted_file_is_not_read_through_a_link(tmp_path: Path) -> None:
    """Links in the path, paths outside the folder and pipes are refused. The folder itself may be behind a link."""
    folder, secret = tmp_path / "theirs", tmp_path / "secret"
    (folder / "in").mkdir(parents=True)
    secret.write_text("secret")
    (folder / "in" / "a").write_text("own")
    (folder / "link").symlink_to(secret)
    (folder / "way").symlink_to(tmp_path)
    (folder / "nowhere").symlink_to(tmp_path / "nothing")
    os.mkfifo(folder / "pipe")
    (tmp_path / "behind").symlink_to(folder)
    for place in (folder, tmp_path / "behind"):
        assert read_within(place, "in/a", most=3) == b"own"
    for name in ("link", "way/secret", "nowhere", "in/../link", "../secret", str(secret), "pipe", "in"):
        with pytest.raises(OSError, match=r"is a link|is outside the folder|not a plain file") as refused:
            read_within(folder, name, most=100)
        assert str(refused.value.filename).startswith(str(folder)) or name == str(secret)
    with pytest.raises(OSError, match="larger than 2 bytes"):
        read_within(folder, "in/a", most=2)
    with pytest.raises(FileNotFoundError):
        read_within(folder, "in/b", most=2)
