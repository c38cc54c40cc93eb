"""Checks whether the packages of an extra are installed, by the project's metadata. Imports none of them."""

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, requires

from packaging.requirements import Requirement

from kanaria.errors import SetupError

PROJECT = "kanaria"
_SHOWN = 4


class MissingExtra(SetupError):
    """A command needs packages that are not installed."""


def require(what: str, *extras: str) -> None:
    """Raise MissingExtra unless every package of `extras`, which `what` needs, is installed."""
    missing = {extra: absent for extra in extras if (absent := missing_packages(extra))}
    if not missing:
        return
    names = list(dict.fromkeys(name for absent in missing.values() for name in absent))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    raise MissingExtra(
        f"`{what}` needs packages that are not installed",
        saw=f"no {', '.join(names[:_SHOWN])}{more}",
        do=f"in the project's folder, `pip install '.[{','.join(missing)}]'` or `make setup EXTRAS=all,dev`",
    )


def missing_packages(extra: str) -> list[str]:
    """The packages that `extra` declares and that are not installed."""
    return [name for name in _declared(extra) if not _is_installed(name)]


def _declared(extra: str) -> Iterator[str]:
    """The packages of an extra on this machine, without those of the base."""
    try:
        lines = requires(PROJECT) or []
    except PackageNotFoundError:  # it runs from its sources without installation: nothing to check
        return
    for requirement in map(Requirement, lines):
        marker = requirement.marker
        if marker and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
            if requirement.name != PROJECT:
                yield requirement.name
            for other in sorted(requirement.extras) if requirement.name == PROJECT else ():
                yield from _declared(other)


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
