"""The token that questions must carry. Its file may change in place, as a mounted Secret does."""

import hmac
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

from contract.http import SHORTEST_JUDGE_TOKEN
from rollout.errors import RolloutError
from rollout.format import count


class TokenUnusable(RolloutError):
    """The server has no usable token to compare with; the caller is not at fault."""


def token_in(path: Path) -> Callable[[], str]:
    """A function that reads the token again at each call. It raises TokenUnusable."""
    return partial(_read, path)


def is_given(token: str, authorization: str, more: Collection[str] = ()) -> bool:
    """Whether a header `Authorization: Bearer TOKEN`, or one of the texts in `more`, holds the token."""
    scheme, _, credentials = authorization.partition(" ")
    given = [*more, *([credentials.strip()] if scheme.lower() == "bearer" else [])]
    return any(hmac.compare_digest(each.encode(), token.encode()) for each in given)


def _read(path: Path) -> str:
    do = f"write a secret of at least {SHORTEST_JUDGE_TOKEN} characters into that file"
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TokenUnusable("the judge's token cannot be read", saw=str(error), do=do) from error
    if len(token) < SHORTEST_JUDGE_TOKEN:
        saw = f"{path} with {count(len(token))} characters" if token else f"{path}, which is empty"
        raise TokenUnusable("the judge's token is too short", saw=saw, do=do)
    return token
