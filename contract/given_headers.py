"""A header that the owner wants sent with each request to a service, such as the name of a tenant."""

import re

WRITE_ONE = (
    "write a name and a value, such as --prometheus-header 'X-Scope-OrgID: shop'; a login is a file: "
    "--prometheus-login FILE"
)
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):\s*([!-~][ -~]*)")
_NOT_THEIRS = ("authorization", "host", "connection", "content-type", "content-length", "transfer-encoding")


def given_header(text: str) -> tuple[str, str]:
    """Name and value of a header such as `X-Scope-OrgID: shop`.

    Raises: ValueError if the text is not a header, or one that the client sets itself; a login is given as a file. The
    message shows only what comes before the colon: the rest may be secret.
    """
    found = _HEADER.fullmatch(text.strip())
    if found is None or found[1].lower() in _NOT_THEIRS:
        raise ValueError(text.partition(":")[0][:100])
    return found[1], found[2]
