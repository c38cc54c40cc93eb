"""Ends a connection of uvicorn that sends headers, or trailers behind a body in chunks, without end, or none at all.

httptools, by which uvicorn parses, knows no limit: it keeps all of a field, and copies it with each part that comes.
h11, which uvicorn takes where there is no httptools, has one. A connection takes a file of the process: whoever opens
many and says nothing would take all of them. The standard library has to do: the server of a version loads this file
by its path, in a Python that may be older and have another `contract`.
"""

from __future__ import annotations

import resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from typing import Any

LARGEST_FIELDS = 2**20  # bytes of a request before its body, between two parts of it, or behind it
_MOST_FILES = 2**20
HEAD_WITHIN_S = 10.0  # from the beginning of a connection, or of a request, until its headers are here


def bounded_http() -> type[Any]:
    """The HTTP protocol that uvicorn would choose, bounded: what `uvicorn.Config` takes as `http`."""
    from uvicorn.protocols.http.auto import AutoHTTPProtocol  # noqa: PLC0415 - few who import this serve anything

    protocol: type[Any] = AutoHTTPProtocol
    return _bounded(protocol) if hasattr(protocol, "on_message_begin") else protocol  # h11 is not told by callbacks


def _bounded(protocol: type[Any]) -> type[Any]:
    # Those whose headers are not here, the oldest first. When they take half of the process's files, the oldest ends.
    waiting: dict[Any, asyncio.TimerHandle] = {}
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = (files if files > 0 else _MOST_FILES) // 2  # below 0: without a limit

    class Bounded(protocol):  # type: ignore[misc] # a class that is chosen when uvicorn is imported
        """One connection."""

        _of_fields, _has_body, _in_head = 0, False, True

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait_for_head()

        def data_received(self, data: bytes) -> None:
            self._has_body = False
            super().data_received(data)
            self._of_fields = len(data) + (0 if self._has_body else self._of_fields)
            if self._of_fields > LARGEST_FIELDS:
                self.transport.abort()
            if self._in_head is not (self in waiting):
                self._wait_for_head() if self._in_head else self._has_head()

        def on_message_begin(self) -> None:
            self._of_fields, self._in_head = 0, True
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._in_head = False
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._has_body = True
            super().on_body(body)

        def connection_lost(self, exc: Exception | None) -> None:
            self._has_head()
            super().connection_lost(exc)

        def _wait_for_head(self) -> None:
            waiting[self] = self.loop.call_later(HEAD_WITHIN_S, self.transport.abort)
            if len(waiting) > most:
                oldest = next(iter(waiting))
                oldest.transport.abort()
                oldest._has_head()  # noqa: SLF001 - another of its kind

        def _has_head(self) -> None:
            if (timer := waiting.pop(self, None)) is not None:
                timer.cancel()

    return Bounded
