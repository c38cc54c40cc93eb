"""Finds free ports on this machine."""

import os
import secrets
import socket
import tempfile
import time
from contextlib import suppress
from pathlib import Path

# Below the range that Linux and macOS use for outgoing connections, which could take a port before it is used.
_PORTS = range(15_000, 32_000)
_KEPT_S = 120.0  # a port is not given out again for this long: its server may still be starting


def free_port(ports: range = _PORTS) -> int:
    """One of `ports` on loopback that is free and was not given out in the last two minutes."""
    given = Path(tempfile.gettempdir(), f"kanaria-ports-{os.getuid()}")
    with suppress(OSError):
        given.mkdir(mode=0o700, exist_ok=True)
    while not (_is_first(given / str(port := secrets.choice(ports))) and is_free("127.0.0.1", port)):
        pass
    return port


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen on `port` of the address `host` now."""
    return obstacle(host, port) is None


def obstacle(host: str, port: int) -> OSError | None:
    """Why no server could listen on `port` of the address `host` now; None if one could."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return error
    return None


def _is_first(mark: Path) -> bool:
    """Mark a port as given out. False if another process marked it recently."""
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        with suppress(OSError):
            if abs(time.time() - mark.stat().st_mtime) < _KEPT_S:
                return False
            mark.touch()
    except OSError:  # a full disk or a foreign folder: the random choice alone keeps processes apart
        pass
    return True
