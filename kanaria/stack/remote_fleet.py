"""Versions at a URL, which Kanaria does not run. Start and stop only record the use; health comes from probes."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from contract.files import write_whole
from contract.known_files import KnownFiles, Notes
from kanaria.errors import SetupError
from kanaria.stack.bentos import process_name
from kanaria.stack.probes import Probes
from kanaria.stack.shortage import text_of
from kanaria.stack.supervision import names_in
from kanaria.stack.versions import Versions
from rollout.fleet import Backend, Health, Service, VersionStatus


class _Record(BaseModel):
    """The record of a version in use: its entry when it was started."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    backend: Backend
    service: Service
    was_ready: bool = False
    is_guarded: bool = False  # whether it checks the secret of versions' ports


class RemoteFleet:
    """The `Fleet` of versions at a URL.

    Args:
        folder: stores a record of each version in use, by which a new controller finds it.
        versions: the known versions.
        on_change: called with all versions in use when one is added or removed.
        secret: sent to versions that check one; empty: none.
    """

    def __init__(
        self,
        folder: Path,
        versions: Versions,
        *,
        on_change: Callable[[tuple[Backend, ...]], None],
        secret: str = "",
    ) -> None:
        self._folder, self._versions, self._on_change, self._secret = folder, versions, on_change, secret
        self._probes = Probes()
        self._notes = Notes(folder)
        self._known_names, self._known_records = KnownFiles(names_in), KnownFiles(_read)

    def known_tags(self) -> tuple[str, ...]:
        return self._versions.tags()

    def has(self, tag: str) -> bool:
        """Whether the version is in use."""
        return self._notes[process_name(tag)].exists()

    def service(self, tag: str) -> Service:
        record = self._record(tag)
        return record.service if record else self._versions.service(tag)

    def start(self, tag: str) -> None:
        if self.has(tag):
            return
        listed = self._versions.listed(tag)
        if listed is None:
            raise SetupError(f"{tag} has no URL", saw="it is not listed", do="list it in KANARIA_VERSIONS")
        self._write(_Record(backend=listed.backend(tag), service=listed.service, is_guarded=listed.secret))
        self._on_change(self.backends())

    def status(self, tag: str) -> VersionStatus:
        record = self._record(tag)
        if record is None:
            return VersionStatus(Health.ABSENT)
        backend = self._backend(record)
        trouble = self._probes.trouble(backend, record.service.readiness, 0)
        if not trouble and not record.was_ready:
            with suppress(OSError):  # a full disk: the next call tries again
                self._write(record.model_copy(update={"was_ready": True}))
        health = Health.UNREADY if record.was_ready else Health.STARTING
        return VersionStatus(health if trouble else Health.READY, (backend,), detail=trouble)

    def stop(self, tag: str) -> None:
        record = self._record(tag)
        if not self.has(tag):
            return
        self._notes[process_name(tag)].unlink(missing_ok=True)
        if record is not None:
            self._probes.forget(record.backend)
        self._on_change(self.backends())

    def suspend(self, _tag: str) -> bool:
        return False  # Kanaria does not run it

    def running(self) -> tuple[str, ...]:
        return tuple(sorted(backend.tag for backend in self.backends()))

    def backends(self) -> tuple[Backend, ...]:
        """The addresses of the versions in use."""
        records = (self._known_records.at(self._notes[name]) for name in self._known_names.at(self._folder))
        return tuple(self._backend(record) for record in records if record)

    def _backend(self, record: _Record) -> Backend:
        return replace(record.backend, secret=self._secret if record.is_guarded else "")

    def _record(self, tag: str) -> _Record | None:
        return self._known_records.at(self._notes[process_name(tag)])

    def _write(self, record: _Record) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        write_whole(self._notes[process_name(record.backend.tag)], record.model_dump_json())


def _read(path: Path) -> _Record | None:
    """The record in a file; None if it cannot be read. Raises OSError if this machine is out of file descriptors."""
    try:
        return _Record.model_validate_json(text_of(path) or b"")
    except ValidationError:
        return None
