"""What a Bento asks of the Python that runs it, and whether this one has it. Nothing is imported or downloaded."""

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
# The control loop asks whether this Python has what a Bento asks for. What is longer is left to its own process.
_MOST_LINES, _LONGEST_LINE = 5000, 2000
_SHOWN = 200  # letters
_NAMES_PACKAGES = ("-r", "--requirement", "-e", "--editable")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The packages that a Bento asks for."""

    tag: str
    python: str  # `3.11`; empty: any
    file: Path  # requirements as pip reads them, locked where the Bento has a lock; it need not be there
    folder: Path  # where relative paths in it start
    options: tuple[str, ...] = ()  # of the Bento's own installer, for pip
    wheels: tuple[Path, ...] = ()  # that the Bento brings

    @property
    def is_for_this_python(self) -> bool:
        """Whether this Python is of the version that it was built for."""
        return self.python in ("", OWN_PYTHON)

    def lines(self) -> Iterator[str]:
        """Each line that names a package, without its comment and its hashes. Raises OSError, UnicodeDecodeError."""
        text = text_of(self.tag, f"{PYTHON_FOLDER}/{self.file.name}") or ""
        for raw in text.replace("\\\n", " ").splitlines():
            line = _AFTER_A_REQUIREMENT.sub("", f" {raw}").strip()
            if line and (not line.startswith("-") or line.startswith(_NAMES_PACKAGES)):
                yield line

    def names(self, package: str) -> bool:
        """Whether it asks for `package`, in any way."""
        pattern = re.compile(rf"{package}\s*($|[\[(<>=!~;@])|.*/{package}-\d", re.IGNORECASE)
        return any(map(pattern.match, self.lines()))


def wanted_by(tag: str) -> Wanted:
    """What the Bento `tag` asks for. Raises SetupError when it cannot be read."""
    bento = bento_folder(tag)
    python = bento / PYTHON_FOLDER
    locked = python / _LOCKED
    file = locked if locked.exists() else python / _ASKED
    try:
        with suppress(UnicodeDecodeError):  # an installer may know what it is
            text_of(tag, f"{PYTHON_FOLDER}/{file.name}")
        installer = text_of(tag, f"{PYTHON_FOLDER}/{_INSTALLER}")
        if installer is not None:  # as BentoML 1.3 and before, and for what its newer images do not support
            found = _INSTALLER_OPTIONS.search(installer)
            options = tuple(shlex.split(found[1])) if found else ()
            wheels = tuple(sorted(python.glob("wheels/*.whl")))
            return Wanted(tag, python_of(tag), file, folder=python, options=options, wheels=wheels)
        sources = bento / "src"
        return Wanted(tag, python_of(tag), file, folder=sources if sources.is_dir() else python)
    except (OSError, ValueError) as error:
        raise SetupError(f"what {tag} asks for cannot be read", saw=f"{error}", do="build it again") from error


def missing(wanted: Wanted) -> str | None:
    """The first package that this Python lacks, in words; None when it has what is asked for."""
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
        # A path, an address, another file, a marker that is none: an installer knows what is in it.
        return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."


def _lack_of(requirement: Requirement, *, extra: str, seen: set[tuple[str, str]]) -> str | None:
    if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
        return None
    if requirement.url:
        return str(requirement)
    try:
        installed = metadata.version(requirement.name)
        is_enough = requirement.specifier.contains(installed, prereleases=True)
    except (metadata.PackageNotFoundError, InvalidVersion, TypeError):  # TypeError: a folder without a version
        return f"{requirement}, which is not installed here"
    if not is_enough:
        return f"{requirement}, and {installed} is installed here"
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
