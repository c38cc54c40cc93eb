"""Envoy's admin interface. It can stop the gateway and read every key, so it is a Unix socket only for its owner."""

import os
import tempfile
from pathlib import Path

from contract import loopback
from contract.polled import Polled
from rollout.routers.envoy.settings import GatewaySettings

_LONGEST_PATH = 100  # of a socket, bytes: the limit is 103 on macOS and 107 on Linux


def make_folder(settings: GatewaySettings) -> None:
    """Make the socket's folder, accessible only to its owner. Raises OSError.

    If the path would be too long for a socket, the folder is a link to a folder with a short path.
    """
    folder = settings.admin_folder
    if _is_own(folder):
        folder.chmod(0o700)
        return
    folder.unlink(missing_ok=True)  # a link whose target was removed by a restart of the machine
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
    """A client of the admin for frequent requests."""
    return Polled(settings.admin_url, timeout_s=timeout_s, unix_socket=socket_of(settings))


def socket_of(settings: GatewaySettings) -> Path | None:
    """The admin's socket; None if the admin has a port."""
    return None if settings.has_open_admin else settings.admin_socket


def _is_own(folder: Path) -> bool:
    """Whether `folder` belongs to this user, or is a link to such a folder."""
    return folder.is_dir() and folder.stat().st_uid == os.getuid()
