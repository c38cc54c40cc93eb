"""Who may command the controller: the owner of the state folder, and people with a token of their own and a role."""

import hashlib
import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from rollout.ui.proof import id_of, proof_of

Role = Literal["reader", "releaser", "approver"]
ROLES: tuple[Role, ...] = get_args(Role)

# What each role may do, by the names of the commands; the owner may do everything, and alone `stable`.
_RELEASER = frozenset({"release", "pause", "resume", "abort", "rollback", "restore"})
_ALLOWED = {"reader": frozenset[str](), "releaser": _RELEASER, "approver": _RELEASER | {"retry", "promote"}}


def roles_for(command: str) -> tuple[Role, ...]:
    """Those that are enough for a command; none where the owner alone may."""
    return tuple(role for role in ROLES if command in _ALLOWED[role])


class NamedToken(BaseModel):
    """A token as it is kept: nobody can read it back."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    role: Role
    sha256: str  # of the token, hex; it is random, so nobody finds it by trying
    made_s: float  # Unix seconds


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a command."""

    name: str | None = None  # None: the owner, who says himself who asks
    role: Role | None = None

    def may(self, command: str) -> bool:
        """Whether the role is enough for a command."""
        return self.role is None or command in _ALLOWED[self.role]


class Callers:
    """Finds out who sent a request.

    Args:
        owner: the token that may do everything.
        named: the others, as they are now; asked at each command, so one that is removed ends at once.
    """

    def __init__(self, owner: str, named: Callable[[], Iterable[NamedToken]] = tuple) -> None:
        self._owner, self._named = owner, named

    def of(self, token: str) -> Caller | None:
        """Whose token it is; None: nobody's."""
        if hmac.compare_digest(token.encode(), self._owner.encode()):
            return Caller()
        known = digest(token)
        found = [one for one in self._named() if hmac.compare_digest(one.sha256, known)]
        return Caller(found[0].name, found[0].role) if found else None

    def proof(self, token_id: str, nonce: str) -> str | None:
        """What shows that this token is known here; None: it is not. See `rollout.ui.proof`."""
        for kept in (digest(self._owner), *(one.sha256 for one in self._named())):
            if hmac.compare_digest(id_of(kept).encode(), token_id.encode()):
                return proof_of(kept, nonce)
        return None


def digest(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()
