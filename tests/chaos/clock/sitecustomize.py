"""Shifts the wall clock of every Python process that starts with this folder on its path; a file says how far.

`time.monotonic` is not shifted, as on a real machine. libfaketime cannot be used: with it, `sleep` fails in Python.
"""

import os
import time
from pathlib import Path

_real = time.time
_shift = Path(os.environ.get("CHAOS_CLOCK", "no-clock"))  # this file contains the seconds to add


def _shifted() -> float:
    try:
        return _real() + float(_shift.read_text())
    except (OSError, ValueError):
        return _real()


time.time = _shifted
time.time_ns = lambda: int(_shifted() * 1e9)
