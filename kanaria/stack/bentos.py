"""Reads the local BentoML store from its folders: importing bentoml for its own listing takes seconds."""

import math
import os
import re
import reprlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from contract import bounded_yaml
from contract.answer_types import Number
from contract.complaints import nearest
from contract.http import LIVE_PATH, METRICS_PATH, READY_PATH
from contract.known_files import KnownFiles
from contract.model_files import SCHEMA_FILE, Schema
from contract.plain_files import read_within
from contract.plain_text import one_line
from kanaria.errors import SetupError
from rollout.fleet import CONTRACT, Readiness, Route, Service

_MANIFEST = "bento.yaml"
PYTHON_FOLDER = "env/python"  # the folder of a Bento with its Python version and packages
_MODEL_MANIFEST = "model.yaml"
MOUNTED = "mounted"  # marks a path of an application that is mounted in the service: its routes are unknown
# A Bento's OpenAPI document; the key that marks its own routes.
_DESCRIPTION, _NAME = "apis/openapi.yaml", "x-bentoml-name"
_IMPLEMENTATION = "implementation"  # the argument of a Bento that keeps the model contract
COUNTERS = "prometheus_multiproc_dir"  # folder of the counters in BentoML's home
_USUAL_TIMEOUT_S = 60.0  # BentoML's default
_USUAL_PORT = 3000  # BentoML's default
_UNLIMITED_S = 3600.0  # for a service that turns its timeout off
_LONGEST_TIMEOUT_S = 24 * 3600.0  # longer timeouts are cut to this
_LONGEST_PATH = 2000  # characters
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*:[A-Za-z0-9][A-Za-z0-9._-]*")  # no `/`: a tag becomes part of paths
LARGEST_FILE = 4 * 2**20  # bytes of a file of a Bento or a model that is read here


def bento_tags() -> tuple[str, ...]:
    """Tags of the Bentos in the store, sorted."""
    return _tags("bentos", _MANIFEST)


def model_tags() -> tuple[str, ...]:
    """Tags of the models in the store, sorted."""
    return _tags("models", _MODEL_MANIFEST)


def bento_tag(tag: str) -> str:
    """The full tag of a Bento: `name` and `name:latest` mean the newest one. Raises SetupError."""
    full = _full("bentos", _MANIFEST, tag)
    _manifest(full)
    return full


def model_tag(tag: str) -> str:
    """The full tag of a model: `name` and `name:latest` mean the newest one. Raises SetupError."""
    full = _full("models", _MODEL_MANIFEST, tag)
    model_folder(full)
    return full


def model_folder(tag: str) -> Path:
    """The folder of a model, by its full tag. Raises SetupError."""
    folder = store() / "models" / tag.replace(":", "/", 1)
    if not _TAG.fullmatch(tag) or not (folder / _MODEL_MANIFEST).exists():
        known = ", ".join(model_tags()) or "none"
        raise SetupError(
            f"there is no model {tag}{nearest(tag, model_tags())}",
            saw=f"models here: {known}",
            do=f"{_hint(tag)}train it, or correct the tag (`name:version`)",
        )
    return folder


def make_own_home(folder: Path) -> None:
    """Make `folder` BentoML's home for one process, with the common Bentos and models but its own counters.

    BentoML stores the counters of all processes of a home together: each process would show the sum, and a start would
    delete the counters of the others. Raises SetupError.
    """
    common = store()
    folder.mkdir(parents=True, exist_ok=True)
    for entry in common.iterdir():
        if not entry.name.startswith(COUNTERS):
            with suppress(FileExistsError):
                (folder / entry.name).symlink_to(entry.absolute())


def models_of(bento: str, *, copy: Path | None = None) -> list[str]:
    """The tags of all models that a Bento was built with.

    Args:
        copy: a copy of the Bento's files to read instead of those in the store.

    Raises: SetupError.
    """
    manifest = _manifest(bento, copy)
    try:
        of_services = [each for service in manifest.get("services") or () for each in service.get("models") or ()]
        tags = [_model_tag(model["tag"]) for model in (*of_services, *(manifest.get("models") or ()))]
    except (LookupError, AttributeError, TypeError, ValueError) as error:
        saw = f"{error!r} in its {_MANIFEST}"
        raise SetupError(f"the models of {bento} cannot be read", saw=saw, do="build it again") from error
    return list(dict.fromkeys(tags))


