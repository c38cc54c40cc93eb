"""Checks that every pin of constraints.txt has a wheel for every supported Python and machine.

It asks pip's package index only for lists of files: no package is downloaded.
Exit code: 0 every pin has a wheel, except those known to be built from source; 1 a wheel is missing.
"""

import re
import ssl
import sys
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import Version
from pip._internal.commands import create_command  # pip has no public way to read its settings with their defaults

ROOT = Path(__file__).parents[1]
BUILT_FROM_SOURCE = {("hdrhistogram", "Linux arm64")}  # setup.sh asks for a compiler there
ANSWERS = "application/vnd.pypi.simple.v1+json, text/html;q=0.1"


@dataclass(frozen=True, slots=True)
class Wheel:
    """One file of a release."""

    tags: frozenset[Tag]
    requires_python: str


@dataclass(frozen=True, slots=True)
class Machine:
    """A supported kind of machine."""

    name: str
    platforms: Sequence[str]  # tags, best first
    markers: dict[str, str]


def _linux(name: str, architecture: str) -> Machine:
    """A Linux machine at least as new as Debian 12, whose C library is 2.36."""
    platforms = [f"manylinux_2_{minor}_{architecture}" for minor in range(36, 4, -1)]
    aliases = [f"{alias}_{architecture}" for alias in ("manylinux2014", "manylinux2010", "manylinux1", "linux")]
    markers = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": architecture}
    return Machine(name, platforms + aliases, markers)


MACHINES = (
    _linux("Linux x86_64", "x86_64"),
    _linux("Linux arm64", "aarch64"),
    Machine(
        "macOS 15 arm64",  # Envoy's wheel asks for 15
        list(mac_platforms((15, 0), "arm64")),
        {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
    ),
)


class _Links(HTMLParser):
    """The files on an index page that is not JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[dict[str, Any]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            found = dict(attrs)
            name = (found.get("href") or "").partition("#")[0].rpartition("/")[2]
            digest = (found.get("href") or "").partition("#sha256=")[2]
            self.files.append(
                {"filename": name, "requires-python": found.get("data-requires-python"), "hashes": {"sha256": digest}}
            )


def main() -> int:
    """Print what is missing."""
    pins = list(_pins())
    missing: list[str] = []
    excused: list[str] = []
    for pin, wheels in zip(pins, _look_up(pins), strict=True):
        for minor, machine in _without_wheel(pin, wheels):
            is_excused = (canonicalize_name(pin.name), machine.name) in BUILT_FROM_SOURCE
            kind = excused if is_excused else missing
            kind.append(f"  {pin.name}{pin.specifier}: Python 3.{minor} on {machine.name}")
    print(f"{len(pins)} pins for Python {', '.join(f'3.{minor}' for minor in promised())}")
    print(f"on {', '.join(machine.name for machine in MACHINES)}")
    print("built from source, because there is no wheel:", *(excused or ["  nothing"]), sep="\n")
    print("neither wheel nor plan:", *(missing or ["  nothing"]), sep="\n")
    return 1 if missing else 0


def _pins() -> Iterator[Requirement]:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if pin := line.partition("#")[0].strip():
            yield Requirement(pin)


def _look_up(pins: Sequence[Requirement]) -> list[list[Wheel]]:
    """The wheels of each pinned version, in every index that pip uses."""
    settings = pip_settings()
    indexes = [url for url in (settings.index_url, *settings.extra_index_urls) if url.startswith("http")]
    trust = ssl.create_default_context(cafile=settings.cert or None)
    with (
        httpx.Client(verify=trust, timeout=60, headers={"accept": ANSWERS}) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        return list(pool.map(lambda pin: list(_wheels(client, indexes, pin)), pins))


def pip_settings() -> Any:
    """pip's settings, with their defaults."""
    return create_command("download").parser.get_default_values()


def promised() -> range:
    """The minor versions of Python 3 that pyproject.toml allows."""
    allowed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    first, end = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", allowed).groups()  # type: ignore[union-attr]
    return range(int(first), int(end))


def _without_wheel(pin: Requirement, wheels: Sequence[Wheel]) -> Iterator[tuple[int, Machine]]:
    """The Pythons and machines for which pip, restricted to wheels, would find none."""
    for minor in promised():
        for machine in MACHINES:
            version = {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.0"}
            if pin.marker is not None and not pin.marker.evaluate(machine.markers | version):
                continue
            taken = tags(minor, machine)
            if not any(_serves(wheel, taken, minor) for wheel in wheels):
                yield minor, machine


def _serves(wheel: Wheel, taken: frozenset[Tag], minor: int) -> bool:
    return not taken.isdisjoint(wheel.tags) and SpecifierSet(wheel.requires_python).contains(f"3.{minor}.9")


def tags(minor: int, machine: Machine) -> frozenset[Tag]:
    """The tags of wheels that a Python on a machine accepts."""
    version = (3, minor)
    return frozenset(
        [
            *cpython_tags(version, platforms=machine.platforms),
            *compatible_tags(version, f"cp3{minor}", machine.platforms),
        ]
    )


def _wheels(client: httpx.Client, indexes: Sequence[str], pin: Requirement) -> Iterator[Wheel]:
    """The wheels of one pinned version."""
    for index in indexes:
        answer = client.get(f"{index.rstrip('/')}/{canonicalize_name(pin.name)}/", follow_redirects=True)
        if answer.status_code == httpx.codes.NOT_FOUND:
            continue
        for file in files_of(answer.raise_for_status()):
            try:
                _, version, _, tags = parse_wheel_filename(file["filename"])
            except InvalidWheelFilename:
                continue  # a source archive, or a name from before there were rules
            if pin.specifier.contains(version, prereleases=True):
                yield Wheel(tags, file.get("requires-python") or "")


def is_of(filename: str, name: str, version: str, *, is_built: bool) -> bool:
    """Whether a file is a wheel of a release, or, if that `is_built` from source, its source archive."""
    try:
        if is_built and filename.endswith(".tar.gz"):
            own, found = parse_sdist_filename(filename)
        else:
            own, found, *_ = parse_wheel_filename(filename)
    except (InvalidWheelFilename, InvalidSdistFilename):
        return False
    return own == canonicalize_name(name) and found == Version(version)


def files_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """The files on a page of an index, each with its `filename`, its `requires-python` and its `sha256`."""
    return [{**file, "sha256": (file.get("hashes") or {}).get("sha256", "")} for file in _files(answer)]


def _files(answer: httpx.Response) -> list[dict[str, Any]]:
    if "json" in answer.headers["content-type"]:
        files: list[dict[str, Any]] = answer.json()["files"]
        return files
    page = _Links()
    page.feed(answer.text)
    return page.files


if __name__ == "__main__":
    sys.exit(main())
