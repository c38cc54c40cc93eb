"""Hides parts of this machine from a process, and keeps it from acting on processes outside. Only on Linux.

It uses three kernel features that need neither rights nor another process: a mount namespace, in which folders look
empty or are read-only; Landlock, which forbids inspecting, signalling and tracing processes outside, and changing
mounts; and seccomp, which forbids setting limits of any other process, because it cannot tell inside from outside.
Imports nothing of ours: a forked version has its own packages.
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

# Numbers of system calls that are the same on all architectures.
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446

_NEW_MOUNTS, _NEW_USERS = 0x20000, 0x10000000  # of unshare(2)
_IN_FOLDER, _EMPTY_PATH, _RECURSIVE, _CLOSED_AT_EXEC, _CLONE = -100, 0x1000, 0x8000, os.O_CLOEXEC, 1
_NOT_FOLLOWED = 0x100  # the link itself
_MOVE_FROM_FILE = 4  # MOVE_MOUNT_F_EMPTY_PATH of move_mount(2)
_READ_ONLY = 1  # MOUNT_ATTR_RDONLY of mount_setattr(2)
_FOLLOWS_OTHERS, _NO_SET_USER, _NO_DEVICES = 0x80000 | 0x4000, 2, 4  # MS_SLAVE | MS_REC, nosuid, nodev of mount(2)

_ASK_VERSION, _BENEATH_A_PATH = 1, 1  # of Landlock
_RENAME = 1 << 13
_ABSTRACT_SOCKETS, _SIGNALS = 1, 2
_OLDEST, _WHOLE = 2, 6  # versions of Landlock: before 2, files could not be renamed into another folder

_NO_NEW_PRIVILEGES, _DROP_CAPABILITY = 38, 24  # of prctl(2)
_CAPABILITIES, _CAPABILITIES_FORMAT = 64, 0x20080522  # number of bits in the format; its version 3
# Root keeps: other users' files and owners (0, 1, 3, 4), signals (5), changing user (6, 7), ports below 1024 (10).
_OF_ROOT = sum(1 << each for each in (0, 1, 3, 4, 5, 6, 7, 10))

_SET_FILTER, _NO_SLOWDOWN = 1, 4  # SECCOMP_FILTER_FLAG_SPEC_ALLOW: no mitigations that slow down before Linux 5.16
_LOAD, _IS, _RETURN = 0x20, 0x15, 0x06  # BPF instructions: load a word, jump if equal, return
_NUMBER, _MACHINE, _FIRST, _THIRD = 0, 4, 16, 32  # offsets in struct seccomp_data: call, architecture, arguments
_ALLOWED, _REFUSED = 0x7FFF0000, 0x00050000 | errno.EPERM
# The number of seccomp(2), then the architecture and the number of prlimit64(2) for each kind of program that can run.
_LIMITS = {
    "x86_64": (317, ((0xC000003E, 302), (0xC000003E, 0x40000000 + 302), (0x40000003, 340))),  # x32, i386
    "aarch64": (277, ((0xC00000B7, 261), (0x40000028, 369))),  # arm
}

_NOT_OFFERED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES, errno.EINVAL)
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The paths that a sandbox hides, keeps and protects. A path that does not exist is ignored."""

    hidden: tuple[str, ...]  # folders, files and sockets look empty
    kept: tuple[str, ...] = ()  # stay as they are, even inside a hidden folder
    fixed: tuple[str, ...] = ()  # are read-only, even inside a kept folder; visible even inside a hidden one
    is_required: bool = False  # without kernel support the process must not start

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
    """Why this machine offers no sandbox; empty if it does. Raises OSError if it is out of memory or namespaces now.

    Tries a sandbox instead of comparing versions: a container or a rule of the machine may forbid it. This forks, so
    the process should have one thread.
    """
    if _libc is None:
        return "only Linux has one"
    if (found := _landlock()) < _OLDEST:
        return f"the kernel has {f'only version {found} of' if found else 'no'} Landlock (Linux 5.19 has version 2)"
    failed = _tried(lambda: enter(Sandbox(hidden=("/proc",))))
    if failed in _NOT_OFFERED or (failed == errno.ENOSPC and _no_namespaces()):
        return (
            f"no mount namespace ({os.strerror(failed)}): a container, or a setting such as "
            "kernel.apparmor_restrict_unprivileged_userns or user.max_user_namespaces, forbids it"
        )
    if failed:
        raise OSError(failed, f"no sandbox at the moment: {os.strerror(failed)}")
    return ""


