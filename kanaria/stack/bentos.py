"""What the local BentoML store holds, read from its folders: importing bentoml for its own listing takes seconds."""

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
PYTHON_FOLDER = "env/python"  # of a Bento: what it asks of its Python
_MODEL_MANIFEST = "model.yaml"
MOUNTED = "mounted"  # said of a path that belongs to an application in the service: nothing more is known of it
_DESCRIPTION, _NAME = "apis/openapi.yaml", "x-bentoml-name"  # a Bento's OpenAPI document; said in it of its own routes
_IMPLEMENTATION = "implementation"  # the argument of a Bento that keeps the model contract
COUNTERS = "prometheus_multiproc_dir"  # in BentoML's home
_USUAL_TIMEOUT_S = 60.0  # BentoML's own, where a service sets none
_USUAL_PORT = 3000  # BentoML's own
_UNLIMITED_S = 3600.0  # where it sets that there is none
_LONGEST_TIMEOUT_S = 24 * 3600.0  # nobody waits longer for one answer
_LONGEST_PATH = 2000  # letters
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*:[A-Za-z0-9][A-Za-z0-9._-]*")  # no path: it is made part of some
LARGEST_FILE = 4 * 2**20  # bytes of what is read here of a Bento or a model


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
    """The same for a model. Raises SetupError."""
    full = _full("models", _MODEL_MANIFEST, tag)
    model_folder(full)
    return full


def model_folder(tag: str) -> Path:
    """The files of a model, by its own tag. Raises SetupError."""
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
    """Let `folder` be BentoML's home for one process: its Bentos and models are the common ones, its counters its own.

    BentoML keeps the counters of all processes of one home together, so that each shows those of all, and throws them
    away when another begins. Raises SetupError.
    """
    common = store()
    folder.mkdir(parents=True, exist_ok=True)
    for entry in common.iterdir():
        if not entry.name.startswith(COUNTERS):
            with suppress(FileExistsError):
                (folder / entry.name).symlink_to(entry.absolute())


def models_of(bento: str, *, copy: Path | None = None) -> list[str]:
    """The tags of all models that a Bento was built with. Raises SetupError.

    `copy`: of the Bento's files, to be read in place of those in the store.
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
    """What callers may ask of a Bento's service, by its manifest. Raises SetupError."""
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
    """Whether a Bento keeps the model contract; not where it cannot be read: its server will say what is wrong."""
    try:
        return service_of(bento).keeps_contract
    except SetupError:
        return False


def schemas_of(bento: str) -> dict[str, dict[str, Any]] | None:
    """What a Bento says of its routes, by their path: the JSON schemas `input` and `output`, or that it is `mounted`.

    Returns: None where it says nothing of them, as Bentos of an older BentoML. Raises: SetupError.
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
    """Whether a Bento is a `bentoml.Service` with `svc.api`, as before BentoML 1.2: it says nothing of its routes."""
    return "schema" not in manifest or bool(manifest.get("apis"))


def _routes_of_legacy(bento: str) -> tuple[Route, ...]:
    """Its own routes, by the description that lies beside its manifest.

    Of those that answer text nobody says whether they stream it. Raises OSError, yaml.YAMLError; and AttributeError,
    LookupError, TypeError or ValueError for what is no description.
    """
    written = text_of(bento, _DESCRIPTION)
    paths = (bounded_yaml.load(written) or {}).get("paths") or {} if written else {}
    asked = {path: methods["post"] for path, methods in paths.items() if _NAME in methods.get("post", ())}
    return tuple(
        Route(_path(path), may_stream=any(str(kind).startswith("text/") for kind in about.get("produces") or ()))
        for path, about in asked.items()
    )


def _routes(schema: dict[str, Any]) -> tuple[Route, ...]:
    """The routes of a service, then those of applications that are mounted in it: of these any may stream."""
    own: list[Route] = []
    for route in schema.get("routes") or ():
        path, is_streamed = _path(route["route"]), bool((route.get("output") or {}).get("is_stream"))
        own.append(Route(path, is_streamed))
        if route.get("is_task"):
            own.append(Route(f"{path}/submit"))
            # Questions about a task that one version has: they are never copied, because the other knows nothing of it.
            own.append(Route(f"{path}/{{action}}", is_streamed=True))
    return (*own, *(Route(path, is_streamed=True) for path in _mounted(schema)))


def _mounted(schema: dict[str, Any]) -> list[str]:
    """The paths of the applications in a service, where they name any."""
    return [_path(path) for path, about in (schema.get("paths") or {}).items() if about.get("mounted")]


def _path(written: object) -> str:
    """The path of a route. Raises ValueError for what is none: the gateway would refuse all routes with it."""
    is_path = isinstance(written, str) and written.isprintable() and written[:1] in ("", "/")
    if not is_path or len(str(written)) > _LONGEST_PATH:
        raise ValueError(f"no path: {reprlib.repr(written)}")
    return str(written)


def port_of(bento: str) -> int:
    """The port that a Bento's server takes where nothing else is said. Raises SetupError."""
    given = (_config(_manifest(bento)).get("http") or {}).get("port")
    return given if isinstance(given, int) else _USUAL_PORT


