"""The compared servers: how each is started with one worker, and which package it needs."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec

from benchmarks.service.subject import Subject
from kanaria.stack import model_server

_PEERS = "benchmarks.service.peers"


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to serve the model."""

    key: str
    title: str
    how: str  # what a reader should know about how it is run
    arguments: Callable[[Subject, int], list[str]]  # of `python -m`, for a subject and a port
    package: str  # what must be installed
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_installed(self) -> bool:
        return find_spec(self.package) is not None

    def command(self, subject: Subject, port: int) -> list[str]:
        return [sys.executable, "-m", *self.arguments(subject, port)]


def _bentoml(what: str, port: int) -> list[str]:
    return ["bentoml", "serve", what, "--host", "127.0.0.1", "--port", str(port)]


def _uvicorn(app: str, port: int, *options: str) -> list[str]:
    return ["uvicorn", f"{_PEERS}.{app}", "--host", "127.0.0.1", "--port", str(port), *options]


OURS = Contender(
    "kanaria",
    "Kanaria",
    "the Bento as `kanaria up` serves it: validation, metrics, prediction log, answers kept for feedback, request ids",
    lambda subject, port: [model_server.MODULE, subject.tag, "--host", "127.0.0.1", "--port", str(port)],
    "bentoml",
)
PEERS = (
    Contender(
        "bentoml",
        "BentoML quickstart",
        "a plain `@bentoml.api` that returns a dict, `bentoml serve`",
        lambda _, port: _bentoml(f"{_PEERS}.bentoml_app:Quickstart", port),
        "bentoml",
    ),
    Contender(
        "flask",
        "Flask, gunicorn",
        "`gunicorn --workers 1`, sync worker",
        lambda _, port: ["gunicorn", "--workers", "1", "--bind", f"127.0.0.1:{port}", f"{_PEERS}.flask_app:app"],
        "gunicorn",
    ),
    Contender(
        "starlette",
        "bare Starlette",
        "uvicorn, orjson, no access log, no features at all",
        lambda _, port: _uvicorn("starlette_app:app", port, "--no-access-log"),
        "starlette",
    ),
    Contender(
        "fastapi",
        "FastAPI",
        "uvicorn, typed body and answer, a plain function",
        lambda _, port: _uvicorn("fastapi_app:app", port, "--no-access-log"),
        "fastapi",
    ),
    Contender(
        "litserve",
        "LitServe",
        "one worker, no batching (with it, it was slower)",
        lambda _, port: [f"{_PEERS}.litserve_app", str(port)],
        "litserve",
    ),
    Contender(
        "ray",
        "Ray Serve",
        "one replica",
        lambda _, port: [f"{_PEERS}.ray_app", str(port)],
        "ray",
        {"RAY_USAGE_STATS_ENABLED": "0"},
    ),
)
