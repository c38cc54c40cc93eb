"""A process that does not see parts of this machine, and can do nothing to processes outside. Linux alone.

Three things of the kernel that need no rights and no further process: a namespace of mounts, in which folders look
empty or can only be read; Landlock, which forbids to look into, signal or trace processes outside, and to change
mounts; and seccomp, which forbids to set limits of other processes, inside or outside: it cannot tell them apart.
Knows nothing of versions, and imports nothing of ours: a version that is forked has packages of its own.
"""

import ctypes
import errno
import functools
import json
import os
import stat
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

# Numbers of system calls are the same on all machines since Linux 5.
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446

_NEW_MOUNTS, _NEW_USERS = 0x20000, 0x10000000  # of unshare(2)
_IN_FOLDER, _EMPTY_PATH, _RECURSIVE, _CLOSED_AT_EXEC, _CLONE = -100, 0x1000, 0x8000, os.O_CLOEXEC, 1
_NOT_FOLLOWED = 0x100  # the link itself
_FROM_FILE = 4  # of move_mount(2)
_ONLY_READ = 1  # of mount_setattr(2)
_FOLLOWS_OTHERS, _NO_SET_USER, _NO_DEVICES = 0x80000 | 0x4000, 2, 4  # MS_SLAVE for all, of mount(2)

_VERSION_OF_RULES, _BENEATH_A_PATH = 1, 1  # of Landlock
_RENAME = 1 << 13
_ABSTRACT_SOCKETS, _SIGNALS = 1, 2
_OLDEST, _WHOLE = 2, 6  # versions of Landlock: before 2 no file could be renamed into another folder

_NO_NEW_PRIVILEGES, _DROP_CAPABILITY = 38, 24  # of prctl(2)
_CAPABILITIES, _CAPABILITIES_FORMAT = 64, 0x20080522  # as many as the format has room for
# Root keeps: files of others and their owners (0, 1, 3, 4), signals (5), other users (6, 7), ports below 1024 (10).
_OF_ROOT = sum(1 << each for each in (0, 1, 3, 4, 5, 6, 7, 10))

_ONLY_FILTER, _KEEPS_ITS_SPEED = 1, 4  # of seccomp(2): without what it would slow down before Linux 5.16
_LOAD, _IS, _RETURN = 0x20, 0x15, 0x06  # of a filter: the word at a place, equality, the end
_NUMBER, _MACHINE, _FIRST, _THIRD = 0, 4, 16, 32  # places of what is asked: a system call, and its arguments
_ALLOWED, _REFUSED = 0x7FFF0000, 0x00050000 | errno.EPERM
# seccomp(2) here, then prlimit64(2) as programs of each kind that run here ask for it.
_LIMITS = {
    "x86_64": (317, ((0xC000003E, 302), (0xC000003E, 0x40000000 + 302), (0x40000003, 340))),  # x32, i386
    "aarch64": (277, ((0xC00000B7, 261), (0x40000028, 369))),  # arm
}

