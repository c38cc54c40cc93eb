"""The names under which parts of Kanaria act: no caller may use one of them."""

from contract.plain_text import read_as

RESTORE = "kanaria ledger restore"
OWN_NAMES = frozenset({"judge", "controller", "alertmanager", "drift", RESTORE})


def is_own_name(name: str) -> bool:
    """Whether a reader would take `name` for a part of Kanaria."""
    return read_as(name) in OWN_NAMES
