"""What a process in a sandbox sees, for any user, and what is reported where no sandbox is available."""

import ast
import ctypes
import errno
import os
import resource
import site
import socket
import sqlite3
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from contract.answers_table import ANSWERS_FILE
from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stack import out_of_reach, sandbox
from kanaria.stack.sandbox import Sandbox, enter, lacking
from kanaria.stack.supervision import ProcessFiles, Program
from rollout.routers.envoy.settings import GatewaySettings
from tests.support.answer_logs import Tally, open_log

pytestmark = pytest.mark.skipif(bool(lacking()), reason=f"no sandbox here: {lacking()}")

_NOBODY, _IS_DUMPABLE = 65534, 4


def in_child(do: Callable[[], object]) -> str:
    """The result of `do`, run in a process of its own."""
    here, there = os.pipe()
    if not os.fork():
        try:
            os.write(there, repr(do()).encode())
        except Exception as error:  # noqa: BLE001 - the test shows it
            os.write(there, repr(error).encode())
        finally:
            os._exit(0)
    os.close(there)
    with os.fdopen(here) as said:
        return said.read()


def as_nobody() -> None:
    """Become a user without rights, as the person who starts a program may be; root has all rights."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        ctypes.CDLL(None).prctl(_IS_DUMPABLE, 1, 0, 0, 0)


@pytest.fixture
def place() -> Iterator[Path]:
    """Folders that everybody may write, in a place that everybody can reach."""
    with TemporaryDirectory() as name:
        yield _filled(Path(name))


def _filled(folder: Path) -> Path:
    for name in ("state/own", "store/one", "store/other"):
        (folder / name).mkdir(parents=True)
    (folder / "state/token").write_text("secret")
    (folder / "key").write_text("secret")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777)
    return folder


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def seen(place: Path) -> dict[str, object]:
    def tried(do: Callable[[], object]) -> object:
        try:
            return do()
        except OSError as error:
            return type(error).__name__

    return {
        "state": tried(lambda: _names(place / "state")),
        "above": tried(lambda: _names(Path(".."))),
        "key": tried((place / "key").read_text),
        "own": tried(lambda: (place / "state/own/a").write_text("a")),
        "one": tried(lambda: (place / "store/one/a").write_text("a")),
        "other": tried(lambda: (place / "store/other/a").write_text("a")),
        "else": tried(lambda: (place / "a").write_text("a")),
        "parent": tried(lambda: Path(f"/proc/{os.getppid()}/cwd").readlink()),
        "signal": tried(lambda: os.kill(os.getppid(), 0)),
    }


@pytest.mark.parametrize("user", ["nobody", "this one"])
def test_paths_are_hidden_kept_or_read_only_as_asked(place: Path, user: str) -> None:
    """This holds also for a process that started inside a hidden folder."""
    wanted = Sandbox(
        hidden=(str(place / "state"), str(place / "key"), str(place / "missing")),
        kept=(str(place / "state/own"), str(place / "store/one")),
        fixed=(str(place / "store"),),
    )

    def look() -> object:
        if user == "nobody":
            as_nobody()
        os.chdir(place / "state" / "own")
        enter(wanted)
        return seen(place)

    assert in_child(look) == repr(
        {
            "state": ["own"],
            "above": ["own"],
            "key": "",
            "own": 1,
            "one": 1,
            "other": "OSError",
            "else": 1,
            "parent": "PermissionError",
            "signal": "PermissionError" if not sandbox.is_partial() else None,
        }
    )


@pytest.mark.parametrize("user", ["nobody", "this one"])
def test_no_hidden_or_read_only_path_can_be_replaced(place: Path, user: str) -> None:
    """Neither a parent folder nor a link on the way can be replaced, because processes outside follow both.

    Both still work as before.
    """
    for name in ("project/state", "project/code", "elsewhere/python/lib"):
        (place / name).mkdir(parents=True)
    (place / "elsewhere/latest").symlink_to("python")
    (place / "project/venv").symlink_to(place / "project/../elsewhere/latest/lib")
    (place / "closed").mkdir()
    (place / "closed/state").mkdir()
    for path in (place, *place.rglob("*")):
        if os.getuid() == 0:
            os.chown(path, _NOBODY, _NOBODY, follow_symlinks=False)
        path.chmod(0o777)
    (place / "closed").chmod(0o555)  # its owner may change that
    wanted = Sandbox(
        hidden=(str(place / "project/state"), str(place / "closed/state")),
        fixed=(str(place / "project/venv"), str(place / "project/code")),
    )
    ways = (
        "project",
        "project/state",
        "project/code",
        "project/venv",
        "elsewhere/latest",
        "elsewhere/python",
        "closed",
    )

    def look() -> object:
        if user == "nobody":
            as_nobody()
        enter(wanted)
        (place / "closed").chmod(0o777)
        renames: list[Callable[[], object]] = [
            lambda each=each: (place / each).rename(place / f"{each}-away") for each in ways
        ]
        renames += [(place / each).unlink for each in ("project/venv", "elsewhere/latest")]
        found = [_error(do) for do in (*renames, lambda: place.rename(f"{place}-away"))]
        (place / "project/new").write_text("new")
        (place / "project/new").rename(place / "project/newer")
        return (
            found,
            (place / "project/venv").readlink().name,
            _names(place / "elsewhere/latest"),
            os.access(place / "project/venv/x", os.W_OK),
        )

    found, link, seen_there, is_writable = ast.literal_eval(in_child(look))
    assert found == [errno.EBUSY] * (len(ways) + 3)
    assert (link, seen_there, is_writable) == ("lib", ["lib"], False)
    assert (place / "project/newer").read_text() == "new"


def _error(do: Callable[[], object]) -> int:
    try:
        do()
    except OSError as error:
        return error.errno or 0
    return 0


_LIBC = ctypes.CDLL(None, use_errno=True)


class _Handle(ctypes.Structure):
    _fields_ = (("size", ctypes.c_uint), ("kind", ctypes.c_int), ("bytes", ctypes.c_ubyte * 128))


def _numbered(path: Path) -> _Handle:
    handle, mount = _Handle(size=128), ctypes.c_int()
    assert _LIBC.name_to_handle_at(-100, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount), 0) == 0
    return handle


def _by_number(folder: Path, handle: _Handle) -> int:
    return _LIBC.open_by_handle_at(os.open(folder, os.O_RDONLY), ctypes.byref(handle), os.O_RDONLY)


def _tree(path: Path) -> int:
    """The folder without anything mounted in it."""
    return _LIBC.syscall(428, -100, os.fsencode(path), 1)


def _in_namespaces_within(do: Callable[[], int]) -> int:
    return -1 if _LIBC.unshare(0x10020000) else do()


@pytest.mark.parametrize("user", ["nobody", "this one"])
def test_a_sandboxed_process_has_no_capability_to_get_around_the_sandbox(place: Path, user: str) -> None:
    """This holds before it executes another program, as a forked version never does, and in a namespace of its own."""
    wanted = Sandbox(hidden=(str(place / "state"),), kept=(str(place / "state/own"),))

    def look() -> object:
        if user == "nobody":
            as_nobody()
        handle = _numbered(place / "state/token")
        enter(wanted)
        attacks: tuple[Callable[[], int], ...] = (
            lambda: _tree(place),
            lambda: _by_number(place, handle),
            lambda: _by_number(place / "state/own", handle),
            lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).fileno(),
        )
        status = Path("/proc/self/status").read_text()
        held = [line.split()[1] for line in status.splitlines() if line.startswith(("CapEff", "CapPrm", "CapBnd"))]
        return held, [_refused(do) for do in attacks], [_refused(lambda: _in_namespaces_within(attacks[0]))]

    held, refused, refused_within = ast.literal_eval(in_child(look))
    allowed = 0b100_1111_1011 if user == "this one" and os.getuid() == 0 else 0
    assert [int(each, 16) & ~allowed for each in held] == [0, 0, 0]
    assert refused == [True] * 4
    assert refused_within == [True]


def _refused(do: Callable[[], int]) -> bool:
    try:
        return do() < 0
    except OSError:
        return True


@pytest.mark.parametrize("wanted", ["auto", "required", "off"])
def test_a_machine_without_sandboxes_is_reported(tmp_path: Path, wanted: str) -> None:
    """A process in a sandbox cannot make another one, because it can change no mount.

    A version that requires a sandbox is refused.
    """

    def ask() -> object:
        enter(Sandbox(hidden=()))
        lacking.cache_clear()
        said: list[str] = []
        try:
            out_of_reach.check(Settings(home=tmp_path, sandbox=wanted), said.append)  # type: ignore[arg-type]
        except SetupError as error:
            return error.what
        return said

    found = in_child(ask)
    assert {"auto": "can read the state folder", "required": "offers no sandbox", "off": "[]"}[wanted] in found


def test_hidden_paths_can_be_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KANARIA_HIDE", "~/.aws, /srv/secrets")
    given = out_of_reach.sandbox_of(Settings(home=tmp_path), "m:v1")
    assert given is not None
    assert {str(tmp_path), str(Path.home() / ".aws"), "/srv/secrets"} <= set(given.hidden)
    assert str(Path.home() / ".ssh") not in given.hidden
    monkeypatch.setenv("KANARIA_HIDE", "none")
    assert Settings().hide == ()
    monkeypatch.setenv("KANARIA_HIDE", "secrets")
    with pytest.raises(SetupError, match="must be absolute"):
        Settings()


def test_a_missing_hidden_folder_is_created_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Otherwise a version could create it, with keys that give access to this machine.

    A missing path that may be a file is reported.
    """
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KANARIA_HIDE", "~/.ssh,~/.netrc")
    said: list[str] = []
    settings = Settings(home=tmp_path / "state")
    given = out_of_reach.sandbox_of(settings, "m:v1")
    assert given is not None
    assert (tmp_path / ".ssh").stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / ".netrc").exists()

    def make() -> object:
        enter(given)
        return _error(lambda: (tmp_path / ".ssh/authorized_keys").write_text("key"))

    assert in_child(make) == str(errno.EROFS)
    monkeypatch.setattr(out_of_reach, "_compile", lambda: None)
    out_of_reach.check(settings, said.append)
    assert [text for text in said if "missing" in text and ".netrc" in text and ".ssh" not in text]


