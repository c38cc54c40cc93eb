"""Closes a uvicorn connection that sends endless headers, endless trailers after a chunked body, or nothing.

httptools, which uvicorn uses as its parser, has no limit: it keeps a whole field and copies it with each part that
arrives. h11, which uvicorn uses if httptools is not installed, has a limit. Each connection uses a file descriptor: a
client that opens many silent connections would use all of them. This module uses only the standard library: the server
of a version loads this file by its path, in a Python that may be older and have another `contract`.
"""

from __future__ import annotations

import math
import resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

LARGEST_FIELDS = 2**20  # bytes of a request before its body, between two parts of the body, or after it
_MOST_FILES = 2**20  # used if the process has no limit of open files
HEAD_WITHIN_S = 10.0  # from the start of a connection, or of a request, until its headers are complete
_BRINGS_IT_WITHIN_S = 1.0  # a client that connects to send a request has sent it by then


def bounded_http() -> type[Any]:
    """The HTTP protocol that uvicorn would choose, with limits. Pass it to `uvicorn.Config` as `http`."""
    from uvicorn.protocols.http.auto import AutoHTTPProtocol  # noqa: PLC0415 - few importers of this module serve HTTP

    protocol: type[Any] = AutoHTTPProtocol
    return _bounded(_timed(protocol)) if hasattr(protocol, "on_message_begin") else _timed_h11(_timed(protocol))


def _timed(protocol: type[Any]) -> type[Any]:
    # Connections whose headers are not complete, oldest first. If they use half of the process's files, the oldest is
    # closed once it has had `_BRINGS_IT_WITHIN_S`. If they use three quarters, as in a burst, it is closed as soon as
    # the loop has read what it had sent.
    waiting: dict[Any, asyncio.TimerHandle] = {}
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = (files if files > 0 else _MOST_FILES) // 2  # below 0: no limit

    class Timed(protocol):  # type: ignore[misc] # the base class is chosen when uvicorn is imported
        """One connection whose headers must be complete in time."""

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
            """Call `do` after the loop has read the data that had arrived.

            The loop may have been busy, and it does not handle connections in order. So it takes two more turns.
            """
            self.loop.call_soon(self.loop.call_soon, do)

        def _make_room(self) -> None:
            self._read_at_s = now_s = self.loop.time()
            while len(waiting) > most:
                oldest = next(iter(waiting))
                if now_s - oldest._read_at_s < (_BRINGS_IT_WITHIN_S if len(waiting) <= most * 3 // 2 else 0):  # noqa: SLF001 - same class
                    return
                oldest._end_if_waiting()  # noqa: SLF001 - same class

        def _end_if_waiting(self) -> None:
            if self in waiting:
                self._has_head()
                self.transport.abort()

        def _has_head(self) -> None:
            if (timer := waiting.pop(self, None)) is not None:
                timer.cancel()

    return Timed


def _bounded(protocol: type[Any]) -> type[Any]:
    class Bounded(protocol):  # type: ignore[misc] # as in `_timed`
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

    class TimedH11(protocol):  # type: ignore[misc] # as in `_timed`
        """One connection that h11 parses. h11 has no callbacks, so its state is read instead."""

        @property
        def _in_head(self) -> bool:
            is_between = self.conn.their_state is h11.IDLE
            return is_between and (self.cycle is None or bool(self.conn.trailing_data[0]))

    return TimedH11
