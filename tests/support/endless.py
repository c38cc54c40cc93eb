"""Clients that send one endless request."""

import socket
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType

import httpx

MOST = 64 * 2**20  # the clients give up after this many; the kernel's own buffers hold some of it
_HEAD = b"POST /x HTTP/1.1\r\nhost: localhost\r\n"
_CHUNKED = _HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n"
# How each request starts, and what it repeats.
ENDLESS: Mapping[str, tuple[bytes, bytes]] = MappingProxyType(
    {
        "a value of a header": (_HEAD + b"x: ", b"a"),
        "a name of a header": (_HEAD, b"a"),
        "headers": (_HEAD, b"x: y\r\n"),
        "a value of a trailer": (_CHUNKED + b"0\r\nx: ", b"a"),
        "a name of a trailer": (_CHUNKED + b"0\r\n", b"a"),
        "trailers": (_CHUNKED + b"0\r\n", b"x: y\r\n"),
        "an extension of a chunk": (_CHUNKED + b"1;x=", b"a"),
        "an extension of the last chunk": (_CHUNKED + b"0;x=", b"a"),
        "the size of a chunk": (_CHUNKED, b"0"),
    }
)


def taken(url: str, endless: str) -> int:
    """How many bytes the server at `url` accepted before it closed the connection; at most about `MOST`."""
    asked, (begin, part) = httpx.URL(url), ENDLESS[endless]
    many, sent = part * (65536 // len(part)), 0
    with socket.create_connection((asked.host, asked.port), timeout=60) as client, suppress(OSError):
        client.sendall(begin)
        while sent < MOST:
            sent += client.send(many)
    return sent
