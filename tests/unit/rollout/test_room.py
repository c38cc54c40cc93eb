"""Reserved space can be written on a full disk."""

import os
from pathlib import Path

import pytest

from rollout import room
from tests.support.small_disk import SmallDisk, mounted


def test_a_file_with_a_spare_can_be_rewritten_repeatedly_on_a_full_disk(small_disk: SmallDisk) -> None:
    """The spare already has its blocks, and each write leaves a new spare."""
    path = small_disk.folder / "routes.json"
    room.replace(path, "before")
    small_disk.fill()
    for number in range(5):
        room.replace(path, f"split {number}")
        assert path.read_text().strip() == f"split {number}"


def test_content_larger_than_the_spare_keeps_the_old_file(small_disk: SmallDisk) -> None:
    """On a full disk this is an error; with space the spare grows."""
    path = small_disk.folder / "routes.json"
    room.replace(path, "before")
    small_disk.fill()
    with pytest.raises(OSError, match="No space left"):
        room.replace(path, "x" * 200_000)
    assert path.read_text().strip() == "before"
    small_disk.free()
    room.replace(path, "x" * 200_000)
    small_disk.fill()
    room.replace(path, "y" * 200_000)
    assert path.read_text().strip() == "y" * 200_000


def test_a_file_is_replaced_without_a_free_inode(tmp_path: Path) -> None:
    """A disk can also run out of inodes; then the old file gets no new name."""
    with mounted(tmp_path / "disk", mib=4, options="nr_inodes=8") as disk:
        path = disk.folder / "routes.json"
        room.replace(path, "before")
        for number in range(8):
            try:
                (disk.folder / str(number)).touch()
            except OSError:
                break
        else:
            pytest.fail("the inodes did not run out")
        for split in ("one", "two"):
            room.replace(path, split)
            assert path.read_text().strip() == split


def test_a_disk_that_cannot_be_written_raises_an_error(small_disk: SmallDisk) -> None:
    """It was mounted read-only after a fault; the old file stays."""
    path = small_disk.folder / "routes.json"
    room.replace(path, "before")
    small_disk.remount("ro")
    with pytest.raises(OSError, match="Read-only"):
        room.replace(path, "after")
    assert path.read_text().strip() == "before"


def test_the_spare_has_the_same_content(tmp_path: Path) -> None:
    """So it can replace a damaged file."""
    path = tmp_path / "routes.json"
    for content in ("one", "two", "three"):
        room.replace(path, content)
        assert room.spare_of(path).read_text() == path.read_text()
        assert not path.samefile(room.spare_of(path))


@pytest.mark.parametrize("dies_before", ["link", "replace", "second"])
def test_a_writer_killed_at_any_point_can_be_followed_by_another(tmp_path: Path, dies_before: str) -> None:
    """The files of the killed writer are used again; none of them is the file that is read."""
    path, spare, old = tmp_path / "a.json", tmp_path / ".a.json.spare", tmp_path / ".a.json.old"
    room.replace(path, "before")
    if dies_before != "link":
        old.hardlink_to(path)
    if dies_before == "second":
        spare.replace(path)
    for content in ("one", "two"):
        room.replace(path, content)
        assert (path.read_text().strip(), spare.read_text().strip()) == (content, content)
    assert not old.exists()


def test_a_hard_link_is_never_overwritten(tmp_path: Path) -> None:
    """A backup of the folder keeps its content."""
    path = tmp_path / "routes.json"
    room.replace(path, "before")
    os.link(path, tmp_path / "backup")
    for content in ("one", "two"):
        room.replace(path, content)
    assert (tmp_path / "backup").read_text().strip() == "before"


def test_a_folder_in_place_of_the_file_is_moved_away(tmp_path: Path) -> None:
    """Its content is not lost."""
    path = tmp_path / "routes.json"
    path.mkdir()
    (path / "mine").touch()
    room.replace(path, "one")
    assert path.read_text().strip() == "one"
    assert [found.name for found in tmp_path.glob("routes.json.*/*")] == ["mine"]


def test_reserved_space_is_written_in_place_on_a_full_disk(small_disk: SmallDisk) -> None:
    """Shorter content leaves nothing of the old content."""
    path = small_disk.folder / "pending"
    room.reserve(path)
    small_disk.fill()
    room.overwrite(path, "a long line\n" * 100)
    room.overwrite(path, "short")
    assert path.read_text().strip() == "short"


def test_ballast_is_released_once_and_taken_again_later(small_disk: SmallDisk) -> None:
    """It takes at most an eighth of the disk, and is not taken again right after its release."""
    ballast = room.Ballast(small_disk.folder / "reserve", 16 * 2**20)
    assert ballast.take()
    assert (small_disk.folder / "reserve").stat().st_size == 2**19
    small_disk.fill()
    assert ballast.throw_off()
    assert not ballast.take()
    (small_disk.folder / "more").write_bytes(b"x" * 2**19)
    assert not ballast.throw_off()
    small_disk.fill()
    assert not ballast.take()
    small_disk.free()
    assert ballast.take()


def test_free_space_is_given_in_bytes(small_disk: SmallDisk, tmp_path: Path) -> None:
    """A missing folder has none."""
    assert 3 * 2**20 < room.free_bytes(small_disk.folder) <= 4 * 2**20
    small_disk.fill()
    assert room.free_bytes(small_disk.folder) == 0
    assert room.free_bytes(tmp_path / "gone") == 0
