"""Wait for a condition, with a deadline that also holds on a machine busy with other tests."""

import time
from collections.abc import Callable


def eventually(claim: Callable[[], object], *, within_s: float = 60.0) -> None:
    """Poll until `claim()` is true; fail with the last value that it returned."""
    deadline = time.monotonic() + within_s
    while not (seen := claim()):
        assert time.monotonic() < deadline, f"still {seen!r} after {within_s} s"
        time.sleep(0.02)