def test_bentoml_can_write_into_its_store_beside_code(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """Versions could not start when a project's folder held both. Models and Bentos stay read-only."""
    for name in ("models", "bentos", "tmp"):
        (place / "store" / name).mkdir()
    monkeypatch.setenv("BENTOML_HOME", str(place / "store"))
    monkeypatch.syspath_prepend(place)
    given = out_of_reach.sandbox_of(Settings(home=place / "state"), "m:v1")
    assert given is not None

    def write() -> object:
        enter(given)
        return [
            _error(lambda at=at: (place / at).write_text("")) for at in ("code.py", "store/models/a", "store/tmp/a")
        ]

    assert in_child(write) == repr([errno.EROFS, errno.EROFS, 0])


def test_later_files_stay_hidden_in_a_hidden_folder(place: Path) -> None:
    """An example is a folder in `/run/user`, which systemd creates when its user logs in."""
    assert "/run/user" in (out_of_reach.sandbox_of(Settings(home=place), "m:v1") or Sandbox(())).hidden
    entered, made = os.pipe(), os.pipe()

    def look() -> object:
        enter(Sandbox(hidden=(str(place / "state"),)))
        os.write(entered[1], b"x")
        os.read(made[0], 1)
        return _names(place / "state")

    def make() -> None:
        os.read(entered[0], 1)
        (place / "state/later").mkdir()
        os.write(made[1], b"x")

    thread = threading.Thread(target=make)
    thread.start()
    found = in_child(look)
    thread.join()
    assert found == "[]"


def test_a_program_keeps_its_sandbox_in_its_file(tmp_path: Path) -> None:
    """The next keeper reads it there."""
    wanted = Sandbox(hidden=("/a",), kept=("/b",), fixed=("/c",), is_required=True)
    files = ProcessFiles(tmp_path)
    files.write_program(Program("m@v1", [sys.executable], sandbox=wanted))
    read = files.program("m@v1")
    assert read is not None
    assert read.sandbox == Sandbox.from_json(wanted.to_json()) == wanted


def _journal_that_removes(victim: Path, *, pages: int) -> bytes:
    """An SQLite journal for a change of several databases: rolling it back removes the file that it names."""
    begin, name = bytes.fromhex("d9d505f920a163d7"), os.fsencode(victim)
    head = begin + struct.pack(">5I", 0, 0, pages, 512, 4096)
    return (
        head.ljust(512, b"\0") + struct.pack(">I", 2**18 + 1) + name + struct.pack(">2I", len(name), sum(name)) + begin
    )


@pytest.mark.needs("serve")
@pytest.mark.parametrize("is_in_it", [True, False])
def test_a_planted_journal_cannot_remove_files_outside_the_observers_folders(tmp_path: Path, is_in_it: bool) -> None:
    """A version wrote the journal beside the answer database. Without the sandbox it can remove any file."""
    settings = Settings(home=tmp_path)
    gateway = GatewaySettings(tmp_path / "gateway")
    gateway.admin_folder.mkdir(parents=True)
    wanted = out_of_reach.sandbox_of_the_observer(settings, gateway)
    assert wanted is not None
    (tmp_path / "signed-bentos.json").write_text('["m:v1"]')
    (tmp_path / "ledger.db").write_bytes(b"")
    table = settings.answers / ANSWERS_FILE
    with closing(sqlite3.connect(table)) as made:
        made.execute("CREATE TABLE x (x)")
    journal = _journal_that_removes(tmp_path / "signed-bentos.json", pages=table.stat().st_size // 4096)
    table.with_name(f"{ANSWERS_FILE}-journal").write_bytes(journal)

    def write() -> object:
        if is_in_it:
            enter(wanted)
        with open_log(settings.answers, "m:v1", Tally()) as log:
            log.record("r", ["a"], body=b"")
        (gateway.admin_folder / "observer").write_text("")
        return _names(tmp_path), _error(lambda: gateway.answers_path.write_text(""))

    seen_there, refused = ast.literal_eval(in_child(write))
    assert (tmp_path / "signed-bentos.json").exists() is is_in_it
    if is_in_it:
        assert (set(seen_there), refused) == ({"answers", "predictions", "recorded", "gateway"}, errno.EROFS)


def test_limits_of_other_processes_cannot_be_changed() -> None:
    """A limit of no files or no CPU time would end the controller.

    The process can set its own limits and read all limits.
    """

    def look() -> object:
        enter(Sandbox(hidden=()))
        (now, most), other = resource.getrlimit(resource.RLIMIT_NOFILE), os.getppid()
        others: list[Callable[[], object]] = [
            lambda: resource.prlimit(other, resource.RLIMIT_NOFILE, (now, most)),
            lambda: resource.prlimit(other, resource.RLIMIT_CPU, (99, 99)),
        ]
        resource.setrlimit(resource.RLIMIT_NOFILE, (now - 1, most))
        resource.prlimit(0, resource.RLIMIT_NOFILE, (now, most))
        read = resource.prlimit(other, resource.RLIMIT_NOFILE)
        return read == (now, most), [_error(do) for do in others], [_of_x32(other)]

    assert in_child(look) == repr((True, [errno.EPERM] * 2, [errno.EPERM]))


def _of_x32(other: int) -> int:
    """The error of the same call by its x32 number, which x86-64 may offer to programs with short addresses."""
    if os.uname().machine == "x86_64":
        _LIBC.syscall(0x40000000 + 302, other, resource.RLIMIT_CPU, ctypes.byref((ctypes.c_ulong * 2)(99, 99)), None)
        return ctypes.get_errno()
    return errno.EPERM


def test_folders_that_python_imports_from_are_created_and_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These are a separate folder for compiled files (`PYTHONPYCACHEPREFIX`) and the user's packages."""
    compiled, packages = tmp_path / "compiled", tmp_path / "lib" / "site-packages"
    monkeypatch.setattr(sys, "pycache_prefix", str(compiled))
    monkeypatch.setattr(site, "ENABLE_USER_SITE", True)
    monkeypatch.setattr(site, "getusersitepackages", lambda: str(packages))
    given = out_of_reach.sandbox_of(Settings(home=tmp_path / "state"), "m:v1")
    assert given is not None

    def write() -> object:
        enter(given)
        return [_error(lambda at=at: (at / "x.py").write_text("")) for at in (compiled, packages)]

    assert in_child(write) == repr([errno.EROFS] * 2)
