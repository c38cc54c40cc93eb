"""The process of a version with its own environment: creates the environment if it is missing, then becomes the server.

So such a version is kept, logged and stopped like any other, and the controller does not wait for the installation.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import get_args

from contract.environment import SEALED
from contract.errors import KanariaError
from kanaria.errors import StackError
from kanaria.settings import Runtime, Settings
from kanaria.stack import model_server
from kanaria.stack.bentos import asked_for_by, keeps_contract, service_of, store
from kanaria.stack.confinement import is_offered
from kanaria.stack.environments import Environments, python_in, variables_in
from kanaria.stack.inherited import INSTALLER, inherited
from kanaria.stack.out_of_reach import sandbox_of, with_copies, with_environment
from kanaria.stack.python import own_module
from kanaria.stack.requirements import OWN_PYTHON, Wanted, missing, wanted_by
from kanaria.stack.sandbox import Sandbox, enter
from kanaria.stack.sealing import seal
from kanaria.stack.signing import is_to_be_verified, policy
from kanaria.stack.supervision import Program
from kanaria.stack.temporary_folders import temporary_folder

MODULE = "kanaria.stack.version_process"
PORT_OPTION = "--port"
LISTED_OPTION, SEAL_OPTION, PREPARE_OPTION, SANDBOX_OPTION = "--listed", "--seal", "--prepare", "--sandbox"


def server_command(settings: Settings, tag: str, port: int) -> list[str]:
    """The command that serves a tag on a port: in this Python, or by `main` here, which verifies or installs first."""
    is_sealed = is_to_be_verified(settings, tag)
    if not is_sealed and is_for_own_python(settings, tag):
        return _in_own_python(tag, port)
    more = [*((SEAL_OPTION, str(store())) if is_sealed else ())]
    more += (LISTED_OPTION, *settings.pass_env) if settings.pass_env else ()
    return own_module(MODULE, str(settings.environments), settings.runtime, tag, PORT_OPTION, str(port), *more)


def is_for_own_python(settings: Settings, tag: str) -> bool:
    """Whether a tag is served by this Python with its installed packages."""
    return settings.runtime == "shared" or (settings.runtime == "auto" and _has_all(tag))


def variables_for(tag: str, command: Sequence[str], pass_env: Sequence[str]) -> tuple[str, ...]:
    """Which variables the serving `command` of a Bento gets in addition to the usual ones.

    The variables of installers are removed before the server starts.
    """
    return (*pass_env, *asked_for_by(tag), *(INSTALLER if MODULE in command else ()))


def secluded(program: Program, sandbox: Sandbox | None) -> Program:
    """`program` in `sandbox`: from its start, or once the version is verified and its packages are installed."""
    if sandbox is None or MODULE not in program.command:
        return replace(program, sandbox=sandbox)
    return replace(program, command=[*program.command, SANDBOX_OPTION, sandbox.to_json()])


def _in_own_python(tag: str, port: int) -> list[str]:
    if sys.platform == "linux" and keeps_contract(tag):  # on other systems a process that imported torch cannot fork
        return own_module(model_server.MODULE, tag, *_address(port))
    return own_module("bentoml", *_arguments(tag, port))


def _has_all(tag: str) -> bool:
    """Whether this Python has the version and all packages that a Bento needs."""
    try:
        wanted = wanted_by(tag)
        return wanted.is_for_this_python and _lack(wanted) is None
    except StackError:  # its process will report the error in the version's log
        return False


def _lack(wanted: Wanted) -> str | None:
    """What this Python lacks for a Bento; None: nothing. Kanaria itself has the packages of the contract's service."""
    return None if service_of(wanted.tag).keeps_contract else missing(wanted)


def prepare(settings: Settings, tag: str, *, say: Callable[[str], None]) -> None:
    """Create the environment of `tag` now, if it needs its own. Raises InstallError, StackError."""
    if is_for_own_python(settings, tag):
        return
    if is_to_be_verified(settings, tag):
        _prepare_sealed(settings, tag, say)
    else:
        _environment(
            settings.environments, settings.runtime, tag, say, settings.pass_env, sandbox=sandbox_of(settings, tag)
        )


