"""Has a version's port answer nobody but who has its secret, without a line in its code.

BentoML makes the socket and starts the workers, so that the one place where all of its versions can be met from outside
is Python's start: `sitecustomize.py` of the folder `port_guard`, as tracers do it.
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
    """What has a version's server ask for `secret` at `port`, as variables of its process.

    Args:
        processes: how many the version has.
    """
    others = os.environ.get(_PATHS, "")
    guard = {"port": port, "header": SECRET_HEADER, "secret": secret}
    paths = os.pathsep.join(filter(None, (_FOLDER, others)))
    return {sitecustomize.VARIABLE: json.dumps(guard), sitecustomize.PROCESSES: str(processes), _PATHS: paths}


def carried(variables: Mapping[str, str]) -> dict[str, str]:
    """What takes the guard of a server along into an environment without any other path of ours."""
    return {_PATHS: _FOLDER} if is_guarded(variables) else {}


def is_guarded(variables: Mapping[str, str]) -> bool:
    """Whether the process with these variables asks for a secret."""
    return sitecustomize.VARIABLE in variables
