"""GET /metrics: asked every second by whoever counts, and put together anew only when something was counted.

BentoML's own page lies behind all of its middleware, and collects the counters of all workers twice for each answer.
"""

import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from starlette.types import ASGIApp

from contract.threads import in_thread
from service.server.plain_get import Text, plain_get

_BLOCK = 4096  # bytes of a file that are read at first; its first four say how many are used


class MetricsPage:
    """The counters of all workers of a server.

    Args:
        folder: of the files in which `prometheus_client` keeps them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._counted: Mapping[Path, bytes] | None = None  # the files when the page was put together; None: it was not
        self._text = Text(b"")

    @property
    def endpoint(self) -> ASGIApp:
        """The page as an application."""
        return plain_get(self.text)

    async def text(self) -> Text:
        """The page as of now."""
        counted = _read(self._folder)
        if counted != self._counted:
            text = await in_thread(partial(_put_together, self._folder))  # it takes milliseconds; requests do not wait
            self._counted, self._text = counted, text
            return text
        return self._text


def _read(folder: Path) -> dict[Path, bytes]:
    """What is used of each file."""
    found = {}
    for path in folder.glob("*.db"):
        with suppress(FileNotFoundError), path.open("rb", buffering=0) as file:
            content = file.read(_BLOCK)
            used = int.from_bytes(content[:4], sys.byteorder)
            found[path] = content[:used] + file.read(max(0, used - len(content)))
    return found


def _put_together(folder: Path) -> Text:
    # It decides on import whether it works for several processes, see `metrics`.
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest  # noqa: PLC0415 - as above
    from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415 - as above

    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call] # it has no types
    return Text(generate_latest(registry), CONTENT_TYPE_LATEST)
