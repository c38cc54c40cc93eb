"""A client that sends an endless request."""

import socket
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType

import httpx

MOST = 64 * 2**20  # bytes after which the client gives up; the kernel's buffers hold some of them
_HEAD = b"POST /x HTTP/1.1\r\nhost: localhost\r\n"
_CHUNKED = _HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n"
# By the part that never ends: how the request starts, and what it repeats.
ENDLESS: Mapping[str, tuple[bytes, bytes]] = MappingProxyType(
    {
        "header value": (_HEAD + b"x: ", b"a"),
        "header name": (_HEAD, b"a"),
        "headers": (_HEAD, b"x: y\r\n"),
        "trailer value": (_CHUNKED + b"0\r\nx: ", b"a"),
        "trailer name": (_CHUNKED + b"0\r\n", b"a"),
        "trailers": (_CHUNKED + b"0\r\n", b"x: y\r\n"),
        "chunk extension": (_CHUNKED + b"1;x=", b"a"),
        "extension of the last chunk": (_CHUNKED + b"0;x=", b"a"),
        "chunk size": (_CHUNKED, b"0"),
    }
)


def accepted_bytes(url: str, endless: str) -> int:
    """The number of bytes that the server at `url` accepted before it closed the connection; at most about `MOST`."""
    asked, (begin, part) = httpx.URL(url), ENDLESS[endless]
    many, sent = part * (65536 // len(part)), 0
    with socket.create_connection((asked.host, asked.port), timeout=60) as client, suppress(OSError):
        client.sendall(begin)
        while sent < MOST:
            sent += client.send(many)
    return sent
