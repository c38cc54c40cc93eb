"""A file of the state folder whose entries have unique names. Only this user can read it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from contract.complaints import first_complaint
from contract.files import write_whole
from contract.plain_text import read_as
from kanaria.errors import SetupError
from kanaria.private_files import close_folder
from kanaria.stack.locks import locked

_WAIT_S = 30.0  # another command holds the lock until its change is in force


class Named(Protocol):
    """An entry with a name."""

    @property
    def name(self) -> str: ...


Entry = TypeVar("Entry", bound=Named)


class NamedFile(Generic[Entry]):
    """Reads and writes the entries of one file.

    Args:
        path: the file; a lock file is next to it.
        kind: the type of an entry, for pydantic.
        word: the name of an entry in messages; `kanaria WORD add` creates one.
        lost: end of the message if the file cannot be read: what holds until an entry is created again.
    """

    def __init__(self, path: Path, kind: type[Entry], *, word: str, lost: str = "") -> None:
        self._path, self._word, self._lost = path, word, lost
        self._is_held = False
        self._entries: TypeAdapter[tuple[Entry, ...]] = TypeAdapter(tuple[kind, ...])  # type: ignore[valid-type]

    def all(self) -> tuple[Entry, ...]:
        """Every entry, oldest first. Raises SetupError if the file cannot be read."""
        try:
            return self._entries.validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return ()
        except (OSError, ValidationError) as error:
            why = first_complaint(error, whole="the file") if isinstance(error, ValidationError) else error
            raise SetupError(
                f"the {self._word}s cannot be read",
                saw=f"{self._path}: {why}",
                do=f"remove that file and create the {self._word}s again with `kanaria {self._word} add`{self._lost}",
            ) from error

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Keep other processes from changing the entries while the block runs. Blocks may be nested.

        Raises: StackError after a wait for another process.
        """
        if self._is_held:
            yield
            return
        with locked(self._path.with_suffix(".lock"), doing=f"the {self._word}s", wait_s=_WAIT_S):
            self._is_held = True
            try:
                yield
            finally:
                self._is_held = False

    def add(self, entry: Entry) -> None:
        """Add an entry. Names that look the same count as equal. Raises SetupError, StackError, OSError."""
        with self.changing():
            known = self.all()
            if same := next((one.name for one in known if read_as(one.name) == read_as(entry.name)), None):
                raise SetupError(
                    f"{same} has a {self._word} already",
                    saw=str(self._path),
                    do=f"run `kanaria {self._word} remove {same}` first",
                )
            self._write((*known, entry))

    def remove(self, name: str) -> None:
        """Remove an entry. Raises SetupError, StackError, OSError."""
        with self.changing():
            known = self.all()
            names = [one.name for one in known]
            if name not in names:
                raise SetupError(
                    f"{name} has no {self._word}",
                    saw=f"{self._word}s: {', '.join(names) or 'none'}",
                    do="correct the name",
                )
            self._write(tuple(one for one in known if one.name != name))

    def _write(self, entries: tuple[Entry, ...]) -> None:
        close_folder(self._path.parent)
        content = json.dumps(self._entries.dump_python(entries, mode="json"), indent=1)
        write_whole(self._path, content, mode=0o600)
