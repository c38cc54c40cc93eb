"""Finds folders of a Bento's code that are not imported because an installed package has the same name.

Python treats a folder without `__init__.py` as a package only if it finds nothing else with that name.
"""

import sys
import sysconfig
from collections.abc import Iterator
from importlib.machinery import PathFinder, all_suffixes
from pathlib import Path

from kanaria.settings import Settings
from kanaria.stack.environments import Environments
from kanaria.stack.requirements import wanted_by
from kanaria.stack.version_process import is_for_own_python


def shadowed(settings: Settings, tag: str, sources: Path) -> Iterator[tuple[str, str]]:
    """The name of each such folder in `sources`, and the file that is imported in its place. Raises SetupError.

    Packages that are installed only for its first start are not known yet.
    """
    names = (
        [folder.name for folder in sorted(sources.iterdir()) if _looks_like_a_package(folder)]
        if sources.is_dir()
        else []
    )
    paths = _searched(settings, tag) if names else []
    for name in names:
        if found := _imported(name, paths):
            yield name, found


def _looks_like_a_package(folder: Path) -> bool:
    if (
        not folder.name.isidentifier()
        or folder.is_symlink()
        or not folder.is_dir()
        or next(folder.rglob("*.py"), None) is None
    ):
        return False
    return not any((folder / f"__init__{suffix}").exists() for suffix in all_suffixes())


def _searched(settings: Settings, tag: str) -> list[str]:
    """The module search path of its server after its own sources."""
    if is_for_own_python(settings, tag):
        # The first entry belongs to this command only.
        return [path for path in sys.path[not sys.flags.safe_path :] if path]
    environment = Environments(settings.environments).find(wanted_by(tag))
    packages = environment.glob("lib/python*/site-packages") if environment else ()
    return [*map(str, packages), sysconfig.get_path("stdlib")]


def _imported(name: str, paths: list[str]) -> str | None:
    """The file of a regular package or module of that name; None if there is none."""
    if name in sys.builtin_module_names:
        return f"Python's own {name}"
    spec = PathFinder.find_spec(name, paths)
    return spec.origin if spec and spec.has_location else None
