"""Makes a version's port answer only callers with its secret, without a change in the version's code.

BentoML creates the socket and starts the workers, so the only hook that works for all of its versions is Python's
start: `sitecustomize.py` in the folder `port_guard`, as tracers do it.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from contract.http import SECRET_HEADER
from kanaria.stack.port_guard import sitecustomize

_FOLDER = str(Path(sitecustomize.__file__).parent.absolute())
_PATHS = "PYTHONPATH"


def guarding(port: int, secret: str, *, processes: int = 1) -> dict[str, str]:
    """The variables that make a version's server check `secret` at `port`.

    Args:
        processes: number of processes of the version.
    """
    others = os.environ.get(_PATHS, "")
    guard = {"port": port, "header": SECRET_HEADER, "secret": secret}
    paths = os.pathsep.join(filter(None, (_FOLDER, others)))
    return {sitecustomize.VARIABLE: json.dumps(guard), sitecustomize.PROCESSES: str(processes), _PATHS: paths}


def carried(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables that keep the guard in a version's own environment, without other paths of ours."""
    return {_PATHS: _FOLDER} if is_guarded(variables) else {}


def is_guarded(variables: Mapping[str, str]) -> bool:
    """Whether a process with these variables checks a secret."""
    return sitecustomize.VARIABLE in variables
