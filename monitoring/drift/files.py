"""Writes what a drift report leaves behind: each file whole or not at all, and errors that name the folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from monitoring.drift.errors import NotWritten


def write_whole(path: Path, text: str) -> None:
    """Write a file so that no reader ever sees half of it, and a failure leaves the one before. Raises NotWritten."""
    written = path.with_name(f".{path.name}.new")
    with writing(path.parent):
        try:
            written.write_text(text)
            written.replace(path)
        except OSError:
            written.unlink(missing_ok=True)  # half a page takes room that a full disk has not
            raise


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Make the folder, and say what to do where nothing can be written in it. Raises NotWritten."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise NotWritten(
            f"the drift report cannot be written to {folder}",
            saw=str(error),
            do="free some space or make that folder writable, and report again; what lay in it is still there",
        ) from error
