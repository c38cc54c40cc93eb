"""All versions of a state folder: passes each call to the fleet that runs the version."""

from kanaria.stack.fleet import LocalFleet
from kanaria.stack.remote_fleet import RemoteFleet
from kanaria.stack.versions import Versions
from rollout.fleet import Service, VersionStatus


class AnyFleet:
    """The `Fleet` of local processes and URLs. A running version stays in the fleet that started it."""

    def __init__(self, local: LocalFleet, remote: RemoteFleet, versions: Versions) -> None:
        self._local, self._remote, self._versions = local, remote, versions

    def known_tags(self) -> tuple[str, ...]:
        return self._versions.tags()

    def service(self, tag: str) -> Service:
        return self._of(tag).service(tag)

    def start(self, tag: str) -> None:
        is_remote = self._remote.has(tag) or (
            tag not in self._local.running()
            and (listed := self._versions.listed(tag)) is not None
            and listed.url is not None
        )
        (self._remote if is_remote else self._local).start(tag)

    def status(self, tag: str) -> VersionStatus:
        return self._of(tag).status(tag)

    def stop(self, tag: str) -> None:
        self._of(tag).stop(tag)

    def suspend(self, tag: str) -> bool:
        return self._of(tag).suspend(tag)

    def running(self) -> tuple[str, ...]:
        return tuple(sorted((*self._local.running(), *self._remote.running())))

    def process_of(self, tag: str) -> int | None:
        """The pid of a version's main process; None if it does not run here."""
        return self._local.process_of(tag)

    def _of(self, tag: str) -> LocalFleet | RemoteFleet:
        return self._remote if self._remote.has(tag) else self._local
