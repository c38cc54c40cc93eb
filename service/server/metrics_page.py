"""GET /metrics: scraped every second, and rebuilt only after something was counted.

BentoML's own page passes through all of its middleware, and collects the counters of all workers twice per answer.
"""

import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from starlette.types import ASGIApp

from contract.threads import in_thread
from service.server.plain_get import Text, plain_get

_BLOCK = 4096  # bytes of a file that are read first; the first four say how many are used


class MetricsPage:
    """The counters of all workers of a server.

    Args:
        folder: the folder in which `prometheus_client` keeps them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._counted: Mapping[Path, bytes] | None = None  # the files when the page was built; None: not built yet
        self._text = Text(b"")

    @property
    def endpoint(self) -> ASGIApp:
        """The page as an ASGI app."""
        return plain_get(self.text)

    async def text(self) -> Text:
        """The current page."""
        counted = _read(self._folder)
        if counted != self._counted:
            text = await in_thread(partial(_put_together, self._folder))  # takes milliseconds; requests do not wait
            self._counted, self._text = counted, text
            return text
        return self._text


def _read(folder: Path) -> dict[Path, bytes]:
    """The used part of each file."""
    found = {}
    for path in folder.glob("*.db"):
        with suppress(FileNotFoundError), path.open("rb", buffering=0) as file:
            content = file.read(_BLOCK)
            used = int.from_bytes(content[:4], sys.byteorder)
            found[path] = content[:used] + file.read(max(0, used - len(content)))
    return found


def _put_together(folder: Path) -> Text:
    # prometheus_client decides on import whether it counts for several processes; see `metrics`.
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest  # noqa: PLC0415 - as above
    from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415 - as above

    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call] # it has no types
    return Text(generate_latest(registry), CONTENT_TYPE_LATEST)
