"""Who may command the controller: the owner of the state folder, and people with their own token and a role."""

import hashlib
import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from rollout.ui.proof import id_of, proof_of

Role = Literal["reader", "releaser", "approver"]
ROLES: tuple[Role, ...] = get_args(Role)

# The commands that each role allows; the owner may give all commands, and is the only one who may give `stable`.
_RELEASER = frozenset({"release", "pause", "resume", "abort", "rollback", "restore"})
_ALLOWED = {"reader": frozenset[str](), "releaser": _RELEASER, "approver": _RELEASER | {"retry", "promote"}}


def roles_for(command: str) -> tuple[Role, ...]:
    """The roles that are enough for a command; none if only the owner may give it."""
    return tuple(role for role in ROLES if command in _ALLOWED[role])


class NamedToken(BaseModel):
    """A token as it is stored: only its hash, so nobody can read the token back."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    role: Role
    sha256: str  # of the token, hex; the token is random, so nobody can guess it
    made_s: float  # Unix seconds


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a command."""

    name: str | None = None  # None: the owner, whose command names the person itself
    role: Role | None = None

    def may(self, command: str) -> bool:
        """Whether the role is enough for a command."""
        return self.role is None or command in _ALLOWED[self.role]


class Callers:
    """Finds out who sent a request.

    Args:
        owner: the owner's token, which allows everything.
        named: returns all other tokens; called for each command, so that a removed token is refused at once.
    """

    def __init__(self, owner: str, named: Callable[[], Iterable[NamedToken]] = tuple) -> None:
        self._owner, self._named = owner, named

    def of(self, token: str) -> Caller | None:
        """The caller with this token; None: the token is not known."""
        if hmac.compare_digest(token.encode(), self._owner.encode()):
            return Caller()
        known = digest(token)
        found = [one for one in self._named() if hmac.compare_digest(one.sha256, known)]
        return Caller(found[0].name, found[0].role) if found else None

    def proof(self, token_id: str, nonce: str) -> str | None:
        """The proof that this controller knows a token; None: it does not. See `rollout.ui.proof`."""
        for kept in (digest(self._owner), *(one.sha256 for one in self._named())):
            if hmac.compare_digest(id_of(kept).encode(), token_id.encode()):
                return proof_of(kept, nonce)
        return None


def digest(token: str) -> str:
    """The hash of a token, which is stored in its place."""
    return hashlib.sha256(token.encode()).hexdigest()