def is_partial() -> bool:
    """Whether a sandbox lets signals and abstract sockets reach processes outside, as on Linux before 6.12."""
    return _landlock() < _WHOLE


def enter(sandbox: Sandbox) -> None:
    """Put this process and all its future children into the sandbox permanently.

    The process must have one thread. Programs that it executes cannot gain rights. Raises OSError.
    """
    here, is_root = Path.cwd(), os.geteuid() == 0
    _new_namespace()
    ways = _ways(sandbox)
    clones = dict(_clones(sandbox))
    hidden = _there(sandbox.hidden) - clones.keys()
    for path in sorted({*hidden, *clones}):  # a folder before its content
        if path in clones:
            _attach(clones[path], path)
        elif path.exists():  # not inside a folder that is hidden already
            _hide(path)
    for path in hidden:
        if path.is_dir():
            _make_read_only(_IN_FOLDER, os.fsencode(path), 0)
    for path in ways:
        _pin(path)
    _return_to(here)  # otherwise the working directory would still be the unhidden one
    _drop_capabilities(_OF_ROOT if is_root else 0)
    _forbid_the_rest()


def _new_namespace() -> None:
    """Give this process its own mounts, and the right to change them."""
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
    """The paths that exist, with links resolved."""
    return {found for path in paths if (found := Path(path).resolve()).exists()}


def _clones(sandbox: Sandbox) -> Iterator[tuple[Path, int]]:
    """Copies of the mounts that stay visible, by path. Taken before anything is hidden."""
    fixed = _there(sandbox.fixed)
    for path in _there(sandbox.kept) | fixed:
        clone = _clone(path)
        if path in fixed:
            _make_read_only(clone, b"", _EMPTY_PATH | _RECURSIVE)
        yield path, clone


def _clone(path: Path) -> int:
    """A copy of the mount of a file, a link, or a folder with all mounts in it."""
    flags = _CLONE | _RECURSIVE | _CLOSED_AT_EXEC | _NOT_FOLLOWED
    return _call(_c().syscall, _OPEN_TREE, _IN_FOLDER, os.fsencode(path), ctypes.c_uint(flags))


def _ways(sandbox: Sandbox) -> list[Path]:
    """Folders and links on the paths to hidden and fixed ones that this user can rename.

    If a version renamed one, processes outside would follow another path. Nothing can be renamed inside a hidden or
    fixed folder, so those are left out.
    """
    paths = [Path(path).absolute() for path in (*sandbox.hidden, *sandbox.fixed)]
    ends = {path.resolve() for path in paths}
    steps = {step for path in paths if path.exists() for step in _steps(path)}
    return sorted(step for step in steps if ends.isdisjoint((step, *step.parents)) and _is_movable(step))


def _steps(path: Path) -> Iterator[Path]:
    """Each folder and link that the kernel looks up on the way to an existing path."""
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
    """Mount it on itself: a mount point cannot be renamed or removed."""
    _mount(_clone(path), path)


def _hide(path: Path) -> None:
    if path.is_dir():
        flags = ctypes.c_ulong(_NO_SET_USER | _NO_DEVICES)
        _call(_c().mount, b"tmpfs", os.fsencode(path), b"tmpfs", flags, b"mode=0755,size=1m")
    else:
        nothing = ctypes.c_uint(_CLONE | _CLOSED_AT_EXEC)
        _attach(_call(_c().syscall, _OPEN_TREE, _IN_FOLDER, b"/dev/null", nothing), path)