def _prepare_sealed(settings: Settings, tag: str, say: Callable[[str], None]) -> None:
    """The same for a version that must be verified: a list of packages that was tampered with is never installed."""
    with temporary_folder(settings) as private:
        own = {**policy(settings), "KANARIA_HOME": str(settings.root), "BENTOML_HOME": str(private / "home")}
        program = Program(tag, [*server_command(settings, tag, 0), PREPARE_OPTION])
        sandbox = sandbox_of(settings, tag, [private])
        done = subprocess.Popen(
            secluded(program, sandbox).command,
            env=inherited(os.environ, (*INSTALLER, *settings.pass_env)) | own,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        last = ""
        with done:
            for line in done.stdout or ():
                last = line.strip() or last
                say(line.rstrip())
    if done.returncode:
        raise StackError(
            f"the environment of {tag} could not be created",
            saw=last,
            do="follow the output above, and try again",
        )


def main() -> None:
    """Prepare the version, then become its server."""
    parser = argparse.ArgumentParser(description="Serve a version. The keeper does this.")
    parser.add_argument("environments", type=Path)
    parser.add_argument("runtime", choices=get_args(Runtime))
    parser.add_argument("tag")
    parser.add_argument(PORT_OPTION, type=int, required=True)
    parser.add_argument(
        LISTED_OPTION,
        dest="listed",
        nargs="*",
        default=(),
        help="patterns of variables that the server gets in addition to the usual ones",
    )
    parser.add_argument(SEAL_OPTION, type=Path, metavar="STORE", help="copy what it runs to BENTOML_HOME and verify it")
    parser.add_argument(SANDBOX_OPTION, type=Sandbox.from_json, help="the sandbox of the server, as JSON")
    parser.add_argument(PREPARE_OPTION, action="store_true", help="only create the environment")
    given = parser.parse_args()
    sandbox: Sandbox | None = given.sandbox
    if given.seal is not None:
        _seal(given.tag, given.seal)
        sandbox = sandbox and with_copies(sandbox, given.tag, Path(os.environ["BENTOML_HOME"]))
    own = {name: value for name, value in os.environ.items() if name.startswith("KANARIA_")}
    passed = own | inherited(os.environ, (*given.listed, *asked_for_by(given.tag)))
    try:
        environment = _environment(given.environments, given.runtime, given.tag, _print, given.listed, sandbox=sandbox)
    except StackError as error:
        _print(f"{error}\n{type(error).__name__}: {error.what}: {error.saw}")
        sys.exit(1)
    if given.prepare:
        return
    if environment is None:
        command, variables = _in_own_python(given.tag, given.port), passed
    else:
        # The script and not `-m`: before Python 3.11, `-m` imports modules from the working directory.
        python = str(python_in(environment))
        command = [python, str(environment / "bin" / "bentoml"), *_arguments(given.tag, given.port)]
        variables = variables_in(environment, passed)
        sandbox = sandbox and with_environment(sandbox, environment)
    _enter(sandbox)
    os.execve(command[0], command, variables)  # noqa: S606 - our own command, and no shell wanted


def _enter(sandbox: Sandbox | None) -> None:
    """Enter the sandbox, or exit with the reason."""
    try:
        if sandbox is not None and is_offered(sandbox, _print):
            enter(sandbox)
    except (StackError, OSError) as error:
        words = f"{error.what}: {error.saw}" if isinstance(error, StackError) else str(error)
        _print(f"{error}\n{type(error).__name__}: the process could not be confined: {words}")
        sys.exit(1)


def _seal(tag: str, store: Path) -> None:
    """Fill BENTOML_HOME with a verified copy of what `tag` runs, or exit with the reason."""
    home = Path(os.environ["BENTOML_HOME"])
    os.environ["BENTOML_HOME"] = str(store)
    try:
        sealed = seal(Settings(), tag, store, home)
    except (KanariaError, OSError) as error:
        words = f"{error.what}: {error.saw}" if isinstance(error, KanariaError) else str(error)
        _print(f"{error}\n{type(error).__name__}: {words}")
        sys.exit(1)
    os.environ |= {"BENTOML_HOME": str(home), SEALED: str(home), **sealed}


def _print(text: str) -> None:
    with suppress(OSError):  # a full disk
        print(text, flush=True)


def _environment(
    folder: Path,
    runtime: Runtime,
    tag: str,
    say: Callable[[str], None],
    listed: Sequence[str],
    *,
    sandbox: Sandbox | None,
) -> Path | None:
    """The environment of `tag`, created if needed; None: it runs in Kanaria's own Python."""
    if runtime == "shared":
        return None
    wanted = wanted_by(tag)
    reason = _why_its_own(wanted, runtime)
    if reason is None:
        if not wanted.is_for_this_python:
            say(
                f"{tag} was built for Python {wanted.python} and runs on Kanaria's {OWN_PYTHON}, which has what "
                "it needs; KANARIA_RUNTIME=venv gives it its own environment"
            )
        return None
    environments = Environments(folder, listed=listed, sandbox=sandbox)
    found = environments.find(wanted)
    if found is None:
        say(f"{tag} gets its own environment: {reason}")
        found = environments.prepare(wanted, say=say)
    return found


def _why_its_own(wanted: Wanted, runtime: Runtime) -> str | None:
    if runtime == "venv":
        return "KANARIA_RUNTIME is `venv`"
    lack = _lack(wanted)
    return f"it needs {lack}" if lack else None


def _arguments(tag: str, port: int) -> list[str]:
    return ["serve", tag, *_address(port)]


def _address(port: int) -> list[str]:
    return ["--host", "127.0.0.1", PORT_OPTION, str(port)]


if __name__ == "__main__":
    main()
