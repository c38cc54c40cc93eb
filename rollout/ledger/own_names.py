"""Under which names the parts of Kanaria act: no caller may have one."""

from contract.plain_text import visible

OWN_NAMES = frozenset({"judge", "controller", "alertmanager", "drift"})


def is_own_name(name: str) -> bool:
    """Whether a reader takes `name` for a part of Kanaria."""
    return visible(name).strip().casefold() in OWN_NAMES
