"""The services in `examples/` that do not depend on Kanaria: how to build them, and a request for one of them."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT

EXAMPLES = ROOT / "examples"
PROGRAMS = Path(sys.executable).parent
TEXTS = ("the train is late today", "der zug ist heute spät", "le train est en retard", "el tren llega tarde hoy")


def build(home: Path, name: str, version: str, arguments: tuple[str, ...]) -> None:
    """Build `examples/NAME` into the store `home`, with these arguments of the Bento."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [PROGRAMS / "bentoml", "build", "--version", version, *(f"--arg={each}" for each in arguments)],
        cwd=EXAMPLES / name,
        env={**environment, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"},
        capture_output=True,
        check=True,
    )
