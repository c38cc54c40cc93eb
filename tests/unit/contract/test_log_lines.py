"""The log of the stack's processes, also when it goes to a device that is always full."""

import json
import subprocess
import sys
from pathlib import Path

from tests.support.absence import leave_out

PROGRAM = """
import sys, structlog
from contract.log_lines import log_as_json
log_as_json()
log = structlog.get_logger()
for _ in range(3):
    log.warning("beat_failed", error="\\udc80 no room")
sys.stderr.write("went on")
"""


def test_a_full_disk_loses_log_lines_but_not_the_process() -> None:
    """A process whose log lines cannot be written goes on."""
    full = Path("/dev/full")
    if not full.exists():
        leave_out("this system has no /dev/full")
    with full.open("wb") as output:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], stdout=output, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (0, "went on")


def test_each_line_is_json() -> None:
    """A line with bytes that are not valid text is JSON too."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["event"] for line in lines] == ["beat_failed"] * 3
