"""Ports of this machine."""

import secrets
import socket

# Below what Linux and macOS give to connections that go out: one of those could take the port before it is used.
_PORTS = range(15_000, 32_000)


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    while not is_free("127.0.0.1", port := secrets.choice(_PORTS)):
        pass
    return port


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen on `port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
