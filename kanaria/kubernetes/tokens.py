"""The judge's token, which Flagger's hooks carry in their URLs."""

import re
from pathlib import Path

from contract.http import SHORTEST_JUDGE_TOKEN
from kanaria.errors import SetupError

_PLAIN = re.compile(r"[ -~]+")
_DO = f"write one line of {SHORTEST_JUDGE_TOKEN} or more letters: openssl rand -hex 20 | tr -d '\\n' > token"


def read_token(path: Path) -> str:
    """From a file with one line. Raises SetupError, which never shows it."""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SetupError("the token cannot be read", saw=str(error), do=_DO) from error
    except UnicodeDecodeError as error:
        raise SetupError("the token is no text", saw=f"{path} with other bytes", do=_DO) from error
    check_token(token)
    return token


def check_token(token: str) -> None:
    """Raises SetupError for one that no judge takes, or that no header carries."""
    if token and not _PLAIN.fullmatch(token):
        lines = len(token.splitlines())
        saw = f"{lines} lines" if lines > 1 else "letters that are not plain ASCII"
        raise SetupError("the token is not one line of plain letters", saw=saw, do=_DO)
    if len(token) < SHORTEST_JUDGE_TOKEN:
        raise SetupError("the token is too short", saw=f"{len(token)} letters", do=_DO)
