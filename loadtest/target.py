"""Where a load test may send requests, and with which API key."""

import ipaddress
import os
from pathlib import Path
from urllib.parse import urlsplit

from loadtest.errors import TargetError

API_KEY_VARIABLE = "KANARIA_API_KEY"


def check_host(host: str | None, *, allow_remote: bool) -> str:
    """Return `host` as a base URL.

    Raises: TargetError if it is not an http(s) URL, or is another machine and `allow_remote` is False.
    """
    try:
        parts = urlsplit(host or "")
        name, _ = parts.hostname, parts.port  # reading a port that is not a number raises ValueError
    except ValueError:
        name = None
    if host is None or name is None or parts.scheme not in {"http", "https"}:
        raise TargetError("the host is not a URL", saw=repr(host), do="give --host http://127.0.0.1:8080")
    if not allow_remote and not _is_loopback(name):
        raise TargetError(
            "the host is another machine; by default load tests stay on this one",
            saw=host,
            do="give a loopback address, or add --allow-remote if its owner has agreed to the load",
        )
    return host.rstrip("/")


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def read_api_key(file: Path | None) -> str | None:
    """The API key: the first line of `file`, else the variable KANARIA_API_KEY, else None (send none).

    Raises: TargetError if `file` cannot be read or is empty.
    """
    if file is None:
        return os.environ.get(API_KEY_VARIABLE) or None
    try:
        key = file.read_text("utf-8").strip().partition("\n")[0].rstrip()
    except (OSError, UnicodeDecodeError) as error:
        raise TargetError(
            "the API key file cannot be read", saw=f"{file}: {error}", do="give --api-key-file a text file"
        ) from error
    if not key:
        raise TargetError("the API key file is empty", saw=str(file), do="write the key on its first line")
    return key
