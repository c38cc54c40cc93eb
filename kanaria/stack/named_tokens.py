"""The tokens of people, in a file of the state folder: their hashes, names and roles."""

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
    """Those of one state folder."""

    def __init__(self, path: Path) -> None:
        self._file = NamedFile(path, NamedToken, word="token")

    def all(self) -> tuple[NamedToken, ...]:
        """Every token. Raises SetupError for a file that cannot be read: nobody is let in on a guess."""
        return self._file.all()

    def add(self, name: str, role: Role) -> str:
        """Make a token, which is told this once. Raises SetupError, OSError."""
        is_short = len(name) <= _LONGEST_NAME and read_as(name) != ""
        if not is_short or name.startswith("-") or name != one_line(name).strip() or is_own_name(name):
            raise SetupError(
                "nobody can be called that",
                saw=repr(name),
                do=f"give a name of one line and at most {_LONGEST_NAME} letters, without `-` in front, which is "
                f"none of {', '.join(sorted(OWN_NAMES))}",
            )
        token = secrets.token_urlsafe(32)
        self._file.add(NamedToken(name=name, role=role, sha256=digest(token), made_s=time.time()))
        return token

    def remove(self, name: str) -> None:
        """Withdraw a token: commands with it are refused from now on. Raises SetupError, OSError."""
        self._file.remove(name)


class People:
    """Who has a token now, for a controller. Where that cannot be read nobody has one, which is logged once."""

    def __init__(self, tokens: NamedTokens) -> None:
        self._tokens = tokens
        self._trouble = ""  # what was logged last; empty: they can be read

    def __call__(self) -> tuple[NamedToken, ...]:
        try:
            people, trouble, do = self._tokens.all(), "", ""
        except SetupError as error:
            people, trouble, do = (), f"{error.what}: {error.saw}", error.do
        if trouble and trouble != self._trouble:
            structlog.get_logger().error("tokens_unreadable", reason=trouble, do=do)
        self._trouble = trouble
        return people
