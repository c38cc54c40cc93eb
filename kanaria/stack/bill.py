"""Bills of materials (CycloneDX): the packages, models and files of a Bento or of this installation.

Read from files and package metadata: nothing of a Bento is imported.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from contract.plain_files import opened
from kanaria.extras import PROJECT
from kanaria.stack.bentos import (
    PYTHON_FOLDER,
    base_image_of,
    bento_folder,
    model_folder,
    model_tags,
    models_of,
    text_of,
)
from kanaria.stack.requirements import Wanted, wanted_by

if TYPE_CHECKING:
    from io import BufferedReader

_HASHES = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_SKIPPED = "__pycache__"


def of_installation() -> Bom:
    """Kanaria with every package of its environment and their dependencies."""
    found = {canonicalize_name(each.name): each for each in metadata.distributions()}
    components = {name: _package(name, each.version) for name, each in sorted(found.items()) if name != PROJECT}
    root = Component(type=ComponentType.APPLICATION, name=PROJECT, version=metadata.version(PROJECT), bom_ref=PROJECT)
    bom = _bom(root, components.values())
    for name, each in found.items():
        needed = {canonicalize_name(need.name) for need in _needed(each)} & components.keys()
        bom.register_dependency(root if name == PROJECT else components[name], [components[need] for need in needed])
    return bom


def of_bento(tag: str) -> Bom:
    """A Bento: its required packages, models, files with hashes, and base image. Raises SetupError."""
    name, _, version = tag.partition(":")
    root = Component(type=ComponentType.APPLICATION, name=name, version=version, bom_ref=tag)
    wanted = wanted_by(tag)
    if wanted.python:
        root.properties.add(Property(name="kanaria:python", value=wanted.python))
    models = [_model(model) for model in models_of(tag)]
    pins = dict(_pins(wanted))
    packages = [_asked_for(line, pins) for line in _lines(tag, wanted.file.name)]
    return _bom(root, [*packages, *models, *_files(bento_folder(tag), tag), *_image(tag)])


def as_json(bom: Bom) -> str:
    """The bill as CycloneDX 1.6 JSON."""
    return JsonV1Dot6(bom).output_as_string(indent=2)


def _bom(root: Component, components: Iterable[Component]) -> Bom:
    bom = Bom(components=components)
    bom.metadata.component = root
    bom.register_dependency(root, bom.components)
    return bom


def _package(name: str, version: str | None, hashes: Iterable[str] = ()) -> Component:
    url = PackageURL("pypi", name=name, version=version)
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=version,
        purl=url,
        bom_ref=str(url),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in hashes],
    )


def _needed(distribution: metadata.Distribution) -> Iterator[Requirement]:
    """What a package needs on this machine, without extras, which may not be wanted."""
    for text in distribution.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def _lines(tag: str, name: str) -> Iterator[str]:
    """Each requirement of a list or a lock of a Bento, with its hashes. Raises OSError, UnicodeDecodeError."""
    path = os.path.normpath(f"{PYTHON_FOLDER}/{name}")
    for line in (text_of(tag, path) or "").replace("\\\n", " ").splitlines():
        if (text := line.partition(" #")[0].strip()) and not text.startswith(("#", "-")):
            yield text


def _pins(wanted: Wanted) -> Iterator[tuple[str, str]]:
    """The exact versions in the constraint files of the Bento's installer."""
    for option, file in pairwise(wanted.options):
        for line in _lines(wanted.tag, file) if option in ("-c", "--constraint") else ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate():
                yield from ((canonicalize_name(requirement.name), each.version) for each in requirement.specifier)


def _asked_for(line: str, pins: Mapping[str, str]) -> Component:
    """A package that a Bento names, with a version only if it names exactly one."""
    try:
        requirement = Requirement(line.partition(" --")[0])
    except InvalidRequirement:  # a path or a URL
        return Component(type=ComponentType.LIBRARY, name=line, bom_ref=line)
    name = canonicalize_name(requirement.name)
    exact = [each.version for each in requirement.specifier if each.operator in ("==", "===")]
    hashes = _HASHES.findall(line)  # one per file of the package's release: with several, the installed one is unknown
    return _package(name, exact[0] if exact else pins.get(name), hashes if len(hashes) == 1 else ())


def _model(tag: str) -> Component:
    name, _, version = tag.partition(":")
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=name,
        version=version,
        bom_ref=f"model/{tag}",
        components=_files(model_folder(tag), f"model/{tag}") if tag in model_tags() else (),
    )


def _files(folder: Path, of: str) -> list[Component]:
    paths = (path for path in sorted(folder.rglob("*")) if _SKIPPED not in path.parts)
    return [_file(path, str(path.relative_to(folder)), of) for path in paths if path.is_symlink() or path.is_file()]


def _file(path: Path, name: str, of: str) -> Component:
    """A file with its hash. A link may lead to a secret, and bills are shared, so only its target's path is named."""
    found = Component(type=ComponentType.FILE, name=name, bom_ref=f"{of}/{name}")
    if path.is_symlink():
        found.properties.add(Property(name="kanaria:link", value=str(path.readlink())))
        return found
    with opened(path) as file:
        digest = hashlib.file_digest(cast("BufferedReader", file), "sha256").hexdigest()
    found.hashes.add(HashType(alg=HashAlgorithm.SHA_256, content=digest))
    return found


def _image(tag: str) -> list[Component]:
    """The base image of its container, if its manifest names one."""
    image = base_image_of(tag)
    if not image:
        return []
    name, _, version = image.partition(":")
    return [Component(type=ComponentType.CONTAINER, name=name, version=version or None, bom_ref=f"image/{image}")]
