"""Connections of the controller during the TLS handshake: each takes a slot, and has a deadline.

asyncio's servers report a connection only after its handshake: connections without a handshake would not be counted.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterable
from typing import Protocol

_HANDSHAKE_S = 10.0
_SHUTDOWN_S = 1.0  # for the client's close_notify


class Connection(Protocol):
    """A connection that takes a slot."""

    opened_s: float  # on the loop's clock
    transport: asyncio.Transport

    @property
    def has_token(self) -> bool:
        """Whether its last request had a valid token."""
        ...


class Handshake(asyncio.Protocol):
    """The protocol of one connection until its handshake is done.

    Args:
        context: the server's TLS context.
        http: the protocol after the handshake.
        connections: all connections that have a slot.
        make_room: called with the newest and all connections; ends one if there are too many.
    """

    has_token = False
    transport: asyncio.Transport
    opened_s: float

    def __init__(
        self,
        context: ssl.SSLContext,
        http: asyncio.Protocol,
        *,
        loop: asyncio.AbstractEventLoop,
        connections: set[Connection],
        make_room: Callable[[Connection, Iterable[Connection]], None],
    ) -> None:
        self._context, self._http, self._loop = context, http, loop
        self._connections, self._make_room = connections, make_room
        self._early: list[bytes] = []  # data that arrived between the handshake and HTTP
        self._task: asyncio.Task[None] | None = None  # kept here: the event loop has only weak references

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # of a connection
        self.transport, self.opened_s = transport, self._loop.time()
        transport.pause_reading()  # its first bytes belong to TLS
        self._connections.add(self)
        self._make_room(self, self._connections)
        self._task = self._loop.create_task(self._shake())

    def data_received(self, data: bytes) -> None:
        self._early.append(data)

    def shutdown(self) -> None:
        """Called when the server ends."""
        self.transport.abort()

    async def _shake(self) -> None:
        encrypted = None
        try:
            encrypted = await self._encrypted()
        finally:
            self._connections.discard(self)
            if encrypted is None:
                self.transport.abort()
        if encrypted is None or encrypted.is_closing():
            return
        encrypted.set_protocol(self._http)
        self._http.connection_made(encrypted)
        for data in self._early:
            self._http.data_received(data)

    async def _encrypted(self) -> asyncio.Transport | None:
        if self.transport.is_closing():
            return None
        try:
            return await self._loop.start_tls(
                self.transport,
                self,
                self._context,
                server_side=True,
                ssl_handshake_timeout=_HANDSHAKE_S,
                ssl_shutdown_timeout=_SHUTDOWN_S,
            )
        except OSError:  # also ssl.SSLError, and a handshake that took too long
            return None
