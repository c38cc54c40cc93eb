"""What the project declares as requirements of each extra, and which modules an installation with some extras has."""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import ROOT

_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def declared(*extras: str) -> Iterator[Requirement]:
    """The requirements of the base and of `extras`."""
    optional = _PROJECT["optional-dependencies"]
    for lines in (_PROJECT["dependencies"], *(optional[extra] for extra in extras)):
        for requirement in map(Requirement, lines):
            if requirement.name == _PROJECT["name"]:
                yield from declared(*requirement.extras)
            else:
                yield requirement


def brought_by(*extras: str) -> frozenset[str]:
    """The distributions that pip installs for the base and `extras`, by name."""
    return frozenset(_closure(declared(*extras)))


@cache
def absent_without(*extras: str) -> frozenset[str]:
    """The top-level modules that are installed here but would be missing with only the base and `extras`."""
    there = brought_by(*extras)
    return frozenset(
        module
        for module, owners in _owners().items()
        if not there.intersection(map(canonicalize_name, owners)) and _PROJECT["name"] not in owners
    )


@cache
def _owners() -> Mapping[str, list[str]]:
    """The distributions that own each top-level module; every file of every distribution is read."""
    return packages_distributions()


def _closure(requirements: Iterable[Requirement]) -> Iterator[str]:
    """Their names and those of all their installed requirements."""
    queue, seen = list(requirements), set()
    while queue:
        requirement = queue.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key not in seen:
            seen.add(key)
            yield key[0]
            queue.extend(_needs(requirement))


def _needs(requirement: Requirement) -> Iterator[Requirement]:
    """What an installed distribution requires on this machine, with the requested extras."""
    try:
        lines = distribution(requirement.name).requires or []
    except PackageNotFoundError:
        return
    for needed in map(Requirement, lines):
        marker = needed.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)):
            yield needed
