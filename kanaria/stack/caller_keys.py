"""The keys of the gateway's callers: the owner's key, and named keys with scopes."""

import re
import secrets
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from contract.http import OWN_CALLER
from contract.plain_text import one_line
from kanaria.errors import SetupError
from kanaria.settings import API_KEY_FILE, Settings
from kanaria.stack.named_file import NamedFile
from rollout.routers.envoy import keys
from rollout.routers.envoy.settings import ApiKey, GatewaySettings, Scope

MOST_KEYS = 200  # metrics by key must stay bounded
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")  # valid in headers and in metric names
_WAIT_S = 5.0


class CallerKey(BaseModel):
    """A key as stored: in clear text, because the gateway compares the keys themselves."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = Field(pattern=rf"^{_NAME.pattern}$")
    scopes: tuple[Scope, ...] = Field(min_length=1)
    labels: str | None = None  # name of the key whose answers it labels; None: its own
    key: str = Field(min_length=1)
    made_s: float  # Unix seconds


class CallerKeys:
    """The named keys of one state folder. The owner's key is not among them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lost = "; until the first of them a running gateway accepts the old ones"
        self._file = NamedFile(path, CallerKey, word="key", lost=lost)

    def all(self) -> tuple[CallerKey, ...]:
        """Every key, oldest first. Raises SetupError if the file cannot be read."""
        return self._file.all()

    def changing(self) -> AbstractContextManager[None]:
        """Keep other processes from changing the keys while the block runs.

        A command that writes the keys for the gateway reads and writes them in one such block. Otherwise, of two
        commands at once, the one that read first could write last, and a withdrawn key would open the gateway again.

        Raises: StackError after a wait for another process.
        """
        return self._file.changing()

    def add(self, name: str, scopes: tuple[Scope, ...], *, labels: str | None = None) -> str:
        """Create a key. Returns its secret.

        Args:
            labels: the name of the key whose answers it labels; None: its own.

        Raises: SetupError, StackError, OSError.
        """
        if not _NAME.fullmatch(name) or name == OWN_CALLER:
            raise SetupError(
                "this name is not allowed for a key",
                saw=repr(name),
                do="use at most 40 characters of `a-z 0-9 _ -`, begin with a letter or digit, and do not use "
                f"`{OWN_CALLER}`, the name of the key in {API_KEY_FILE}",
            )
        with self.changing():
            known = self.all()
            if len(known) >= MOST_KEYS:
                raise SetupError(
                    "there are too many keys",
                    saw=f"{MOST_KEYS} in {self._path}",
                    do="remove some: `kanaria key remove`",
                )
            names = [OWN_CALLER, name, *(one.name for one in known)]
            if labels is not None and (labels not in names or "feedback" not in scopes):
                raise SetupError(
                    "this key cannot label those answers",
                    saw=f"answers of {labels}, scope {', '.join(scopes)}",
                    do=f"give the scope feedback, and one of the keys {', '.join(names)}",
                )
            key = secrets.token_urlsafe(32)
            self._file.add(CallerKey(name=name, scopes=scopes, labels=labels, key=key, made_s=time.time()))
            return key

    def remove(self, name: str) -> None:
        """Remove a key. Raises SetupError, StackError, OSError."""
        if name == OWN_CALLER:
            raise SetupError(
                "the owner's key cannot be withdrawn while the stack runs",
                saw=f"`{OWN_CALLER}` is the key in {API_KEY_FILE}",
                do=f"`kanaria down`, remove the file {API_KEY_FILE} of the state folder, `kanaria up`",
            )
        self._file.remove(name)


def accepted(settings: Settings) -> tuple[ApiKey, ...]:
    """All keys that the gateway accepts if it requires keys. Raises SetupError."""
    named = CallerKeys(settings.caller_keys).all()
    return ApiKey(settings.api_key, OWN_CALLER), *(ApiKey(one.key, one.name, one.scopes, one.labels) for one in named)


def put_in_force(
    settings: Settings, gateway: GatewaySettings, *, change: Literal["kept", "removed"], say: Callable[[str], None]
) -> None:
    """Give the keys to the running gateway. Call it in the block of `CallerKeys.changing` that changed one.

    Args:
        change: what was done with a key, for the messages.

    Raises: SetupError, OSError.
    """
    starts = "starts with it" if change == "kept" else "starts without it"
    if not settings.is_up:
        say(f"no stack runs here; `kanaria up` {starts}")
        return
    if not keys.takes_keys(gateway):
        why = "an earlier version started it" if settings.needs_api_key else "KANARIA_NEEDS_API_KEY is false"
        raise SetupError(
            f"the key is {change}, but not in the running gateway",
            saw=f"the gateway accepts no changes of keys: {why}",
            do="run `kanaria down` and `kanaria up`",
        )
    written = keys.write_keys(replace(gateway, api_keys=accepted(settings)))
    if not keys.are_in_force(gateway, written, wait_s=_WAIT_S):
        raise SetupError(
            f"the key is {change}, but the gateway did not confirm the change",
            saw=f"no confirmation within {_WAIT_S:g} s",
            do=f"check with `kanaria status` that the gateway runs: it {starts}",
        )


def unlisted(settings: Settings, gateway: GatewaySettings) -> tuple[str, ...]:
    """The names of keys that the running gateway accepts although they are not among `accepted`.

    Raises: SetupError, OSError.
    """
    if not settings.is_up or not keys.takes_keys(gateway):
        return ()
    listed = {key.secret for key in accepted(settings)}
    try:
        written = keys.written_keys(gateway)
    except (ValueError, LookupError, TypeError) as error:
        raise SetupError(
            "the keys of the running gateway cannot be read",
            saw=f"a damaged file in {gateway.directory}: {one_line(str(error))}",
            do="run `kanaria down` and `kanaria up`, which write it again",
        ) from error
    return tuple(sorted({name for key, name in written if key not in listed}))
