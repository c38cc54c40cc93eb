"""Writes requirements.lock: each pin of constraints.txt with the hashes of its files and its extras.

uv resolves the project for every supported Python and machine. The files are looked up in pip's package index, in pip's
folders of wheels, and in PyTorch's own index if it can be reached. Nothing is installed.
"""

import hashlib
import os
import re
import ssl
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from check_wheels import ANSWERS, BUILT_FROM_SOURCE, MACHINES, ROOT, files_of, is_of, pip_settings, promised, tags
from packaging.requirements import Requirement
from packaging.tags import Tag
from packaging.utils import canonicalize_name, parse_wheel_filename

LOCK = ROOT / "requirements.lock"
TORCH, CPU_TORCH, CPU = "torch", "torch-cpu", "+cpu"  # installed first, separately: setup.sh says why
CUDA = "cuda"  # packages that PyTorch's default Linux wheel needs, but its CPU wheel does not
BASE = "base"
_UV_PLATFORMS = {
    "Linux x86_64": "x86_64-manylinux_2_36",
    "Linux arm64": "aarch64-manylinux_2_36",
    "macOS 15 arm64": "aarch64-apple-darwin",
}
_HEAD = "# Written by `make lock`. setup.sh installs the blocks of the extras that are wanted.\n"


@dataclass(frozen=True, slots=True)
class Place:
    """A Python and a machine."""

    minor: int
    machine: str

    @property
    def marker(self) -> str:
        values = next(machine.markers for machine in MACHINES if machine.name == self.machine)
        return (
            f"(sys_platform == '{values['sys_platform']}' and platform_machine == '{values['platform_machine']}'"
            f" and python_version == '3.{self.minor}')"
        )


@dataclass
class Pin:
    """One version of a package."""

    places: set[Place] = field(default_factory=set)
    extras: set[str] = field(default_factory=set)


