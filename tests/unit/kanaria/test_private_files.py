"""Keys and tokens: whole or not at all, for this user alone, and never replaced."""

import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kanaria.private_files import close_folder, keep
from kanaria.settings import Settings
from tests.support.small_disk import in_a_file


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    """Whatever the umask says; and nothing else is left in the folder."""
    keep(tmp_path / "state" / "token", b"secret")
    (path,) = (tmp_path / "state").iterdir()
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"secret", 0o600)


def test_one_that_is_there_stays(tmp_path: Path) -> None:
    """Whoever has it already can go on using it."""
    keep(tmp_path / "token", b"first")
    keep(tmp_path / "token", b"second")
    assert (tmp_path / "token").read_bytes() == b"first"


def test_a_full_disk_leaves_no_empty_secret(tmp_path: Path) -> None:
    """Said at once, and the next command makes it; an empty token would let everybody in, or nobody."""
    settings = Settings(home=tmp_path)
    with full_disk(), pytest.raises(OSError, match="too large"):
        settings.token  # noqa: B018 - made when it is first read
    assert list(tmp_path.iterdir()) == []
    assert len(settings.token) > 20


def test_a_power_cut_leaves_no_empty_secret(tmp_path: Path) -> None:
    """It did, and without a token whoever asked was the owner. What was said before it still counts."""
    with in_a_file(tmp_path / "disk") as disk:
        said = Settings(home=disk.folder / "state").token
        disk.lose_power()
        assert Settings(home=disk.folder / "state").token == said


def test_an_empty_secret_is_made_anew(tmp_path: Path) -> None:
    """Earlier versions left one after a power cut."""
    settings = Settings(home=tmp_path)
    settings.token_file.touch()
    assert len(settings.token) > 20
    assert settings.token == settings.token_file.read_text() == Settings(home=tmp_path).token


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_folder_that_others_may_enter_is_closed(tmp_path: Path) -> None:
    """Whether it is new, or was made by an earlier version."""
    for made in (tmp_path / "new" / "state", tmp_path / "old"):
        if made.name == "old":
            made.mkdir(mode=0o755)
        close_folder(made)
        assert rights(made) == 0o700


def test_a_folder_of_all_stays_open(tmp_path: Path) -> None:
    """Where all may write, such as in /tmp, closing it would break the work of others."""
    tmp_path.chmod(0o1777)
    keep(tmp_path / "token", b"secret")
    assert rights(tmp_path) == 0o1777