_NOT_OFFERED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES, errno.EINVAL)
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What is in it. A path in one of these that is not there does not count."""

    hidden: tuple[str, ...]  # folders look empty, and so do files and sockets
    kept: tuple[str, ...] = ()  # as they are, also within what is hidden
    fixed: tuple[str, ...] = ()  # can only be read, also within what is kept; within what is hidden they are seen
    is_required: bool = False  # start nothing where the kernel does not offer it

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Sandbox":
        given = json.loads(text)
        hidden, kept, fixed = (tuple(given[name]) for name in ("hidden", "kept", "fixed"))
        return cls(hidden, kept, fixed, given["is_required"])


class _Rules(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("ports", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


class _CapabilitiesOf(ctypes.Structure):
    _fields_ = (("format", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Capabilities(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable"))


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


class _MountAttributes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "users"))


@functools.cache
def lacking() -> str:
    """Why this machine offers no sandbox; empty where it does. Raises OSError when it has no room for one just now.

    Tried, and not guessed from versions: a container or a rule of the machine may forbid it. Forks, so that the process
    should have one thread.
    """
    if _libc is None:
        return "only Linux has what it takes"
    if (found := _landlock()) < _OLDEST:
        return f"the kernel has {f'only version {found} of' if found else 'no'} Landlock (Linux 5.19 has what it takes)"
    failed = _tried(lambda: enter(Sandbox(hidden=("/proc",))))
    if failed in _NOT_OFFERED or (failed == errno.ENOSPC and _no_namespaces()):
        return (
            f"no namespace of mounts ({os.strerror(failed)}): a container, or a setting such as "
            "kernel.apparmor_restrict_unprivileged_userns or user.max_user_namespaces, forbids it"
        )
    if failed:
        raise OSError(failed, f"no sandbox just now: {os.strerror(failed)}")
    return ""


def is_partial() -> bool:
    """Whether it does not keep signals and abstract sockets from processes outside: Linux before 6.12."""
    return _landlock() < _WHOLE


def enter(sandbox: Sandbox) -> None:
    """From now on this process and all that it starts are in it, for good.

    It must have one thread. Programs that it becomes by exec gain no rights any more. Raises OSError.
    """
    here, is_root = Path.cwd(), os.geteuid() == 0
    _new_namespace()
    ways = _ways(sandbox)
    clones = dict(_clones(sandbox))
    hidden = _there(sandbox.hidden) - clones.keys()
    for path in sorted({*hidden, *clones}):  # a folder before what is in it
        if path in clones:
            _attach(clones[path], path)
        elif path.exists():  # not in a folder that looks empty by now
            _hide(path)
    for path in hidden:
        if path.is_dir():
            _only_read(_IN_FOLDER, os.fsencode(path), 0)
    for path in ways:
        _pin(path)
    _return_to(here)  # else this folder, and all above it, would be as they were before
    _drop_capabilities(_OF_ROOT if is_root else 0)
    _forbid_the_rest()


def _new_namespace() -> None:
    """Mounts of this process's own, with the rights to change them."""
    user, group = os.geteuid(), os.getegid()
    is_root = user == 0
    _call(_c().unshare, _NEW_MOUNTS | (0 if is_root else _NEW_USERS))
    if not is_root:
        for name, line in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            Path("/proc/self", name).write_text(line)
    _call(_c().mount, None, b"/", None, ctypes.c_ulong(_FOLLOWS_OTHERS), None)


def _there(paths: Iterable[str]) -> set[Path]:
    """Those that there are, without links."""
    return {found for path in paths if (found := Path(path).resolve()).exists()}


def _clones(sandbox: Sandbox) -> Iterator[tuple[Path, int]]:
    """The mounts of what stays to be seen, by path: taken before anything is hidden."""
    fixed = _there(sandbox.fixed)
    for path in _there(sandbox.kept) | fixed:
        clone = _clone(path)
        if path in fixed:
            _only_read(clone, b"", _EMPTY_PATH | _RECURSIVE)
        yield path, clone


def _clone(path: Path) -> int:
    """A folder with all that is mounted in it, a file or a link."""
    flags = _CLONE | _RECURSIVE | _CLOSED_AT_EXEC | _NOT_FOLLOWED
    return _call(_c().syscall, _OPEN_TREE, _IN_FOLDER, os.fsencode(path), ctypes.c_uint(flags))


def _ways(sandbox: Sandbox) -> list[Path]:
    """Folders and links by which processes outside come to what is hidden or fixed, if this user can rename them.

    Without what lies in either: there nothing can be renamed.
    """
    paths = [Path(path).absolute() for path in (*sandbox.hidden, *sandbox.fixed)]
    ends = {path.resolve() for path in paths}
    steps = {step for path in paths if path.exists() for step in _steps(path)}
    return sorted(step for step in steps if ends.isdisjoint((step, *step.parents)) and _is_movable(step))


def _steps(path: Path) -> Iterator[Path]:
    """All that is looked up on the way to a path that is there, links as well."""
    place, names = Path("/"), list(reversed(path.parts[1:]))
    while names:
        step = place / names.pop()
        if step.name == "..":
            place = place.parent
            continue
        yield step
        if step.is_symlink():
            target = step.readlink()
            place = Path("/") if target.is_absolute() else place
            names += reversed(target.parts[target.is_absolute() :])
        else:
            place = step


def _is_movable(step: Path) -> bool:
    folder = step.parent
    return os.access(folder, os.W_OK) or folder.stat().st_uid == os.geteuid()


def _pin(path: Path) -> None:
    """Mount it on itself: nobody renames or removes what something is mounted on."""
    _mount(_clone(path), path)


def _hide(path: Path) -> None:
    if path.is_dir():
        flags = ctypes.c_ulong(_NO_SET_USER | _NO_DEVICES)
        _call(_c().mount, b"tmpfs", os.fsencode(path), b"tmpfs", flags, b"mode=0755,size=1m")
    else:
        nothing = ctypes.c_uint(_CLONE | _CLOSED_AT_EXEC)
        _attach(_call(_c().syscall, _OPEN_TREE, _IN_FOLDER, b"/dev/null", nothing), path)


def _attach(clone: int, path: Path) -> None:
    if not path.exists():  # in a folder that looks empty
        if stat.S_ISDIR(os.fstat(clone).st_mode):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    _mount(clone, path)