def main() -> int:
    """Write the lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {canonicalize_name(name) for name in re.findall(r"^([\w.-]+)==", _text("constraints.txt"), re.MULTILINE)}
    found: dict[tuple[str, str], Pin] = defaultdict(Pin)
    places = [Place(minor, machine.name) for minor, machine in product(promised(), MACHINES)]
    with ThreadPoolExecutor(3) as pool:
        resolved = list(pool.map(_resolved, places))
    for place, (versions, needs) in zip(places, resolved, strict=True):
        for extra, roots in _roots(project).items():
            for name in _closure(roots & versions.keys(), needs):
                pin = found[name, versions[name]]
                pin.places.add(place)
                pin.extras.add(TORCH if name == TORCH else extra if name in pinned else CUDA)
    cpu = {}
    for (name, version), pin in found.items():
        if name == "setuptools":  # builds the project itself
            pin.extras.add(BASE)
            pin.places |= set(places)
        if name == TORCH:
            linux = {place for place in pin.places if place.machine.startswith("Linux")}
            cpu = {(TORCH, f"{version}{CPU}"): Pin(linux, {CPU_TORCH})}
    found |= cpu
    settings = pip_settings()
    trust = ssl.create_default_context(cafile=settings.cert or None)
    with (
        httpx.Client(verify=trust, timeout=60, headers={"accept": ANSWERS}, follow_redirects=True) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        hashes = list(pool.map(lambda key: sorted(set(_hashes(client, settings, *key))), sorted(found)))
    blocks = [_block(key, found[key], files, places) for key, files in zip(sorted(found), hashes, strict=True)]
    LOCK.write_text(_HEAD + "".join(blocks))
    without = [f"{name}=={version}" for (name, version), own in zip(sorted(found), hashes, strict=True) if not own]
    print(f"{len(blocks)} pins, {sum(map(len, hashes))} hashes; no file was found of: {', '.join(without) or 'none'}")
    return 1 if any(not name.endswith(CPU) for name in without) else 0


def _text(name: str) -> str:
    return (ROOT / name).read_text()


def _roots(project: dict[str, object]) -> dict[str, set[str]]:
    """The packages that the base and each extra name, including those of contained extras."""
    optional: dict[str, list[str]] = project["optional-dependencies"]  # type: ignore[assignment]

    def named(lines: Iterable[str]) -> Iterator[str]:
        for requirement in map(Requirement, lines):
            if requirement.name == project["name"]:
                for extra in requirement.extras:
                    yield from named(optional[extra])
            else:
                yield canonicalize_name(requirement.name)

    extras = {extra: set(named(lines)) for extra, lines in optional.items() if extra != "bench-ray"}
    return {BASE: set(named(project["dependencies"])), **extras}  # type: ignore[arg-type]


def _resolved(place: Place) -> tuple[dict[str, str], dict[str, set[str]]]:
    """The version and the needs of every package there; without the load generator if that cannot be resolved."""
    extras = ("serve", "judge", "monitoring", "audit", "dev", "charts")
    for more in (("loadtest", "bench"), ()):
        done = _compile(place, (*extras, *more))
        if done.returncode == 0:
            break
        print(
            f"Python 3.{place.minor} on {place.machine}, with {', '.join(more)}: {done.stderr.strip()[-300:]}",
            file=sys.stderr,
        )
    versions, needs = {}, defaultdict(set)
    for line in done.stdout.splitlines():
        if match := re.match(r"([\w.-]+)==(\S+)\s+# via (.*)", line):
            versions[canonicalize_name(match[1])] = match[2]
            for parent in match[3].split(", "):
                needs[canonicalize_name(parent)].add(canonicalize_name(match[1]))
    return versions, needs


def _compile(place: Place, extras: Iterable[str]) -> subprocess.CompletedProcess[str]:
    wanted = [word for extra in extras for word in ("--extra", extra)]
    where = ["--python-version", f"3.{place.minor}", "--python-platform", _UV_PLATFORMS[place.machine]]
    command = ["uv", "pip", "compile", "pyproject.toml", "--quiet", "--no-header", "--annotation-style", "line"]
    return subprocess.run(
        [*command, *where, "--constraint", "constraints.txt", *wanted],
        cwd=ROOT,
        env={**os.environ, "MACOSX_DEPLOYMENT_TARGET": "15.0"},  # Envoy's wheel asks for it
        capture_output=True,
        text=True,
        check=False,
    )


def _closure(names: set[str], needs: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    todo = set(names)
    while todo:
        found |= todo
        todo = {need for name in todo for need in needs[name]} - found
    return found


def _block(key: tuple[str, str], pin: Pin, hashes: list[str], places: list[Place]) -> str:
    name, version = key
    where = "" if pin.places == set(places) else f" ; {_marker(pin.places, places)}"
    files = "".join(f" \\\n    --hash=sha256:{digest}" for digest in hashes)
    return f"# for: {' '.join(sorted(pin.extras))}\n{name}=={version}{where}{files}\n"


def _marker(wanted: set[Place], places: list[Place]) -> str:
    linux = {place for place in places if place.machine.startswith("Linux")}
    if wanted == linux:
        return "sys_platform == 'linux'"
    return " or ".join(place.marker for place in places if place in wanted)


def _hashes(client: httpx.Client, settings: Any, name: str, version: str) -> Iterator[str]:
    """The SHA-256 of each file of a release that a supported machine may get."""
    indexes = [url for url in (settings.index_url, *settings.extra_index_urls) if url.startswith("http")]
    is_cpu = version.endswith(CPU)
    is_built = any(built == name for built, _ in BUILT_FROM_SOURCE)
    for index in (*indexes, *((_cpu_index(),) if is_cpu else ())):
        try:
            answer = client.get(f"{index.rstrip('/')}/{name}/")
        except httpx.TransportError as error:
            if index != _cpu_index():
                raise
            print(
                f"PyTorch's own index cannot be reached, so the lock has no hash of its wheels: {error}",
                file=sys.stderr,
            )
            continue
        if answer.status_code != httpx.codes.NOT_FOUND:
            for file in files_of(answer.raise_for_status()):
                if is_of(file["filename"], name, version, is_built=is_built) and _is_promised(file["filename"]):
                    yield file["sha256"]
    for folder in settings.find_links if is_cpu else ():
        for path in Path(urlsplit(folder).path).glob(f"{name}-*.whl"):
            if is_of(path.name, name, version, is_built=False):
                yield hashlib.sha256(path.read_bytes()).hexdigest()


def _is_promised(filename: str) -> bool:
    if not filename.endswith(".whl"):
        return True
    return not _promised_tags().isdisjoint(parse_wheel_filename(filename)[3])


@cache
def _promised_tags() -> frozenset[Tag]:
    return frozenset().union(*(tags(minor, machine) for minor, machine in product(promised(), MACHINES)))


def _cpu_index() -> str:
    (index,) = re.findall(r"^CPU_INDEX=(\S+)$", _text("setup.sh"), re.MULTILINE)
    return str(index)


if __name__ == "__main__":
    sys.exit(main())
