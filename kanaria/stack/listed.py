"""Versions that are not Bentos. A file lists for each tag a command, or the URL of a server that others run.

The file is read each time, so a version can be added while the stack runs.
"""

import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from contract import bounded_yaml
from contract.complaints import complaints
from contract.http import HEALTH_PATH, LIVE_PATH, METRICS_PATH, READY_PATH
from kanaria.errors import SetupError
from rollout.fleet import Backend, Readiness, Route, Service
from rollout.units import Seconds

_HOST = "127.0.0.1"
_PORT, _ADDRESS = "{port}", "{host}"
_OF_THE_GATEWAY = (METRICS_PATH, READY_PATH, LIVE_PATH, HEALTH_PATH)
_ANY_ANSWER = Readiness("/", below=500)
_IDLE_S = 1.0  # gunicorn closes a connection that is unused for 2 s
_LARGEST = 2**20
_TAG = re.compile(r"[a-z0-9]([-._a-z0-9]{0,61}[a-z0-9])?:[a-z0-9]([-._a-z0-9]{0,61}[a-z0-9])?")  # as BentoML's
_FILE = "the file's folder"  # key in the context of a validation
_DO = "correct it; what each key means: docs/own-service.md"


def _words(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return shlex.split(value)
    except ValueError as error:
        raise ValueError(f"it cannot be split into words, as a shell would do it: {error}") from error


def _path(value: str) -> str:
    if not re.fullmatch(r"/[^\s?#]*", value):
        raise ValueError("write a path that begins with /, without query and spaces")
    return value


PathText = Annotated[str, BeforeValidator(lambda value: _path(value) if isinstance(value, str) else value)]


class Listed(BaseModel):
    """The entry of one version in the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: Annotated[tuple[str, ...], BeforeValidator(_words), Field(min_length=1)] | None = None
    url: str | None = None
    folder: Path = Field(default=Path(), validate_default=True)  # where the command runs
    environment: dict[str, str] = {}
    ready: PathText | None = None  # None: ready when `/` answers with a status below 500
    timeout: Seconds = 60.0  # for the start of an answer
    routes: tuple[PathText, ...] = ()  # paths whose answers come as a whole
    streams: tuple[PathText, ...] = ()  # paths whose answers may come in parts
    metrics: bool = False  # whether it serves counters for Prometheus
    secret: bool = False  # whether it checks the secret of versions' ports itself

    @field_validator("folder", mode="after")
    @classmethod
    def _folder_is_absolute(cls, folder: Path, info: ValidationInfo) -> Path:
        return Path((info.context or {}).get(_FILE, ""), folder.expanduser())

    @field_validator("url", mode="after")
    @classmethod
    def _url_is_an_address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme == "https":
            raise ValueError("the gateway speaks plain HTTP to versions: put a proxy that adds TLS between them")
        try:
            is_address = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
        except ValueError:  # no port
            is_address = False
        if not is_address or parts.username is not None or re.search(r"\s", url):
            raise ValueError("write an address such as http://10.0.0.5:8000")
        try:
            str(parts.hostname).encode("idna")  # as a connection does
        except UnicodeError as error:
            raise ValueError(
                f"{parts.hostname} is not a valid host name: it needs 1 to 63 characters between its dots"
            ) from error
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError("write only scheme, host and port: clients name the paths")
        return url

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise ValueError(
                "write either `command`, for a process that Kanaria runs, or `url`, for one that others run"
            )
        given = self.model_fields_set & {"folder", "environment"}
        if self.url is not None and given:
            raise ValueError(f"`{min(given)}` goes with `command`: Kanaria does not start the server of a `url`")
        if self.command is not None and not any(_PORT in text for text in (*self.command, *self.environment.values())):
            raise ValueError(f"write {_PORT} in `command` or `environment`, in place of the port to listen on")
        paths = [*self.routes, *self.streams]
        if twice := [path for path in paths if paths.count(path) > 1]:
            raise ValueError(f"{twice[0]} is listed twice among `routes` and `streams`")
        if own := [path for path in paths if path in _OF_THE_GATEWAY]:
            raise ValueError(f"the gateway does not pass {own[0]}: leave it out")
        return self

    @property
    def service(self) -> Service:
        """What callers may request from it."""
        routes = (*map(Route, self.routes), *(Route(path, is_streamed=True) for path in self.streams))
        readiness = Readiness(self.ready) if self.ready else _ANY_ANSWER
        return Service(routes, self.timeout, readiness=readiness, idle_s=_IDLE_S)

    def backend(self, tag: str, port: int = 0, *, secret: str = "") -> Backend:
        """Where it listens. `port` is for a command; `secret` is sent to it if it checks one."""
        secret = secret if self.secret else ""
        if self.url is None:
            return Backend(tag, _HOST, port, self.metrics, secret)
        parts = urlsplit(self.url)
        return Backend(tag, str(parts.hostname), parts.port or 80, self.metrics, secret)

    def words(self, port: int) -> list[str]:
        """Its command line for a server on `port`."""
        return [_filled(word, port) for word in self.command or ()]

    def variables(self, port: int) -> dict[str, str]:
        """The variables of that server in addition to this process's environment."""
        return {name: _filled(value, port) for name, value in self.environment.items()}

    @property
    def obstacle(self) -> str | None:
        """Why its command cannot be started; None if no reason is known, or it has no command."""
        if self.command is None:
            return None
        if not self.folder.is_dir():
            return f"there is no folder {self.folder}"
        program = self.command[0]
        path = self.environment.get("PATH", os.environ.get("PATH"))
        found = self.folder / program if "/" in program else program
        return None if shutil.which(found, path=path) else f"there is no program {program}"


def _filled(text: str, port: int) -> str:
    return text.replace(_PORT, str(port)).replace(_ADDRESS, _HOST)  # not `format`: a command may contain JSON


def read_listed(path: Path) -> dict[str, Listed]:
    """The versions in the file, in its order. Raises SetupError."""
    name = f"the list of versions KANARIA_VERSIONS={path}"
    try:
        if path.stat().st_size > _LARGEST:
            raise SetupError(
                f"{name} is too large", saw="more than 1 MiB", do="remove versions that you no longer release"
            )
        document = bounded_yaml.load(path.read_text(), _Loader)
    except bounded_yaml.TooDeep as error:
        raise SetupError(f"{name} cannot be read", saw="it is nested too deeply", do=_DO) from error
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: not text
        raise SetupError(
            f"{name} cannot be read", saw=_in_one_line(error), do="correct the file or its path"
        ) from error
    if not isinstance(document, dict | None):
        raise SetupError(f"{name} is not valid", saw="it is not a mapping of keys to values", do=_DO)
    listed, wrong = {}, []
    for tag, entry in (document or {}).items():
        if not isinstance(tag, str) or not _TAG.fullmatch(tag):
            wrong.append(f"{str(tag)!r} is not a tag: write a name and a version in lower case, such as flask:v1")
            continue
        try:
            listed[tag] = Listed.model_validate(entry, context={_FILE: path.parent.absolute()})
        except ValidationError as error:
            wrong += [f"{tag}: {complaint}" for complaint in complaints(error, Listed, whole="the entry")]
    if wrong:
        raise SetupError(f"{name} is not valid", saw="; ".join(wrong), do=_DO)
    return listed


def _in_one_line(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())


class _Loader(bounded_yaml.Bounded):
    """Reads YAML without aliases, which can make a small file huge, and without duplicate keys."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(
                None, None, "write it out: aliases (`*name`) are not allowed", self.get_mark()
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"`{name}` is there twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)
