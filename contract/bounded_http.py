"""Ends a connection of uvicorn that sends headers, or trailers behind a body in chunks, without end.

httptools, by which uvicorn parses, knows no limit: it keeps all of a field, and copies it with each part that comes.
h11, which uvicorn takes where there is no httptools, has one. The standard library has to do: the server of a version
loads this file by its path, in a Python that may be older and have another `contract`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LARGEST_FIELDS = 2**20  # bytes of a request before its body, between two parts of it, or behind it


def bounded_http() -> type[Any]:
    """The HTTP protocol that uvicorn would choose, bounded: what `uvicorn.Config` takes as `http`."""
    from uvicorn.protocols.http.auto import AutoHTTPProtocol  # noqa: PLC0415 - few who import this serve anything

    protocol: type[Any] = AutoHTTPProtocol
    return _bounded(protocol) if hasattr(protocol, "on_message_begin") else protocol  # h11 is not told by callbacks


def _bounded(protocol: type[Any]) -> type[Any]:
    class Bounded(protocol):  # type: ignore[misc] # a class that is chosen when uvicorn is imported
        """One connection."""

        _of_fields, _has_body = 0, False

        def data_received(self, data: bytes) -> None:
            self._has_body = False
            super().data_received(data)
            self._of_fields = len(data) + (0 if self._has_body else self._of_fields)
            if self._of_fields > LARGEST_FIELDS:
                self.transport.abort()

        def on_message_begin(self) -> None:
            self._of_fields = 0
            super().on_message_begin()

        def on_body(self, body: bytes) -> None:
            self._has_body = True
            super().on_body(body)

    return Bounded
