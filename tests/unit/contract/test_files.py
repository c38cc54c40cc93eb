"""A file is replaced completely or stays as it was."""

import os
import threading
from pathlib import Path

import pytest

from contract.files import write_whole
from tests.support.small_disk import SmallDisk


def test_a_file_is_created_and_replaced(tmp_path: Path) -> None:
    """Both text and bytes are written, and no temporary file is left."""
    path = tmp_path / "a.json"
    write_whole(path, "one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_only_the_old_file(small_disk: SmallDisk) -> None:
    """Half a file would be read as a damaged one, and would use the space that is left."""
    path = small_disk.folder / "a.json"
    write_whole(path, "old")
    small_disk.fill()
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "new" * 100_000)
    assert path.read_text() == "old"
    assert list(small_disk.folder.glob(".*")) == []


def test_a_folder_with_the_files_name_is_an_error(tmp_path: Path) -> None:
    """No temporary file is left."""
    (tmp_path / "a.json").mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "a.json", "one")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_file_gets_the_mode_asked_for(tmp_path: Path) -> None:
    """A file with keys is never readable by others, not even while it is written."""
    write_whole(tmp_path / "keys", "secret", mode=0o600)
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o600


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """The file that the link points to is replaced."""
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("old")
    link.symlink_to(real)
    write_whole(link, "new")
    assert (link.is_symlink(), real.read_text()) == (True, "new")


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    """This is for `--out /dev/stdout`: a pipe cannot be replaced."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    write_whole(pipe, "text")
    reader.join(60)
    assert (read, pipe.is_fifo()) == (["text"], True)


def test_concurrent_writers_never_mix_their_contents(tmp_path: Path) -> None:
    """Every read returns the complete content of one of the writers."""
    path = tmp_path / "a.json"
    contents = [letter * 200_000 for letter in "abcd"]
    write_whole(path, contents[0])
    writers = [
        threading.Thread(target=lambda content=content: [write_whole(path, content) for _ in range(20)])
        for content in contents
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert path.read_text() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_a_public_file_can_be_read_by_all_whatever_the_umask(tmp_path: Path) -> None:
    """The list of targets is read by a Prometheus that runs as another user."""
    before = os.umask(0o077)
    try:
        write_whole(tmp_path / "targets.json", "[]", is_public=True)
    finally:
        os.umask(before)
    assert (tmp_path / "targets.json").stat().st_mode & 0o777 == 0o644