def model_of(bento: str) -> str:
    """The tag of the model that a Bento was built with. Raises SetupError."""
    tags = models_of(bento)
    if not tags:
        saw = f"none in {bento_folder(bento) / _MANIFEST}"
        raise SetupError(f"{bento} has no model", saw=saw, do="build it with `--arg model=TAG`")
    return tags[0]


def service_of(bento: str) -> Service:
    """The routes and limits of a Bento's service, by its manifest. Raises SetupError."""
    manifest = _manifest(bento)
    if _IMPLEMENTATION in (manifest.get("args") or {}):
        return CONTRACT
    try:
        config = _config(manifest)
        schema = manifest.get("schema") or {}
        ready, metrics = _pages(config, _mounted(schema))
        routes = _routes_of_legacy(bento) if _is_legacy(manifest) else _routes(schema)
        has_tls = bool((config.get("ssl") or {}).get("enabled"))
        return Service(routes, _timeout_s(config), readiness=Readiness(ready), metrics_path=metrics, has_tls=has_tls)
    except (OSError, yaml.YAMLError, LookupError, AttributeError, TypeError, ValueError) as error:
        raise _unreadable_routes(bento, error) from error


def keeps_contract(bento: str) -> bool:
    """Whether a Bento keeps the model contract. False if it cannot be read: its server will report the error."""
    try:
        return service_of(bento).keeps_contract
    except SetupError:
        return False


