"""How commands about releases reach the deployment of this machine."""

import getpass
import os
from functools import partial
from typing import TYPE_CHECKING

from contract.terminal import say
from kanaria.lazy import load
from kanaria.settings import Settings
from rollout.ledger.own_names import is_own_name
from rollout.ui.cli import Access

if TYPE_CHECKING:
    from kanaria.stack.versions import Versions
    from rollout.ui.client import Absence, ControllerClient


def access() -> Access:
    """Access with the current settings. Raises SetupError, ValidationError."""
    settings = Settings()
    return Access(
        client=lambda: _client(settings),
        ledger=settings.ledger,
        reports=settings.reports,
        ledger_copies=settings.ledger_backups,
        nobody_decides=lambda: load("kanaria.stack.controller_absence:nobody_decides")(settings.root),
        full_tag=lambda tag: _full_tag(settings, tag),
    )


def person() -> str:
    """The name of the person who types the command, for the ledger.

    In a container a user may have only a number.
    """
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # KeyError up to Python 3.12
        return f"user {os.getuid()}"
    return f"user {name}" if is_own_name(name) else name


def _full_tag(settings: Settings, tag: str) -> str:
    versions: Versions = load("kanaria.stack.versions:Versions")(settings.versions)  # slow: it imports YAML
    return versions.full_tag(tag)


def _client(settings: Settings) -> "ControllerClient":
    client: type[ControllerClient] = load("rollout.ui.client:ControllerClient")  # its HTTP library takes long to import
    tls = load("kanaria.stack.controller_trust:controller_trust")(settings)
    return client(
        settings.controller_url,
        token=settings.known_token,
        by=person(),
        tls=tls,
        comes=lambda: _has_keeper(settings),
        absence=lambda: _absence(settings),
        say=partial(say, err=True),
    )


def _absence(settings: Settings) -> "Absence | None":
    found: Absence | None = load("kanaria.stack.controller_absence:controller_absence")(settings.root)
    return found


def _has_keeper(settings: Settings) -> bool:
    """Whether a keeper, or a command in its place, starts what should run here."""
    return settings.is_up and bool(load("kanaria.stack.locks:has_keeper")(settings.root))