def _pages(config: dict[str, Any], mounted: Sequence[str]) -> tuple[str, str]:
    """The paths of the readiness probe and of the counters; empty: it has none.

    BentoML serves both behind a `path_prefix`, which it writes down in the paths of its probes alone, and only where
    the service names none. What a service names is asked only where an application that is mounted in it has it.
    Raises ValueError.
    """
    ends = config.get("endpoints") or {}
    named = {own: f"/{str(ends[own[1:]]).strip('/')}" for own in (LIVE_PATH, READY_PATH) if ends.get(own[1:])}
    if any(len(path) > _LONGEST_PATH for path in named.values()):
        raise ValueError("no path of a probe: it is too long")
    before = [path.removesuffix(end) for end, path in named.items() if path.endswith(end) and path not in mounted]
    prefix = before[0] if before and len(named) > 1 else ""  # BentoML writes down both
    ready = named.get(READY_PATH)
    has_counters = (config.get("metrics") or {}).get("enabled") is not False
    metrics = prefix + METRICS_PATH if has_counters else ""
    return quote(ready if ready and ready in mounted else prefix + READY_PATH), quote(metrics)


def _timeout_s(config: dict[str, Any]) -> float:
    """Raises ValueError, and as `float`."""
    given = (config.get("traffic") or {}).get("timeout", _USUAL_TIMEOUT_S)
    if given is None:
        return _UNLIMITED_S
    if not 0 < (timeout_s := float(given)) < math.inf:
        raise ValueError(f"no timeout: {given!r:.40}")
    return min(timeout_s, _LONGEST_TIMEOUT_S)


def _config(manifest: dict[str, Any]) -> dict[str, Any]:
    """The configuration of the service that answers callers."""
    entry = manifest.get("entry_service")
    configs = [each.get("config") or {} for each in manifest.get("services") or () if each.get("name") == entry]
    return configs[0] if configs else {}


def base_image_of(bento: str) -> str:
    """The image that a Bento's container is built on; empty where its manifest names none. Raises SetupError."""
    manifest = _manifest(bento)
    named = [manifest.get(section) for section in ("image", "docker")]  # as BentoML 1.4, and before
    return next((str(each["base_image"]) for each in named if isinstance(each, dict) and each.get("base_image")), "")


