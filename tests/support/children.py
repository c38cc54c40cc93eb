"""Processes that a test starts, and their children."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psutil


@contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process that ends with the block, together with its children.

    `Popen` alone would wait for it forever if a test fails.
    """
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            theirs = []
            with suppress(psutil.NoSuchProcess):
                theirs = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            for child in theirs:
                with suppress(psutil.NoSuchProcess):
                    child.kill()


def children_with(word: str, *, of: int | None = None) -> list[psutil.Process]:
    """The living descendants of a process (by default this one) that have `word` in their command line."""
    found = []
    for child in psutil.Process(of).children(recursive=True):
        with suppress(psutil.Error):  # it ended meanwhile
            if word in child.cmdline():
                found.append(child)
    return found
