"""A process that can start no more threads, as when its limit is reached."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_TOO_LARGE = 2**46  # bytes of a stack that does not fit into memory


@contextmanager
def no_more_threads() -> Iterator[None]:
    """Until the block ends, every attempt to start a thread raises Python's own error."""
    before = threading.stack_size(_TOO_LARGE)
    try:
        yield
    finally:
        threading.stack_size(before)
