"""Reads a Bento's requirements and checks whether this Python meets them. Nothing is imported or downloaded."""

import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from itertools import islice
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from kanaria.errors import SetupError
from kanaria.stack.bentos import PYTHON_FOLDER, bento_folder, python_of, text_of

OWN_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

_LOCKED, _ASKED, _INSTALLER = "requirements.lock.txt", "requirements.txt", "install.sh"
_INSTALLER_OPTIONS = re.compile(r"^PIP_ARGS=\((.*)\)$", re.MULTILINE)
_AFTER_A_REQUIREMENT = re.compile(r"\s(?:#|--).*")  # a comment, hashes
# The control loop checks the requirements of a Bento. Longer lists are left to the version's own process.
_MOST_LINES, _LONGEST_LINE = 5000, 2000
_SHOWN = 200  # characters
_NAMES_PACKAGES = ("-r", "--requirement", "-e", "--editable")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The requirements of a Bento."""

    tag: str
    python: str  # such as `3.11`; empty: any
    file: Path  # requirements for pip, the lock if the Bento has one; may be missing
    folder: Path  # base of relative paths in it
    options: tuple[str, ...] = ()  # for pip, from the Bento's own installer
    wheels: tuple[Path, ...] = ()  # wheels inside the Bento

    @property
    def is_for_this_python(self) -> bool:
        """Whether this Python has the version that the Bento was built for."""
        return self.python in ("", OWN_PYTHON)

    def lines(self) -> Iterator[str]:
        """Each line that names a package, without comment and hashes. Raises OSError, UnicodeDecodeError."""
        text = text_of(self.tag, f"{PYTHON_FOLDER}/{self.file.name}") or ""
        for raw in text.replace("\\\n", " ").splitlines():
            line = _AFTER_A_REQUIREMENT.sub("", f" {raw}").strip()
            if line and (not line.startswith("-") or line.startswith(_NAMES_PACKAGES)):
                yield line

    def names(self, package: str) -> bool:
        """Whether a requirement names `package`."""
        pattern = re.compile(rf"{package}\s*($|[\[(<>=!~;@])|.*/{package}-\d", re.IGNORECASE)
        return any(map(pattern.match, self.lines()))


def wanted_by(tag: str) -> Wanted:
    """The requirements of the Bento `tag`. Raises SetupError if they cannot be read."""
    bento = bento_folder(tag)
    python = bento / PYTHON_FOLDER
    locked = python / _LOCKED
    file = locked if locked.exists() else python / _ASKED
    try:
        with suppress(UnicodeDecodeError):  # an installer may be able to read it
            text_of(tag, f"{PYTHON_FOLDER}/{file.name}")
        installer = text_of(tag, f"{PYTHON_FOLDER}/{_INSTALLER}")
        if installer is not None:  # of BentoML 1.3 and before, or for features that newer images lack
            found = _INSTALLER_OPTIONS.search(installer)
            options = tuple(shlex.split(found[1])) if found else ()
            wheels = tuple(sorted(python.glob("wheels/*.whl")))
            return Wanted(tag, python_of(tag), file, folder=python, options=options, wheels=wheels)
        sources = bento / "src"
        return Wanted(tag, python_of(tag), file, folder=sources if sources.is_dir() else python)
    except (OSError, ValueError) as error:
        raise SetupError(f"the requirements of {tag} cannot be read", saw=f"{error}", do="build it again") from error


def missing(wanted: Wanted) -> str | None:
    """The first requirement that this Python does not meet, in words; None if it meets all."""
    seen: set[tuple[str, str]] = set()
    try:
        lines = list(dict.fromkeys(islice(wanted.lines(), _MOST_LINES + 1)))
        if len(lines) > _MOST_LINES:
            return f"more than {_MOST_LINES:,} packages"
        return next(filter(None, (_lack(line, seen) for line in lines)), None)
    except (OSError, UnicodeError) as error:
        return f"{wanted.file}, which cannot be read here: {error}"


def _lack(line: str, seen: set[tuple[str, str]]) -> str | None:
    if len(line) > _LONGEST_LINE:
        return f"{line[:_SHOWN]}..."
    try:
        return _lack_of(Requirement(line), extra="", seen=seen)
    except (InvalidRequirement, ValueError, RecursionError):
        # A path, a URL, another file, or an invalid marker: left to an installer.
        return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."


def _lack_of(requirement: Requirement, *, extra: str, seen: set[tuple[str, str]]) -> str | None:
    if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
        return None
    if requirement.url:
        return str(requirement)
    try:
        installed = metadata.version(requirement.name)
        is_enough = requirement.specifier.contains(installed, prereleases=True)
    except (metadata.PackageNotFoundError, InvalidVersion, TypeError):  # TypeError: an installation without a version
        return f"{requirement}, which is not installed here"
    if not is_enough:
        return f"{requirement}, but {installed} is installed here"
    offered = set(map(canonicalize_name, metadata.metadata(requirement.name).get_all("Provides-Extra") or ()))
    for wanted in requirement.extras:
        if (requirement.name, wanted) in seen or canonicalize_name(wanted) not in offered:
            continue
        seen.add((requirement.name, wanted))
        for text in metadata.requires(requirement.name) or ():
            inner = Requirement(text)
            is_of_it = inner.marker is not None and not inner.marker.evaluate({"extra": ""})
            if is_of_it and (lack := _lack_of(inner, extra=wanted, seen=seen)):
                return lack
    return None
