"""Write the files of a drift report: each file whole or not at all, with errors that name the folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contract import files
from monitoring.drift.errors import NotWritten


def write_whole(path: Path, text: str) -> None:
    """Write a file so that no reader sees half of it; a failure leaves the previous file. Raises NotWritten."""
    with writing(path.parent):
        files.write_whole(path, text)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Create the folder, and explain a failure to write in it. Raises NotWritten."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise NotWritten(
            f"the drift report cannot be written to {folder}",
            saw=str(error),
            do="free some space or make that folder writable, and report again; its earlier files are still there",
        ) from error
