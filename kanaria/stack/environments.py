"""Python environments of versions: each has the packages of one set of requirements, for one Python.

Versions with the same requirements share an environment. It is created directly in its final folder, because its
scripts contain that path. A small note written at the end marks it as complete. Folders without a note are never used,
so the process that creates one may be killed at any time.
"""

import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import metadata
from pathlib import Path

import psutil

from contract.files import write_whole
from kanaria.errors import SetupError, StackError
from kanaria.stack import guarded_ports, locks
from kanaria.stack.bentos import tag_of
from kanaria.stack.confinement import is_offered
from kanaria.stack.inherited import INSTALLER, inherited
from kanaria.stack.out_of_reach import while_installing
from kanaria.stack.requirements import OWN_PYTHON, Wanted, wanted_by
from kanaria.stack.sandbox import Sandbox, enter
from kanaria.stack.supervision import ProcessFiles

KEPT = 5  # unused environments that stay, the most recently used ones
_JUST_USED_S = 60.0  # a version that has just found an environment is about to start in it
_LONGEST_S = 1800.0  # an installer that takes longer is considered hung
_LAST_LINES = 40
_REMOVED = ".removed"
_OUR_OWN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "UV_PYTHON", "UV_SYSTEM_PYTHON", "PIP_USER", "PIP_TARGET")

# An option in pip's configuration -> the same option as a variable of uv.
_FOR_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "proxy": "ALL_PROXY",
}
_YES = ("1", "true", "yes", "on")
_COMMAS = ("UV_FIND_LINKS",)  # separates values with commas; the others with spaces
_OLDER_NAMES = {"UV_DEFAULT_INDEX": "UV_INDEX_URL", "UV_INDEX": "UV_EXTRA_INDEX_URL"}

_NO_NETWORK = re.compile(
    r"failed to fetch|error sending request|dns error|NewConnectionError|ProxyError|connection refused|name resolution"
    r"|Name or service not known|timed out",
    re.IGNORECASE,
)
_DISK_FULL = re.compile(r"no space left|os error 28\b|Errno 28\b|quota exceeded", re.IGNORECASE)
_BEGINS_TO_FAIL = re.compile(r"\s*(?:error|ERROR|×)")  # noqa: RUF001 - uv writes that sign


class InstallError(StackError):
    """A version's environment could not be created."""