def implementation_of(bento: str) -> tuple[str, Path]:
    """The class that loads a Bento's model, `package.module:Class`, and the folder with that package.

    Raises SetupError.
    """
    arguments = _manifest(bento).get("args") or {}
    if _IMPLEMENTATION not in arguments:
        raise SetupError(
            f"{bento} is a service of its own: it follows no model contract that could be checked",
            saw=f"no `implementation` among the `args` in {bento_folder(bento) / _MANIFEST}",
            do="nothing, if that is meant; for a model of the contract, see docs/service.md",
        )
    return str(arguments[_IMPLEMENTATION]), bento_folder(bento) / "src"


def python_of(bento: str) -> str:
    """The Python that a Bento was built for, `3.11`; empty where it does not say. Raises SetupError, OSError."""
    written = text_of(bento, f"{PYTHON_FOLDER}/version.txt")
    found = written if written is not None else (_manifest(bento).get("image") or {}).get("python_version", "")
    return ".".join(str(found).strip().split(".")[:2])


def variables_of(bento: str) -> tuple[str, ...]:
    """The variables that a Bento asks for where it runs (`envs`). Raises SetupError."""
    named = _manifest(bento).get("envs") or ()
    return tuple(str(each["name"]) for each in named if each.get("name") and each.get("stage") != "build")


def asked_for_by(bento: str) -> tuple[str, ...]:
    """The same; none where it cannot be read."""
    try:
        return variables_of(bento)
    except (SetupError, TypeError, AttributeError):  # its server will say what is wrong with the Bento
        return ()


def comparison_schema_of(bento: str) -> str | None:
    """How a Bento's numbers are counted and compared: `answer` of its model's schema, as JSON.

    None when unknown, and for labels: they count as themselves, and thousands of them fit into no environment variable.
    """
    try:
        schema = read_within(model_folder(model_of(bento)), SCHEMA_FILE, most=LARGEST_FILE)
        answer = Schema.model_validate_json(schema, extra="ignore").answer
        return answer.model_dump_json() if isinstance(answer, Number) else None
    except (SetupError, OSError, ValueError, KeyError):  # its server or its preflight will say what is wrong
        return None


def bento_folder(bento: str) -> Path:
    """Where a Bento's files lie, if it is there."""
    return store() / "bentos" / bento.replace(":", "/", 1)


def text_of(bento: str, name: str) -> str | None:
    """What a file of a Bento says; None: there is none. Raises OSError, also for a link, and UnicodeDecodeError."""
    try:
        return read_within(bento_folder(bento), name, most=LARGEST_FILE).decode()
    except FileNotFoundError:
        return None


def _model_tag(written: object) -> str:
    """The tag of a model as a manifest has it. Raises ValueError for what is none."""
    if not isinstance(written, str) or not _TAG.fullmatch(written):
        raise ValueError(f"no tag of a model: {reprlib.repr(written)}")
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
    """BentoML's home. Raises SetupError."""
    try:
        return Path(os.environ.get("BENTOML_HOME") or Path.home() / "bentoml")
    except RuntimeError as error:
        raise SetupError(
            "the store of Bentos cannot be found",
            saw=f"{error}: this user has no entry among the machine's users, and HOME is not set",
            do="set BENTOML_HOME, or HOME",
        ) from error


def _tags(kind: str, file: str) -> tuple[str, ...]:
    return tuple(sorted(f"{path.parent.parent.name}:{path.parent.name}" for path in store().glob(f"{kind}/*/*/{file}")))


def _full(kind: str, file: str, tag: str) -> str:
    """`tag` as BentoML writes it: in lower case, and with the version that `latest` stands for."""
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
    """Bento tags and model tags are easy to confuse."""
    return f"{tag} is a Bento, its model is {model_of(tag)}; else " if tag in bento_tags() else ""


def process_name(tag: str, number: int = 1) -> str:
    """What a process of a version is called, and so its files; `number` counts the version's processes from 1."""
    return tag.replace(":", "@") + (f"#{number}" if number > 1 else "")


def tag_of(process: str) -> str | None:
    """The version that a process serves; None for one that serves none."""
    return process.partition("#")[0].replace("@", ":") if "@" in process else None
