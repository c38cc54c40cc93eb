"""What a client says of itself to a service that asks for a login: a user with a password, or a bearer token."""

import base64
import re
from dataclasses import dataclass
from pathlib import Path

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750: no colon, which every user with a password has


@dataclass(frozen=True, slots=True)
class Login:
    """A file with `user:password` or a bearer token. It is read for each request, so that a renewed one counts."""

    path: Path

    def header(self) -> str:
        """The value of `authorization`. Raises OSError; ValueError, which never shows what is in the file."""
        text = self.path.read_text().strip()
        if _TOKEN.fullmatch(text):
            return f"Bearer {text}"
        user, _, password = text.partition(":")
        if not (user and password and text.isprintable()):
            raise ValueError(f"{self.path} has neither `user:password` nor a bearer token in one line")
        return f"Basic {base64.b64encode(text.encode()).decode()}"
