"""Reads and checks the judge's token, which Flagger's hooks send in their URLs."""

import re
from pathlib import Path

from contract.http import SHORTEST_JUDGE_TOKEN
from kanaria.errors import SetupError

_PLAIN = re.compile(r"[ -~]+")
_DO = f"write one line of {SHORTEST_JUDGE_TOKEN} or more characters: openssl rand -hex 20 | tr -d '\\n' > token"


def read_token(path: Path) -> str:
    """The token in a file with one line. Raises SetupError, which never shows the token."""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SetupError("the token cannot be read", saw=str(error), do=_DO) from error
    except UnicodeDecodeError as error:
        raise SetupError("the token is not text", saw=f"{path} is not UTF-8", do=_DO) from error
    check_token(token)
    return token


def check_token(token: str) -> None:
    """Raise SetupError for a token that a judge refuses, or that does not fit into a header."""
    if token and not _PLAIN.fullmatch(token):
        lines = len(token.splitlines())
        saw = f"{lines} lines" if lines > 1 else "characters that are not printable ASCII"
        raise SetupError("the token is not one line of printable ASCII", saw=saw, do=_DO)
    if len(token) < SHORTEST_JUDGE_TOKEN:
        raise SetupError("the token is too short", saw=f"{len(token)} characters", do=_DO)
