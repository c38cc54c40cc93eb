"""A small WebSocket client (RFC 6455) that sends short texts."""

import base64
import os
import socket
from collections.abc import Mapping
from types import MappingProxyType
from typing import Self

_NONE: Mapping[str, str] = MappingProxyType({})


class WebSocket:
    """One open connection."""

    def __init__(self, port: int, path: str, headers: Mapping[str, str] = _NONE) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=60)
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        key = base64.b64encode(os.urandom(16)).decode()
        self._connection.sendall(
            f"GET {path} HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            f"sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n{more}\r\n".encode()
        )
        self._file = self._connection.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        self.headers = {}
        while line := self._file.readline().strip():
            name, _, value = line.decode().partition(":")
            self.headers[name.lower()] = value.strip()

    def ask(self, text: str) -> str:
        """Send a text of at most 125 bytes and return the next one that arrives."""
        mask, sent = os.urandom(4), text.encode()
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(sent))
        self._connection.sendall(bytes([0x81, 0x80 | len(sent)]) + mask + masked)
        kind, length = self._file.read(2)
        assert kind == 0x81, kind
        return self._file.read(length).decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._connection.close()
