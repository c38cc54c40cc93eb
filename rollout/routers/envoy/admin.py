"""Envoy's admin, which may stop the gateway and read every key: a Unix socket that only its owner can open."""

import os
import tempfile
from pathlib import Path

from contract import loopback
from contract.polled import Polled
from rollout.routers.envoy.settings import GatewaySettings

_LONGEST_PATH = 100  # of a socket, bytes: macOS takes 103, Linux 107


def make_folder(settings: GatewaySettings) -> None:
    """Make the folder of the socket, for its owner alone. Raises OSError.

    Where the path would be too long for a socket, the folder is a link to one with a short path.
    """
    folder = settings.admin_folder
    if _is_own(folder):
        folder.chmod(0o700)
        return
    folder.unlink(missing_ok=True)  # a link to what a restart of the machine has removed
    if len(os.fsencode(folder.absolute() / settings.admin_socket.name)) <= _LONGEST_PATH:
        folder.mkdir(mode=0o700)
    else:
        folder.symlink_to(tempfile.mkdtemp(prefix="kanaria-"))


def client(settings: GatewaySettings, *, timeout_s: float) -> loopback.Client:
    """A client of the admin. It keeps no connection: the gateway may be restarted between two calls."""
    return loopback.client(
        settings.admin_url, timeout_s=timeout_s, keeps_connections=False, unix_socket=socket_of(settings)
    )


def polled(settings: GatewaySettings, *, timeout_s: float) -> Polled:
    """The admin, for who asks it all the time."""
    return Polled(settings.admin_url, timeout_s=timeout_s, unix_socket=socket_of(settings))


def socket_of(settings: GatewaySettings) -> Path | None:
    """The socket at which the admin answers; None where it has a port."""
    return None if settings.has_open_admin else settings.admin_socket


def _is_own(folder: Path) -> bool:
    """Whether it is a folder of this user, or a link to one."""
    return folder.is_dir() and folder.stat().st_uid == os.getuid()
