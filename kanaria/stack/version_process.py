"""The process of a version with an environment of its own: has it made where it is missing, then becomes its server.

So the keeper, the log and the end of such a version are those of any other, and whoever asks for it waits for nothing.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from kanaria.errors import SetupError, StackError
from kanaria.settings import Runtime, Settings
from kanaria.stack import model_server
from kanaria.stack.bentos import asked_for_by, service_of
from kanaria.stack.environments import Environments, python_in, variables_in
from kanaria.stack.inherited import INSTALLER, inherited
from kanaria.stack.python import own_module
from kanaria.stack.requirements import OWN_PYTHON, Wanted, missing, wanted_by

MODULE = "kanaria.stack.version_process"
PORT_OPTION = "--port"
LISTED_OPTION = "--listed"


def server_command(settings: Settings, tag: str, port: int) -> list[str]:
    """How a tag is served on a port: in this Python, or by a process that first sees to another one."""
    if settings.runtime == "shared" or (settings.runtime == "auto" and _has_all(tag)):
        return _in_own_python(tag, port)
    passed = (LISTED_OPTION, *settings.pass_env) if settings.pass_env else ()
    return own_module(MODULE, str(settings.environments), settings.runtime, tag, PORT_OPTION, str(port), *passed)


def variables_for(tag: str, command: Sequence[str], pass_env: Sequence[str]) -> tuple[str, ...]:
    """Which variables of the environment the `command` that serves a Bento gets besides the usual ones.

    Those of installers are there until its packages are: its server never has them.
    """
    return (*pass_env, *asked_for_by(tag), *(INSTALLER if MODULE in command else ()))


def _in_own_python(tag: str, port: int) -> list[str]:
    if sys.platform == "linux" and _keeps_contract(tag):  # elsewhere a process that has imported torch cannot fork
        return own_module(model_server.MODULE, tag, *_address(port))
    return own_module("bentoml", *_arguments(tag, port))


def _keeps_contract(tag: str) -> bool:
    try:
        return service_of(tag).keeps_contract
    except SetupError:  # BentoML will say what is wrong with it
        return False


def _has_all(tag: str) -> bool:
    """Whether this Python is the one that a Bento was built for, with all packages that it asks for."""
    try:
        wanted = wanted_by(tag)
        return wanted.is_for_this_python and _lack(wanted) is None
    except StackError:  # its process will say what is wrong, where words of a version are looked for
        return False


def _lack(wanted: Wanted) -> str | None:
    """What this Python lacks for a Bento. The contract's service is Kanaria's own, and so are its packages."""
    return None if service_of(wanted.tag).keeps_contract else missing(wanted)


def prepare(settings: Settings, tag: str, *, say: Callable[[str], None]) -> None:
    """Have the environment of `tag` made now, where it needs one of its own. Raises InstallError, StackError."""
    _environment(settings.environments, settings.runtime, tag, say, settings.pass_env)


def main() -> None:
    """Become the server."""
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
        help="variables that its server gets besides the usual ones",
    )
    given = parser.parse_args()
    own = {name: value for name, value in os.environ.items() if name.startswith("KANARIA_")}
    passed = own | inherited(os.environ, (*given.listed, *asked_for_by(given.tag)))
    try:
        environment = _environment(given.environments, given.runtime, given.tag, _print, given.listed)
    except StackError as error:
        print(f"{error}\n{type(error).__name__}: {error.what}: {error.saw}", flush=True)
        sys.exit(1)
    if environment is None:
        command, variables = _in_own_python(given.tag, given.port), passed
    else:
        # Its script and not `-m`, which before Python 3.11 looks for modules in the folder where it is started.
        python = str(python_in(environment))
        command = [python, str(environment / "bin" / "bentoml"), *_arguments(given.tag, given.port)]
        variables = variables_in(environment, passed)
    os.execve(command[0], command, variables)  # noqa: S606 - our own words, and no shell wanted


def _print(text: str) -> None:
    print(text, flush=True)


def _environment(
    folder: Path, runtime: Runtime, tag: str, say: Callable[[str], None], listed: Sequence[str]
) -> Path | None:
    """The environment that `tag` runs in; None: Kanaria's own Python."""
    if runtime == "shared":
        return None
    wanted = wanted_by(tag)
    reason = _why_its_own(wanted, runtime)
    if reason is None:
        if not wanted.is_for_this_python:
            say(
                f"{tag} was built for Python {wanted.python} and runs on Kanaria's, {OWN_PYTHON}, which has what "
                "it needs; KANARIA_RUNTIME=venv gives it an environment of its own"
            )
        return None
    environments = Environments(folder, listed=listed)
    found = environments.find(wanted)
    if found is None:
        say(f"{tag} gets an environment of its own: {reason}")
        found = environments.prepare(wanted, say=say)
    return found


def _why_its_own(wanted: Wanted, runtime: Runtime) -> str | None:
    if runtime == "venv":
        return "KANARIA_RUNTIME is `venv`"
    lack = _lack(wanted)
    return f"it asks for {lack}" if lack else None


def _arguments(tag: str, port: int) -> list[str]:
    return ["serve", tag, *_address(port)]


def _address(port: int) -> list[str]:
    return ["--host", "127.0.0.1", PORT_OPTION, str(port)]


if __name__ == "__main__":
    main()