def _attach(clone: int, path: Path) -> None:
    if not path.exists():  # inside a hidden folder
        if stat.S_ISDIR(os.fstat(clone).st_mode):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    _mount(clone, path)


def _mount(clone: int, path: Path) -> None:
    _call(_c().syscall, _MOVE_MOUNT, clone, b"", _IN_FOLDER, os.fsencode(path), ctypes.c_uint(_MOVE_FROM_FILE))
    os.close(clone)


def _make_read_only(folder: int, path: bytes, flags: int) -> None:
    wanted = _MountAttributes(set=_READ_ONLY)
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    _call(_c().syscall, _MOUNT_SETATTR, folder, path, ctypes.c_uint(flags), ctypes.byref(wanted), size)


def _return_to(folder: Path) -> None:
    try:
        os.chdir(folder)
    except OSError:
        os.chdir("/")


def _drop_capabilities(kept: int) -> None:
    """Drop all other capabilities, also for programs that this process executes. A forked version executes none."""
    for each in range(_CAPABILITIES):
        if not kept >> each & 1:
            with suppress(OSError):  # unknown to the kernel, or not ours to drop
                _call(_c().prctl, _DROP_CAPABILITY, each, 0, 0, 0)
    this, words = _CapabilitiesOf(format=_CAPABILITIES_FORMAT), (_Capabilities * 2)()
    _call(_c().capget, ctypes.byref(this), words)
    for number, word in enumerate(words):
        word.effective = word.permitted = word.inheritable = word.permitted & kept >> 32 * number & 0xFFFFFFFF
    _call(_c().capset, ctypes.byref(this), words)


def _forbid_the_rest() -> None:
    _call(_c().prctl, _NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    # With any Landlock rule a process cannot change mounts or trace processes outside. Renaming stays allowed.
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
    """Forbid prlimit64(2) on other processes: a low limit of files or CPU time would end a process outside.

    Reading limits, and setting the own ones by `setrlimit`, stay allowed. Setting the own ones by pid does not.
    """
    call, asked = _LIMITS.get(os.uname().machine, (0, ())) if sys.maxsize > 2**32 else (0, ())
    if not asked:
        return
    steps: list[tuple[int, ...]] = []
    for number, (machine, limits) in enumerate(asked):
        further = 4 * (len(asked) - number) - 3  # steps from here to the check of the arguments
        steps += [(_LOAD, _MACHINE), (_IS, machine, 0, 2), (_LOAD, _NUMBER), (_IS, limits, further, 0)]
    steps += [(_RETURN, _ALLOWED)]
    steps += [(_LOAD, _FIRST), (_IS, 0, 4, 0)]  # its own limits
    steps += [(_LOAD, _THIRD), (_IS, 0, 0, 3), (_LOAD, _THIRD + 4), (_IS, 0, 0, 1)]  # new limits are NULL: only a read
    steps += [(_RETURN, _ALLOWED), (_RETURN, _REFUSED)]
    packed = b"".join(struct.pack("=HBBI", code, *(ways or (0, 0)), value) for code, value, *ways in steps)
    with suppress(OSError):  # a kernel without seccomp
        _call(_c().syscall, call, _SET_FILTER, _NO_SLOWDOWN, ctypes.byref(_Filter(len(steps), packed)))


def _landlock() -> int:
    """The kernel's version of Landlock; 0: none."""
    with suppress(OSError):
        return _call(_c().syscall, _CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)
    return 0


def _no_namespaces() -> bool:
    with suppress(OSError):
        return Path("/proc/sys/user/max_user_namespaces").read_text().strip() == "0"
    return False


def _tried(what: Callable[[], None]) -> int:
    """The error number with which `what` fails in a forked process; 0 if it succeeds."""
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
