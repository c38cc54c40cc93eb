"""A system that gives this process no more threads, as where its limit of them is reached."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_TOO_LARGE = 2**46  # bytes of a stack, for which there is no room


@contextmanager
def no_more_threads() -> Iterator[None]:
    """Until the block ends, Python's own error is raised for each that is started."""
    before = threading.stack_size(_TOO_LARGE)
    try:
        yield
    finally:
        threading.stack_size(before)
