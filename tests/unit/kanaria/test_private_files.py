"""Keys and tokens: whole or not at all, for this user alone, and never replaced."""

import fcntl
import resource
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import pytest

from kanaria.errors import SetupError
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


@pytest.mark.parametrize("left", [b"", b"\n", b" \r\n\t", b"\0" * 32])
def test_an_empty_secret_is_made_anew(tmp_path: Path, left: bytes) -> None:
    """Earlier versions left one after a power cut. One of blanks or zeros lets everybody in as well."""
    settings = Settings(home=tmp_path)
    settings.token_file.write_bytes(left)
    assert (len(settings.token) > 20, settings.token.isprintable()) == (True, True)
    assert settings.token == settings.token_file.read_text() == Settings(home=tmp_path).token


@pytest.mark.parametrize("written", [b"tok\0en", b"\0\0token", b"to\nken", b"\xff\xfe"])
def test_what_nobody_can_type_is_no_secret(tmp_path: Path, written: bytes) -> None:
    """Part of it may be lost; and a header cannot carry it. It is not replaced: somebody may know what it was."""
    settings = Settings(home=tmp_path)
    settings.token_file.write_bytes(written)
    with pytest.raises(SetupError, match="holds no secret"):
        settings.token  # noqa: B018 - read again each time
    assert settings.token_file.read_bytes() == written


def test_all_who_find_an_empty_secret_use_the_same_one(tmp_path: Path) -> None:
    """However many do at once."""
    settings = Settings(home=tmp_path)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(40):
            settings.token_file.write_bytes(b"")
            assert len(set(pool.map(lambda _: settings.token, range(8)))) == 1
    assert [path.name for path in tmp_path.iterdir()] == [settings.token_file.name]


def test_who_finds_an_empty_secret_waits_for_another_who_replaces_it(tmp_path: Path) -> None:
    """Both replaced it, one after the other, and the first went on with what was there no more."""
    settings, other = Settings(home=tmp_path), tmp_path / "other"
    settings.token_file.touch()
    other.write_text("made by the other")
    with ThreadPoolExecutor(1) as pool:
        with settings.token_file.open("rb") as empty:
            fcntl.flock(empty, fcntl.LOCK_EX)
            asked = pool.submit(lambda: settings.token)
            wait([asked], timeout=1.0)
            other.replace(settings.token_file)
        assert asked.result() == settings.token == "made by the other"


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
