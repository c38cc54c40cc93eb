"""Keys and tokens are written completely or not at all, for this user only, and never replaced."""

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


def test_only_the_owner_can_read_a_secret(tmp_path: Path) -> None:
    """This holds for any umask, and no other file remains in the folder."""
    keep(tmp_path / "state" / "token", b"secret")
    (path,) = (tmp_path / "state").iterdir()
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"secret", 0o600)


def test_an_existing_secret_is_kept(tmp_path: Path) -> None:
    """Everybody who has it can still use it."""
    keep(tmp_path / "token", b"first")
    keep(tmp_path / "token", b"second")
    assert (tmp_path / "token").read_bytes() == b"first"


def test_a_full_disk_leaves_no_empty_secret(tmp_path: Path) -> None:
    """The error comes at once, and the next command makes the secret.

    An empty token would let everybody in, or nobody.
    """
    settings = Settings(home=tmp_path)
    with full_disk(), pytest.raises(OSError, match="too large"):
        settings.token  # noqa: B018 - made when it is first read
    assert list(tmp_path.iterdir()) == []
    assert len(settings.token) > 20


def test_a_power_cut_leaves_no_empty_secret(tmp_path: Path) -> None:
    """It did, and without a token every caller was the owner. A token that was shown before the cut still works."""
    with in_a_file(tmp_path / "disk") as disk:
        said = Settings(home=disk.folder / "state").token
        disk.lose_power()
        assert Settings(home=disk.folder / "state").token == said


@pytest.mark.parametrize("left", [b"", b"\n", b" \r\n\t", b"\0" * 32])
def test_an_empty_secret_is_replaced(tmp_path: Path, left: bytes) -> None:
    """Earlier versions left an empty one after a power cut. One of blanks or zeros also lets everybody in."""
    settings = Settings(home=tmp_path)
    settings.token_file.write_bytes(left)
    assert (len(settings.token) > 20, settings.token.isprintable()) == (True, True)
    assert settings.token == settings.token_file.read_text() == Settings(home=tmp_path).token


@pytest.mark.parametrize("written", [b"tok\0en", b"\0\0token", b"to\nken", b"\xff\xfe"])
def test_a_secret_that_cannot_be_typed_is_refused(tmp_path: Path, written: bytes) -> None:
    """Part of it may be lost, and a header cannot contain it. It is not replaced, because somebody may know it."""
    settings = Settings(home=tmp_path)
    settings.token_file.write_bytes(written)
    with pytest.raises(SetupError, match="does not contain a secret"):
        settings.token  # noqa: B018 - read again each time
    assert settings.token_file.read_bytes() == written


def test_all_processes_that_find_an_empty_secret_get_the_same_new_one(tmp_path: Path) -> None:
    """This holds for any number of simultaneous processes."""
    settings = Settings(home=tmp_path)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(40):
            settings.token_file.write_bytes(b"")
            assert len(set(pool.map(lambda _: settings.token, range(8)))) == 1
    assert [path.name for path in tmp_path.iterdir()] == [settings.token_file.name]


def test_a_process_waits_for_another_that_replaces_an_empty_secret(tmp_path: Path) -> None:
    """Both replaced it one after the other, and the first kept using a secret that no longer existed."""
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
    """This holds for a new folder and for one of an earlier version."""
    for made in (tmp_path / "new" / "state", tmp_path / "old"):
        if made.name == "old":
            made.mkdir(mode=0o755)
        close_folder(made)
        assert rights(made) == 0o700


def test_a_folder_that_everybody_may_write_stays_open(tmp_path: Path) -> None:
    """Closing a folder such as /tmp would break the work of others."""
    tmp_path.chmod(0o1777)
    keep(tmp_path / "token", b"secret")
    assert rights(tmp_path) == 0o1777