class Environments:
    """The environments of one state folder."""

    def __init__(
        self, folder: Path, *, kept: int = KEPT, listed: Sequence[str] = (), sandbox: Sandbox | None = None
    ) -> None:
        """Args:
        kept: how many environments stay although nothing runs in them.
        listed: patterns of variables that the installer gets in addition to the usual ones, see `inherited`.
        sandbox: of the version; the build of its packages runs in one too.
        """
        self._folder, self._kept, self._listed = folder.resolve(), kept, (*INSTALLER, *listed)
        self._sandbox = sandbox

    def find(self, wanted: Wanted) -> Path | None:
        """The complete environment for what is `wanted`; None if there is none."""
        key = _key(wanted)
        try:
            os.utime(self._note(key))  # first, so that it is not removed as unused meanwhile
            found = self._folder / str(json.loads(self._note(key).read_bytes())["folder"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if python_in(found).exists() else None

    def prepare(self, wanted: Wanted, *, say: Callable[[str], None]) -> Path:
        """The environment for what is `wanted`, created if there is none.

        Processes that create one wait for each other. Raises InstallError, StackError.
        """
        if found := self.find(wanted):
            return found
        lock = self._folder / "lock"
        try:
            with locks.locked(lock, doing=f"the environment of {wanted.tag}", wait_s=2 * _LONGEST_S, say=say):
                if found := self.find(wanted):
                    return found
                self._remove_leftovers()
                made = self._make(wanted, say)
                with suppress(OSError):  # the next creation tries again
                    self._remove_unused()
                return made
        except OSError as error:
            raise _install_error(wanted, str(error)) from error

    def _make(self, wanted: Wanted, say: Callable[[str], None]) -> Path:
        key, began_s = _key(wanted), time.monotonic()
        folder = self._folder / f"{key}-{secrets.token_hex(4)}"
        try:
            installer = _Installer(wanted, say, self._listed, self._sandbox and while_installing(self._sandbox, folder))
            folder.mkdir()  # the sandbox shows only existing folders
            installer.make(folder)
            write_whole(self._note(key), json.dumps({"folder": folder.name, "tag": wanted.tag}))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        say(f"the environment of {wanted.tag} is ready after {time.monotonic() - began_s:.0f} s")
        return folder

    def _remove_leftovers(self) -> None:
        """Remove environments without a note: the process that created them was killed."""
        whole = {self._folder_of(note) for note in self._notes()}
        for path in self._folder.iterdir():
            if path.is_dir() and path.name not in whole:
                shutil.rmtree(path, ignore_errors=True)
            elif path.suffix == _REMOVED:
                path.unlink()

    def _remove_unused(self) -> None:
        """Remove all environments except those in use and the few used last."""
        in_use = self._in_use()
        unused = [note for note in self._notes() if note.stem not in in_use]
        for note in sorted(unused, key=_used_s, reverse=True)[self._kept :]:
            removed = note.with_suffix(_REMOVED)
            note.rename(removed)  # from here on `find` does not see it
            if time.time() - _used_s(removed) < _JUST_USED_S:
                removed.rename(note)
                continue
            shutil.rmtree(self._folder / self._folder_of(removed), ignore_errors=True)
            removed.unlink()

    def _in_use(self) -> set[str]:
        """The keys of environments in which a process runs or should run."""
        keys = set()
        for process in psutil.process_iter():
            with suppress(psutil.Error, IndexError):
                program = Path(process.cmdline()[0])
                if program.is_relative_to(self._folder):
                    keys.add(program.relative_to(self._folder).parts[0].partition("-")[0])
        for tag in filter(None, map(tag_of, ProcessFiles(self._folder.parent).names())):
            with suppress(SetupError, OSError):
                keys.add(_key(wanted_by(tag)))
        return keys

    def _notes(self) -> list[Path]:
        return list(self._folder.glob("*.json"))

    def _note(self, key: str) -> Path:
        return self._folder / f"{key}.json"

    @staticmethod
    def _folder_of(note: Path) -> str:
        try:
            return str(json.loads(note.read_bytes())["folder"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""


def python_in(environment: Path) -> Path:
    """The interpreter of an environment."""
    return environment / "bin" / "python"


def variables_in(environment: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """`variables` for a program in `environment`, without the paths of Kanaria's own Python."""
    own = {name: value for name, value in variables.items() if name not in _OUR_OWN}
    path = os.pathsep.join((str(environment / "bin"), own.get("PATH", os.defpath)))
    return own | {"VIRTUAL_ENV": str(environment), "PATH": path} | guarded_ports.carried(variables)


def _key(wanted: Wanted) -> str:
    """Identifies an environment by its requirements, the files that they name, and the Python."""
    python = f"{platform.python_version()} {sys.base_prefix}" if wanted.is_for_this_python else wanted.python
    digest = hashlib.sha256()
    words = (python, sys.platform, platform.machine(), *_additions(wanted), *wanted.options)
    for part in (*(word.encode() for word in words), *_contents(wanted)):
        digest.update(len(part).to_bytes(8) + part)
    return digest.hexdigest()[:16]


def _contents(wanted: Wanted) -> Iterator[bytes]:
    named = [wanted.folder / word for word in wanted.options]
    for path in (wanted.file, *sorted(wanted.folder.glob("wheels/*")), *wanted.wheels, *named):
        if path.is_file():
            yield path.read_bytes()


def _additions(wanted: Wanted) -> list[str]:
    """BentoML, which serves every Bento, if the Bento does not require it itself."""
    return [] if wanted.names("bentoml") else [f"bentoml=={metadata.version('bentoml')}"]


class _Installer:
    """Creates environments with uv, or with venv and pip if there is no uv."""

    def __init__(
        self, wanted: Wanted, say: Callable[[str], None], listed: Sequence[str], sandbox: Sandbox | None
    ) -> None:
        self._wanted, self._say, self._listed = wanted, say, listed
        self._enter = partial(enter, sandbox) if sandbox and is_offered(sandbox, say) else None
        self._uv = _uv()
        self._has_pip = _has_pip()
        if self._uv is None and not self._has_pip:
            raise InstallError(
                f"the environment of {wanted.tag} could not be created",
                saw="neither uv nor pip is installed here",
                do="install one of them: https://docs.astral.sh/uv/, or `python -m ensurepip`",
            )

    def make(self, folder: Path) -> None:
        """Create the environment. Raises InstallError with the installer's output."""
        wanted, python = self._wanted, self._python()
        wheels = map(str, wanted.wheels)
        file = ["-r", str(wanted.file)] if wanted.file.exists() else []
        packages = (*wanted.options, *file, *wheels, *_additions(wanted))
        if self._uv:
            configured = _pip_configuration() if self._has_pip else {}
            variables = _uv_variables(os.environ, configured)
            if configured.get("no-index") in _YES and "--no-index" not in packages:  # uv has no variable for this
                packages = ("--no-index", *packages)
            if self._enter is not None:  # no links to uv's cache: all versions would share files that one can write
                variables |= {"UV_LINK_MODE": "copy"}
            quiet = ("--color", "never", "--no-progress")
            self._run([self._uv, "venv", "--quiet", *quiet, "--no-project", "--python", python, str(folder)], variables)
            install = [
                self._uv,
                "pip",
                "install",
                *quiet,
                "--compile-bytecode",
                "--python",
                str(python_in(folder)),
                *packages,
            ]
            self._run(install, variables)
        else:
            own_pip = [sys.executable, "-P", "-m", "pip", "--python", str(python_in(folder))]
            self._run([python, "-I", "-m", "venv", "--without-pip", str(folder)], os.environ)
            self._run([*own_pip, "install", "--no-input", "--no-user", "--progress-bar", "off", *packages], os.environ)

    def _python(self) -> str:
        """The interpreter for the environment, or for uv its version."""
        version = self._wanted.python
        if self._wanted.is_for_this_python:
            return sys.executable
        self._say(f"{self._wanted.tag} was built for Python {version} and gets that; Kanaria runs on {OWN_PYTHON}")
        if self._uv:
            return version
        if found := shutil.which(f"python{version}"):
            return found
        raise self._no_python("it is not on the PATH, and uv, which could install it, is missing")

    def _no_python(self, saw: str) -> InstallError:
        version = self._wanted.python
        return InstallError(
            f"{self._wanted.tag} was built for Python {version}, which is not here; Kanaria runs on {OWN_PYTHON}",
            saw=saw,
            do=f"install it (`uv python install {version}`), or build the Bento with Python {OWN_PYTHON}",
        )

    def _run(self, command: Sequence[str], variables: Mapping[str, str]) -> None:
        lines: list[str] = []
        passed = inherited(variables, self._listed)  # the build of a package runs its code
        process = self._begun(command, passed)
        too_late = threading.Timer(_LONGEST_S, process.kill)
        try:
            too_late.start()
        except RuntimeError as error:  # out of threads: nothing could stop an installer that hangs
            process.kill()
            process.communicate()
            raise _install_error(self._wanted, str(error)) from error
        try:
            with process:
                for line in process.stdout or ():
                    lines = [*lines, line.rstrip()][-_LAST_LINES:]
                    if line.strip() and not line.startswith(" + "):  # skips the list of packages
                        self._say(line.strip())
        finally:
            too_late.cancel()
            process.kill()
            too_late.join()  # a process with several threads cannot enter a sandbox
        if process.returncode == 0:
            return
        words = _own_words(lines) or f"exit code {process.returncode}, no output"
        if "venv" in command and not self._wanted.is_for_this_python:
            raise self._no_python(words)
        raise _install_error(self._wanted, words)

    def _begun(self, command: Sequence[str], variables: Mapping[str, str]) -> subprocess.Popen[str]:
        try:
            return subprocess.Popen(
                command,
                cwd=self._wanted.folder if self._wanted.folder.is_dir() else None,
                env={name: value for name, value in variables.items() if name not in _OUR_OWN},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                preexec_fn=self._enter,  # noqa: PLW1509 - this process has one thread
            )
        except subprocess.SubprocessError as error:
            raise _install_error(self._wanted, "the installer could not be confined") from error


def _install_error(wanted: Wanted, words: str) -> InstallError:
    """The error for an installer's output `words`, with its cause and what to do."""
    what, again = f"the packages of {wanted.tag} could not be installed", "then try again (`kanaria retry`)"
    if _DISK_FULL.search(words):
        return InstallError(f"{what}: the disk is full", saw=words, do=f"make room, {again}")
    if _NO_NETWORK.search(words):
        return InstallError(
            f"{what}: the package index could not be reached",
            saw=words,
            do=f"check the network and the index (PIP_INDEX_URL, pip.conf, UV_DEFAULT_INDEX), {again}; to use the "
            "installed packages instead: KANARIA_RUNTIME=shared",
        )
    return InstallError(what, saw=words, do=f"correct the Bento's requirements ({wanted.file}) and build it again")


def _own_words(lines: Sequence[str]) -> str:
    """An installer's output from its first error on, as one line without box-drawing characters."""
    first = next((number for number, line in enumerate(lines) if _BEGINS_TO_FAIL.match(line)), max(0, len(lines) - 5))
    warned = next((number for number, line in enumerate(lines) if _NO_NETWORK.search(line)), first)
    first = min(first, warned)  # pip names an unreachable address earlier, in a warning
    return " ".join(re.sub(r"[×╰─▶│├]", " ", " ".join(lines[first:])).split())  # noqa: RUF001 - likewise


def _uv() -> str | None:
    """The path of uv: in this installation, or on the PATH."""
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv")


def _has_pip() -> bool:
    try:
        metadata.version("pip")
    except metadata.PackageNotFoundError:
        return False
    return True


def _pip_configuration() -> dict[str, str]:
    """pip's configuration: from its files, then from its variables, which override them."""
    command = [sys.executable, "-P", "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    pattern = re.compile(r"^(global|install|:env:)\.([\w-]+)='(.*)'$", re.MULTILINE)
    order = ("global", "install", ":env:")
    found = sorted(pattern.findall(done.stdout), key=lambda row: order.index(row[0]))
    return {name: value.replace("\\n", " ").strip() for _, name, value in found}


def _uv_variables(variables: Mapping[str, str], pip: Mapping[str, str]) -> dict[str, str]:
    """`variables`, with pip's configuration for options that are not set for uv."""
    given = dict(variables)
    for name, value in pip.items():
        variable = _FOR_UV.get(name)
        if not value or variable is None or {variable, _OLDER_NAMES.get(variable)} & set(variables):
            continue
        given[variable] = ",".join(value.split()) if variable in _COMMAS else value
        if name == "extra-index-url":  # like pip: the best version of all indexes
            given.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return given


def _used_s(note: Path) -> float:
    try:
        return note.stat().st_mtime
    except OSError:
        return 0.0
