"""Ends a connection of uvicorn that sends headers, or trailers behind a body in chunks, without end, or none at all.

httptools, by which uvicorn parses, knows no limit: it keeps all of a field, and copies it with each part that comes.
h11, which uvicorn takes where there is no httptools, has one. A connection takes a file of the process: whoever opens
many and says nothing would take all of them. The standard library has to do: the server of a version loads this file
by its path, in a Python that may be older and have another `contract`.
"""

from __future__ import annotations

import math
import resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

LARGEST_FIELDS = 2**20  # bytes of a request before its body, between two parts of it, or behind it
_MOST_FILES = 2**20
HEAD_WITHIN_S = 10.0  # from the beginning of a connection, or of a request, until its headers are here
_BRINGS_IT_WITHIN_S = 1.0  # a client that connects because it has a request


def bounded_http() -> type[Any]:
    """The HTTP protocol that uvicorn would choose, bounded: what `uvicorn.Config` takes as `http`."""
    from uvicorn.protocols.http.auto import AutoHTTPProtocol  # noqa: PLC0415 - few who import this serve anything

    protocol: type[Any] = AutoHTTPProtocol
    return _bounded(_timed(protocol)) if hasattr(protocol, "on_message_begin") else _timed_h11(_timed(protocol))


def _timed(protocol: type[Any]) -> type[Any]:
    # Those whose headers are not here, the oldest first. The oldest ends when they take half of the process's files and
    # it had its time, and when they take three quarters and the loop could read what it had sent, as in a burst.
    waiting: dict[Any, asyncio.TimerHandle] = {}
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = (files if files > 0 else _MOST_FILES) // 2  # below 0: without a limit

    class Timed(protocol):  # type: ignore[misc] # a class that is chosen when uvicorn is imported
        """One connection."""

        _in_head, _read_at_s = True, math.inf

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait_for_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._in_head is not (self in waiting):
                self._wait_for_head() if self._in_head else self._has_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._has_head()
            super().connection_lost(exc)

        def _wait_for_head(self) -> None:
            self._read_at_s = math.inf
            waiting[self] = self.loop.call_later(HEAD_WITHIN_S, self._once_read, self._end_if_waiting)
            self._once_read(self._make_room)

        def _once_read(self, do: Callable[[], None]) -> None:
            """Do it when the loop has read what had come: it may have been busy, and takes some up in another order."""
            self.loop.call_soon(self.loop.call_soon, do)

        def _make_room(self) -> None:
            self._read_at_s = now_s = self.loop.time()
            while len(waiting) > most:
                oldest = next(iter(waiting))
                if now_s - oldest._read_at_s < (_BRINGS_IT_WITHIN_S if len(waiting) <= most * 3 // 2 else 0):  # noqa: SLF001 - another of its kind
                    return
                oldest._end_if_waiting()  # noqa: SLF001 - likewise

        def _end_if_waiting(self) -> None:
            if self in waiting:
                self._has_head()
                self.transport.abort()

        def _has_head(self) -> None:
            if (timer := waiting.pop(self, None)) is not None:
                timer.cancel()

    return Timed


def _bounded(protocol: type[Any]) -> type[Any]:
    class Bounded(protocol):  # type: ignore[misc] # likewise
        """One connection that httptools parses."""

        _of_fields, _has_body = 0, False

        def data_received(self, data: bytes) -> None:
            self._has_body = False
            super().data_received(data)
            self._of_fields = len(data) + (0 if self._has_body else self._of_fields)
            if self._of_fields > LARGEST_FIELDS:
                self.transport.abort()

        def on_message_begin(self) -> None:
            self._of_fields, self._in_head = 0, True
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._in_head = False
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._has_body = True
            super().on_body(body)

    return Bounded


def _timed_h11(protocol: type[Any]) -> type[Any]:
    import h11  # noqa: PLC0415 - only uvicorn needs it

    class TimedH11(protocol):  # type: ignore[misc] # likewise
        """One connection that h11 parses, which tells nothing by callbacks."""

        @property
        def _in_head(self) -> bool:
            is_between = self.conn.their_state is h11.IDLE
            return is_between and (self.cycle is None or bool(self.conn.trailing_data[0]))

    return TimedH11
