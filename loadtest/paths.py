"""The names of a load test's files and folders, for the Locust process and the process that starts it."""

import os
from datetime import UTC, datetime
from pathlib import Path

from contract.model_files import SAMPLES_FILE
from loadtest.errors import OutDirError

LIVE = "live.json"
SUMMARY = "summary.json"
REPORT = "report.html"
LOG = "locust.log"
SCENARIO = "scenario.json"


def home() -> Path:
    """The state folder: `$KANARIA_HOME`, else `.kanaria`."""
    return Path(os.environ.get("KANARIA_HOME", ".kanaria"))


def default_samples() -> Path:
    """`$KANARIA_SAMPLES`, else `samples.jsonl` in the home folder."""
    return Path(os.environ.get("KANARIA_SAMPLES") or home() / SAMPLES_FILE)


def new_out_dir(scenario_name: str) -> Path:
    """The default folder for the results of a run that starts now."""
    return home() / "loadtest" / f"{scenario_name}-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"


def make_out_dir(out_dir: Path) -> Path:
    """Create the folder of the results and remove those of an earlier run. Returns its absolute path.

    Raises: OutDirError.
    """
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        for old in (LIVE, SUMMARY, REPORT):
            (out_dir / old).unlink(missing_ok=True)
    except OSError as error:
        raise OutDirError(
            "the folder for the results cannot be used",
            saw=f"{out_dir}: {error.strerror}",
            do="name a folder that you can write to",
        ) from error
    return out_dir.absolute()
