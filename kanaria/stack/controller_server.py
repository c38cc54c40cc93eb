"""Serves the controller: with TLS if it has a certificate, and with a limited number of connections.

A connection uses a file descriptor, and the process needs some for the ledger. When all slots are taken, a new
connection takes the slot of the oldest one, so a client with many connections does not keep others out. A command
with a token keeps its slot until it is answered.
"""

import asyncio
import ssl
from collections.abc import Iterable
from functools import partial
from typing import Any

import uvicorn
from starlette.applications import Starlette

from contract.bounded_http import bounded_http
from kanaria.settings import Settings
from kanaria.stack.handshakes import Connection, Handshake
from rollout.ui.admission import IS_LET_IN

_MOST_CONNECTIONS = 256
_FIRST_REQUEST_S = 10.0  # for the headers of the first request
_OLDEST_S = 120.0  # after this a connection ends with its current request
_GRACE_S = 60.0  # for that request


class Bounded(bounded_http()):  # type: ignore[misc] # a class that is chosen when uvicorn is imported
    """One connection with deadlines."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._ends: list[asyncio.TimerHandle] = []
        self.opened_s = self.loop.time()
        _make_room(self, self.connections)
        if transport.is_closing():
            return
        for after_s, end in (
            (_FIRST_REQUEST_S, self._end_if_silent),
            (_OLDEST_S, self.shutdown),
            (_OLDEST_S + _GRACE_S, transport.abort),
        ):
            self._ends.append(self.loop.call_later(after_s, end))

    def connection_lost(self, exc: Exception | None) -> None:
        for end in self._ends:
            end.cancel()
        super().connection_lost(exc)

    @property
    def has_token(self) -> bool:
        """Whether its last request had a valid token."""
        return self.scope is not None and bool(self.scope["state"].get(IS_LET_IN))

    def _end_if_silent(self) -> None:
        if self.cycle is None:
            self.transport.close()


def served(app: Starlette, settings: Settings) -> tuple[uvicorn.Config, ssl.SSLContext | None]:
    """The server's configuration, and its TLS context; None: it speaks plain HTTP."""
    context = None
    if settings.controller_tls_certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings.controller_certificate, settings.controller_key)
    config = uvicorn.Config(
        app,
        host=settings.controller_host,
        port=settings.controller_port,
        http=partial(_encrypted, context) if context else Bounded,  # type: ignore[arg-type] # it is only called
        loop="asyncio" if context else "auto",  # uvloop goes on reading although a new connection pauses it
        log_level="warning",
        access_log=False,
    )
    config.load()
    return config, context


def _encrypted(context: ssl.SSLContext, **of_server: Any) -> Handshake:
    """The protocol of a new connection with TLS: the handshake, then HTTP."""
    http = Bounded(**of_server)
    return Handshake(context, http, loop=http.loop, connections=http.connections, make_room=_make_room)


def _make_room(newest: Connection, connections: Iterable[Connection]) -> None:
    """If there are too many connections, end the oldest without a token; if all have one, the newest."""
    kept = [one for one in connections if not one.transport.is_closing()]
    if len(kept) > _MOST_CONNECTIONS:
        spared = (one for one in kept if one is not newest and not one.has_token)
        min(spared, key=lambda one: one.opened_s, default=newest).transport.abort()
