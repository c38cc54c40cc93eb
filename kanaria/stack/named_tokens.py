"""The tokens of people, in a file of the state folder: their hashes, names and roles."""

import json
import secrets
import time
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError

from contract.complaints import first_complaint
from contract.files import write_whole
from contract.plain_text import one_line
from kanaria.errors import SetupError
from kanaria.private_files import close_folder
from kanaria.stack.locks import locked
from rollout.ledger.events import OWN_NAMES, is_own_name
from rollout.ui.callers import NamedToken, Role, digest

_TOKENS = TypeAdapter(tuple[NamedToken, ...])
_LONGEST_NAME = 100
_WAIT_S = 10.0


class NamedTokens:
    """Those of one state folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def all(self) -> tuple[NamedToken, ...]:
        """Every token. Raises SetupError for a file that cannot be read: nobody is let in on a guess."""
        try:
            return _TOKENS.validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return ()
        except (OSError, ValidationError) as error:
            why = first_complaint(error, whole="the file") if isinstance(error, ValidationError) else error
            raise SetupError(
                "the tokens cannot be read",
                saw=f"{self._path}: {why}",
                do="remove that file, and make the tokens again with `kanaria token add`",
            ) from error

    def add(self, name: str, role: Role) -> str:
        """Make a token, which is told this once. Raises SetupError, OSError."""
        is_short = 0 < len(name) <= _LONGEST_NAME
        if not is_short or name.startswith("-") or name != one_line(name).strip() or is_own_name(name):
            raise SetupError(
                "nobody can be called that",
                saw=repr(name),
                do=f"give a name of one line and at most {_LONGEST_NAME} letters, without `-` in front, which is "
                f"none of {', '.join(sorted(OWN_NAMES))}",
            )
        token = secrets.token_urlsafe(32)
        with locked(self._path.with_suffix(".lock"), doing="the tokens", wait_s=_WAIT_S):
            known = self.all()
            if same := next((one.name for one in known if one.name.casefold() == name.casefold()), None):
                raise SetupError(
                    f"{same} has a token already", saw=str(self._path), do=f"`kanaria token remove {same}` first"
                )
            self._write((*known, NamedToken(name=name, role=role, sha256=digest(token), made_s=time.time())))
        return token

    def remove(self, name: str) -> None:
        """Withdraw a token: commands with it are refused from now on. Raises SetupError, OSError."""
        with locked(self._path.with_suffix(".lock"), doing="the tokens", wait_s=_WAIT_S):
            known = self.all()
            names = [one.name for one in known]
            if name not in names:
                raise SetupError(f"{name} has no token", saw=f"tokens: {', '.join(names) or 'none'}", do="correct it")
            self._write(tuple(one for one in known if one.name != name))

    def _write(self, tokens: tuple[NamedToken, ...]) -> None:
        close_folder(self._path.parent)
        write_whole(self._path, json.dumps(_TOKENS.dump_python(tokens, mode="json"), indent=1), mode=0o600)


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
