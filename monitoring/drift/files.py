"""Writes the files of a drift report: each file whole or not at all, with errors that name the folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contract import files
from monitoring.drift.errors import NotWritten


def write_whole(path: Path, text: str) -> None:
    """Write a file in one step; a failure leaves the previous file. Raises NotWritten."""
    with writing(path.parent):
        files.write_whole(path, text)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Create the folder, and turn a failure to write into NotWritten."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise NotWritten(
            f"the drift report cannot be written to {folder}",
            saw=str(error),
            do="free some space or make that folder writable, then run the report again; its earlier files are kept",
        ) from error