def _mount(clone: int, path: Path) -> None:
    _call(_c().syscall, _MOVE_MOUNT, clone, b"", _IN_FOLDER, os.fsencode(path), ctypes.c_uint(_FROM_FILE))
    os.close(clone)


def _only_read(folder: int, path: bytes, flags: int) -> None:
    wanted = _MountAttributes(set=_ONLY_READ)
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    _call(_c().syscall, _MOUNT_SETATTR, folder, path, ctypes.c_uint(flags), ctypes.byref(wanted), size)


def _return_to(folder: Path) -> None:
    try:
        os.chdir(folder)
    except OSError:
        os.chdir("/")


def _drop_capabilities(kept: int) -> None:
    """Of this process, and of all programs that it becomes. A process that is only forked becomes none."""
    for each in range(_CAPABILITIES):
        if not kept >> each & 1:
            with suppress(OSError):  # the kernel does not know it, or it may not be dropped: then it is none of ours
                _call(_c().prctl, _DROP_CAPABILITY, each, 0, 0, 0)
    this, words = _CapabilitiesOf(format=_CAPABILITIES_FORMAT), (_Capabilities * 2)()
    _call(_c().capget, ctypes.byref(this), words)
    for number, word in enumerate(words):
        word.effective = word.permitted = word.inheritable = word.permitted & kept >> 32 * number & 0xFFFFFFFF
    _call(_c().capset, ctypes.byref(this), words)


def _forbid_the_rest() -> None:
    _call(_c().prctl, _NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    # A process that is governed at all can change no mounts and trace nobody outside. Any file may be renamed.
    scopes = 0 if is_partial() else _ABSTRACT_SOCKETS | _SIGNALS
    rules = _Rules(files=_RENAME, scopes=scopes)
    size = ctypes.c_size_t(ctypes.sizeof(rules))
    ruleset = _call(_c().syscall, _CREATE_RULESET, ctypes.byref(rules), size, 0)
    everything = os.open("/", os.O_PATH | os.O_CLOEXEC)
    rule = _Beneath(allowed=_RENAME, folder=everything)
    _call(_c().syscall, _ADD_RULE, ruleset, _BENEATH_A_PATH, ctypes.byref(rule), 0)
    _call(_c().syscall, _RESTRICT_SELF, ruleset, 0)
    os.close(everything)
    os.close(ruleset)
    _forbid_limits_of_others()


def _forbid_limits_of_others() -> None:
    """Else it could end a process outside by its limit of files or of time. To read them, and to set its own by
    `setrlimit`, stay allowed; by its number, even a process's own limits stay as they are."""
    call, asked = _LIMITS.get(os.uname().machine, (0, ())) if sys.maxsize > 2**32 else (0, ())
    if not asked:
        return
    steps: list[tuple[int, ...]] = []
    for number, (machine, limits) in enumerate(asked):
        further = 4 * (len(asked) - number) - 3  # steps from here to where its arguments are looked at
        steps += [(_LOAD, _MACHINE), (_IS, machine, 0, 2), (_LOAD, _NUMBER), (_IS, limits, further, 0)]
    steps += [(_RETURN, _ALLOWED)]
    steps += [(_LOAD, _FIRST), (_IS, 0, 4, 0)]  # its own limits
    steps += [(_LOAD, _THIRD), (_IS, 0, 0, 3), (_LOAD, _THIRD + 4), (_IS, 0, 0, 1)]  # it names no new one
    steps += [(_RETURN, _ALLOWED), (_RETURN, _REFUSED)]
    packed = b"".join(struct.pack("=HBBI", code, *(ways or (0, 0)), value) for code, value, *ways in steps)
    with suppress(OSError):  # a kernel without it
        _call(_c().syscall, call, _ONLY_FILTER, _KEEPS_ITS_SPEED, ctypes.byref(_Filter(len(steps), packed)))


def _landlock() -> int:
    """The version of Landlock that the kernel has; 0: none."""
    with suppress(OSError):
        return _call(_c().syscall, _CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_OF_RULES)
    return 0


def _no_namespaces() -> bool:
    with suppress(OSError):
        return Path("/proc/sys/user/max_user_namespaces").read_text().strip() == "0"
    return False


def _tried(what: Callable[[], None]) -> int:
    """The error number with which `what` fails in a process of its own; 0: it does not."""
    child = os.fork()
    if not child:
        code = 255
        try:
            what()
            code = 0
        except OSError as error:
            code = error.errno or 255
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _c() -> ctypes.CDLL:
    if _libc is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return _libc


def _call(function: Callable[..., int], *arguments: object) -> int:
    result = function(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
