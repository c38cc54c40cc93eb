"""A process that can open no more files, as after a leak or on a machine that has none left."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_file_to_open() -> Iterator[None]:
    """Until the block ends, every attempt of this process to open a file fails with EMFILE."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