def schemas_of(bento: str) -> dict[str, dict[str, Any]] | None:
    """What a Bento declares about each route, by path: the JSON schemas `input` and `output`, or that it is `mounted`.

    Returns: None if it declares nothing, as Bentos of an older BentoML. Raises: SetupError.
    """
    manifest = _manifest(bento)
    try:
        if _is_legacy(manifest):
            return {route.path: {MOUNTED: True} for route in _routes_of_legacy(bento)} or None
        schema = manifest["schema"] or {}
        own = {str(route.get("route")): route for route in schema.get("routes") or () if isinstance(route, dict)}
        return own | {path: {MOUNTED: True} for path in _mounted(schema)}
    except (OSError, yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        raise _unreadable_routes(bento, error) from error


def _unreadable_routes(bento: str, error: Exception) -> SetupError:
    saw = f"{error!r} in its {_MANIFEST}"
    return SetupError(f"the routes of {bento} cannot be read", saw=saw, do="build it again")


def _is_legacy(manifest: dict[str, Any]) -> bool:
    """Whether a Bento is a `bentoml.Service` with `svc.api`, as before BentoML 1.2: its manifest lacks its routes."""
    return "schema" not in manifest or bool(manifest.get("apis"))


def _routes_of_legacy(bento: str) -> tuple[Route, ...]:
    """The routes of a legacy Bento, from its OpenAPI document.

    For routes that answer text it is unknown whether they stream. Raises OSError, yaml.YAMLError; and AttributeError,
    LookupError, TypeError or ValueError for an invalid document.
    """
    written = text_of(bento, _DESCRIPTION)
    paths = (bounded_yaml.load(written) or {}).get("paths") or {} if written else {}
    asked = {path: methods["post"] for path, methods in paths.items() if _NAME in methods.get("post", ())}
    return tuple(
        Route(_path(path), may_stream=any(str(kind).startswith("text/") for kind in about.get("produces") or ()))
        for path, about in asked.items()
    )


def _routes(schema: dict[str, Any]) -> tuple[Route, ...]:
    """The routes of a service, then those of applications mounted in it, which may all stream."""
    own: list[Route] = []
    for route in schema.get("routes") or ():
        path, is_streamed = _path(route["route"]), bool((route.get("output") or {}).get("is_stream"))
        own.append(Route(path, is_streamed))
        if route.get("is_task"):
            own.append(Route(f"{path}/submit"))
            # Requests about a task of one version are never copied: the other version does not know the task.
            own.append(Route(f"{path}/{{action}}", is_streamed=True))
    return (*own, *(Route(path, is_streamed=True) for path in _mounted(schema)))


def _mounted(schema: dict[str, Any]) -> list[str]:
    """The paths of the applications mounted in a service."""
    return [_path(path) for path, about in (schema.get("paths") or {}).items() if about.get("mounted")]


def _path(written: object) -> str:
    """The path of a route. Raises ValueError if it is not a path: the gateway would refuse all routes with it."""
    is_path = isinstance(written, str) and written.isprintable() and written[:1] in ("", "/")
    if not is_path or len(str(written)) > _LONGEST_PATH:
        raise ValueError(f"not a path: {reprlib.repr(written)}")
    return str(written)


def port_of(bento: str) -> int:
    """The default port of a Bento's server. Raises SetupError."""
    given = (_config(_manifest(bento)).get("http") or {}).get("port")
    return given if isinstance(given, int) else _USUAL_PORT


def _pages(config: dict[str, Any], mounted: Sequence[str]) -> tuple[str, str]:
    """The paths of the readiness probe and of the counters; empty: it has none.

    BentoML serves both after a `path_prefix`. The manifest shows the prefix only in the paths of the probes, and only
    if the service does not set these paths. A path that the service sets is used only if a mounted application has it.
    Raises ValueError.
    """
    ends = config.get("endpoints") or {}
    named = {own: f"/{str(ends[own[1:]]).strip('/')}" for own in (LIVE_PATH, READY_PATH) if ends.get(own[1:])}
    if any(len(path) > _LONGEST_PATH for path in named.values()):
        raise ValueError("not a path of a probe: it is too long")
    before = [path.removesuffix(end) for end, path in named.items() if path.endswith(end) and path not in mounted]
    prefix = before[0] if before and len(named) > 1 else ""  # BentoML writes both
    ready = named.get(READY_PATH)
    has_counters = (config.get("metrics") or {}).get("enabled") is not False
    metrics = prefix + METRICS_PATH if has_counters else ""
    return quote(ready if ready and ready in mounted else prefix + READY_PATH), quote(metrics)


def _timeout_s(config: dict[str, Any]) -> float:
    """The timeout of the service, seconds. Raises ValueError, TypeError."""
    given = (config.get("traffic") or {}).get("timeout", _USUAL_TIMEOUT_S)
    if given is None:
        return _UNLIMITED_S
    if not 0 < (timeout_s := float(given)) < math.inf:
        raise ValueError(f"not a timeout: {given!r:.40}")
    return min(timeout_s, _LONGEST_TIMEOUT_S)


def _config(manifest: dict[str, Any]) -> dict[str, Any]:
    """The configuration of the Bento's entry service."""
    entry = manifest.get("entry_service")
    configs = [each.get("config") or {} for each in manifest.get("services") or () if each.get("name") == entry]
    return configs[0] if configs else {}


def base_image_of(bento: str) -> str:
    """The base image of a Bento's container; empty if its manifest names none. Raises SetupError."""
    manifest = _manifest(bento)
    named = [manifest.get(section) for section in ("image", "docker")]  # BentoML 1.4, earlier BentoML
    return next((str(each["base_image"]) for each in named if isinstance(each, dict) and each.get("base_image")), "")


def implementation_of(bento: str) -> tuple[str, Path]:
    """The class that loads a Bento's model, `package.module:Class`, and the folder with that package.

    Raises SetupError.
    """
    arguments = _manifest(bento).get("args") or {}
    if _IMPLEMENTATION not in arguments:
        raise SetupError(
            f"{bento} does not keep the model contract, so there is nothing to check",
            saw=f"no `implementation` among the `args` in {bento_folder(bento) / _MANIFEST}",
            do="nothing, if that is intended; how to build a model of the contract: docs/service.md",
        )
    return str(arguments[_IMPLEMENTATION]), bento_folder(bento) / "src"


def python_of(bento: str) -> str:
    """The Python that a Bento was built for, such as `3.11`; empty if unknown. Raises SetupError, OSError."""
    written = text_of(bento, f"{PYTHON_FOLDER}/version.txt")
    found = written if written is not None else (_manifest(bento).get("image") or {}).get("python_version", "")
    return ".".join(str(found).strip().split(".")[:2])


def variables_of(bento: str) -> tuple[str, ...]:
    """The environment variables that a Bento needs at run time (`envs`). Raises SetupError."""
    named = _manifest(bento).get("envs") or ()
    return tuple(str(each["name"]) for each in named if each.get("name") and each.get("stage") != "build")


def asked_for_by(bento: str) -> tuple[str, ...]:
    """The same as `variables_of`; empty if the Bento cannot be read."""
    try:
        return variables_of(bento)
    except (SetupError, TypeError, AttributeError):  # the Bento's server will report the error
        return ()


def comparison_schema_of(bento: str) -> str | None:
    """How the numbers in a Bento's answers are counted and compared: `answer` of its model's schema, as JSON.

    None if unknown, and for labels: these count as they are, and thousands of them exceed an environment variable.
    """
    try:
        schema = read_within(model_folder(model_of(bento)), SCHEMA_FILE, most=LARGEST_FILE)
        answer = Schema.model_validate_json(schema, extra="ignore").answer
        return answer.model_dump_json() if isinstance(answer, Number) else None
    except (SetupError, OSError, ValueError, KeyError):  # its server or its preflight will report the error
        return None


def bento_folder(bento: str) -> Path:
    """The folder of a Bento's files. It may not exist."""
    return store() / "bentos" / bento.replace(":", "/", 1)


def text_of(bento: str, name: str) -> str | None:
    """The text of a file of a Bento; None if it is missing. Raises OSError, also for a link, and UnicodeDecodeError."""
    try:
        return read_within(bento_folder(bento), name, most=LARGEST_FILE).decode()
    except FileNotFoundError:
        return None


def _model_tag(written: object) -> str:
    """The tag of a model from a manifest. Raises ValueError if it is not a tag."""
    if not isinstance(written, str) or not _TAG.fullmatch(written):
        raise ValueError(f"not a tag of a model: {reprlib.repr(written)}")
    return written


def _document(path: Path) -> Any:
    return bounded_yaml.load(read_within(path.parent, path.name, most=LARGEST_FILE).decode())


_MANIFESTS: KnownFiles[Any] = KnownFiles(_document)  # each takes 10 ms and more


def _manifest(bento: str, copy: Path | None = None) -> dict[str, Any]:
    folder = copy or bento_folder(bento)
    path = folder / _MANIFEST
    if not _TAG.fullmatch(bento) or not os.path.lexists(path):
        raise SetupError(
            f"there is no Bento {bento}{nearest(bento, bento_tags())}",
            saw=f"Bentos here: {', '.join(bento_tags()) or 'none'}",
            do="build it (`bentoml build --version ...`) or correct the tag",
        )
    try:
        manifest = _MANIFESTS.at(path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        saw = error.strerror if isinstance(error, OSError) else one_line(str(getattr(error, "problem", None) or error))
        raise SetupError(f"{bento} cannot be read", saw=f"{path}: {saw}", do="build it again") from error
    if not isinstance(manifest, dict):
        raise SetupError(f"{bento} cannot be read", saw=f"{path} is not a mapping", do="build it again")
    return manifest


def store() -> Path:
    """The folder of the BentoML store. Raises SetupError."""
    try:
        return Path(os.environ.get("BENTOML_HOME") or Path.home() / "bentoml")
    except RuntimeError as error:
        raise SetupError(
            "the BentoML store cannot be found",
            saw=f"{error}: this user is unknown to the machine (no entry in passwd), and HOME is not set",
            do="set BENTOML_HOME or HOME",
        ) from error


def _tags(kind: str, file: str) -> tuple[str, ...]:
    return tuple(sorted(f"{path.parent.parent.name}:{path.parent.name}" for path in store().glob(f"{kind}/*/*/{file}")))


def _full(kind: str, file: str, tag: str) -> str:
    """`tag` in BentoML's form: lower case, with the version that `latest` means."""
    name, _, version = tag.lower().partition(":")
    folder = store() / kind / name
    versions = sorted(folder.glob(f"*/{file}"), key=lambda path: path.stat().st_mtime)
    if version not in ("", "latest") or not versions:
        return tag.lower()
    with suppress(OSError):
        newest = (folder / "latest").read_text().strip()
        if newest and (folder / newest / file).exists():
            return f"{name}:{newest}"
    return f"{name}:{versions[-1].parent.name}"


def _hint(tag: str) -> str:
    """A hint for a Bento's tag in place of its model's."""
    return f"{tag} is a Bento, its model is {model_of(tag)}; else " if tag in bento_tags() else ""


def process_name(tag: str, number: int = 1) -> str:
    """The name of a version's process and of its files. `number` counts the version's processes from 1."""
    return tag.replace(":", "@") + (f"#{number}" if number > 1 else "")


def tag_of(process: str) -> str | None:
    """The version that a process serves; None if it is not a version's process."""
    return process.partition("#")[0].replace("@", ":") if "@" in process else None
