"""A header that somebody wants with each question to a service, such as the name of a tenant."""

import re

WRITE_ONE = (
    "write a name and a value, such as --prometheus-header 'X-Scope-OrgID: shop'; a login is a file: "
    "--prometheus-login FILE"
)
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):\s*([!-~][ -~]*)")
_NOT_THEIRS = ("authorization", "host", "connection", "content-type", "content-length", "transfer-encoding")


def given_header(text: str) -> tuple[str, str]:
    """Name and value of `X-Scope-OrgID: shop`.

    Raises: ValueError for what is none, and for one that the client sets itself; a login lies in a file. It shows what
    comes before the colon: the rest may be secret.
    """
    found = _HEADER.fullmatch(text.strip())
    if found is None or found[1].lower() in _NOT_THEIRS:
        raise ValueError(text.partition(":")[0][:100])
    return found[1], found[2]
