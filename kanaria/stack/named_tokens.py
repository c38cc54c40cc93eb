"""Personal tokens: a file of the state folder with their hashes, names and roles."""

import secrets
import time
from pathlib import Path

import structlog

from contract.plain_text import one_line, read_as
from kanaria.errors import SetupError
from kanaria.stack.named_file import NamedFile
from rollout.ledger.own_names import OWN_NAMES, is_own_name
from rollout.ui.callers import NamedToken, Role, digest

_LONGEST_NAME = 100


class NamedTokens:
    """The tokens of one state folder."""

    def __init__(self, path: Path) -> None:
        self._file = NamedFile(path, NamedToken, word="token")

    def all(self) -> tuple[NamedToken, ...]:
        """Every token. Raises SetupError if the file cannot be read: no token is then accepted."""
        return self._file.all()

    def add(self, name: str, role: Role) -> str:
        """Create a token and return it. Only its hash is stored. Raises SetupError, OSError."""
        is_short = len(name) <= _LONGEST_NAME and read_as(name) != ""
        if not is_short or name.startswith("-") or name != one_line(name).strip() or is_own_name(name):
            raise SetupError(
                "this name is not allowed for a person",
                saw=repr(name),
                do=f"use one line of at most {_LONGEST_NAME} characters that does not begin with `-` and is "
                f"none of {', '.join(sorted(OWN_NAMES))}",
            )
        token = secrets.token_urlsafe(32)
        self._file.add(NamedToken(name=name, role=role, sha256=digest(token), made_s=time.time()))
        return token

    def remove(self, name: str) -> None:
        """Withdraw a token: it is refused from now on. Raises SetupError, OSError."""
        self._file.remove(name)


class People:
    """The current tokens, for a controller. If they cannot be read, there are none, which is logged once."""

    def __init__(self, tokens: NamedTokens) -> None:
        self._tokens = tokens
        self._trouble = ""  # the last logged problem; empty: none

    def __call__(self) -> tuple[NamedToken, ...]:
        try:
            people, trouble, do = self._tokens.all(), "", ""
        except SetupError as error:
            people, trouble, do = (), f"{error.what}: {error.saw}", error.do
        if trouble and trouble != self._trouble:
            structlog.get_logger().error("tokens_unreadable", reason=trouble, do=do)
        self._trouble = trouble
        return people
