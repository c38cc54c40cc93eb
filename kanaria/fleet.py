"""Versions as local processes: each Bento served by BentoML on a free port under the supervisor.

All that run at a time count and compare their answers by one yardstick, that of the version which started first.
A release so reads stable's bins and tolerance in both versions, whatever the canary was trained with.
"""

import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from kanaria.bentos import bento_tags, yardstick_of
from kanaria.network import free_port
from kanaria.settings import Settings
from kanaria.signing import checking
from kanaria.supervision import Program, Supervisor
from rollout.interfaces import Backend, Health, VersionStatus
from service.signatures import SignatureError

_PROBE_TIMEOUT_S = 1.0
_FRESH_S = 0.4  # the controller asks several times in one beat
_LOG_TAIL_BYTES = 4096


class LocalFleet:
    """The `Fleet` of one machine."""

    def __init__(
        self,
        supervisor: Supervisor,
        folder: Path,
        *,
        command: Callable[[str, int], list[str]],
        environment: Callable[[str], Mapping[str, str]],
        on_change: Callable[[tuple[Backend, ...]], None],
        on_refusal: Callable[[], None],
    ) -> None:
        """Args:
        folder: where the port and the yardstick of each running version are kept, so that a new controller finds them.
        command: the server's command line for a tag and a port.
        environment: what the server of a tag needs besides this process's environment.
        on_change: called with all running versions when one comes or goes.
        on_refusal: called once for a version that does not start for its signature.
        """
        self._supervisor, self._folder = supervisor, folder
        self._command, self._environment = command, environment
        self._on_change, self._on_refusal = on_change, on_refusal
        self._folder.mkdir(parents=True, exist_ok=True)
        self._probes = httpx.Client(timeout=_PROBE_TIMEOUT_S)
        self._seen: dict[str, tuple[float, VersionStatus]] = {}
        self._was_ready: set[str] = set()
        self._refused: set[str] = set()

    def known_tags(self) -> tuple[str, ...]:
        return bento_tags()

    def start(self, tag: str) -> None:
        name = process_name(tag)
        if self._supervisor.info(name) is not None:
            return
        port = free_port()
        yardstick = next((record["yardstick"] for record in self._records()), None) or yardstick_of(tag)
        record = {"tag": tag, "port": port, "yardstick": yardstick}
        (self._folder / f"{name}.json").write_text(json.dumps(record))
        environment = {**self._environment(tag), **({"KANARIA_YARDSTICK": yardstick} if yardstick else {})}
        self._supervisor.add(Program(name, self._command(tag, port), environment))
        self._forget(tag)
        self._refused.discard(tag)  # another attempt
        self._on_change(self._backends())

    def status(self, tag: str) -> VersionStatus:
        at_s, status = self._seen.get(tag, (0.0, None))
        if status is None or time.monotonic() - at_s > _FRESH_S:
            status = self._look(tag)
            self._seen[tag] = (time.monotonic(), status)
        return status

    def stop(self, tag: str) -> None:
        name = process_name(tag)
        self._supervisor.stop(name)
        if self._supervisor.info(name) is None:
            (self._folder / f"{name}.json").unlink(missing_ok=True)
            self._on_change(self._backends())
        self._forget(tag)

    def running(self) -> tuple[str, ...]:
        return tuple(backend.tag for backend in self._backends())

    def process_of(self, tag: str) -> int | None:
        """The main process of a version; None when it does not run."""
        info = self._supervisor.info(process_name(tag))
        return info.pid if info is not None and info.is_alive else None

    def _look(self, tag: str) -> VersionStatus:
        info = self._supervisor.info(process_name(tag))
        backend = next((backend for backend in self._backends() if backend.tag == tag), None)
        if info is None or backend is None:
            return VersionStatus(Health.ABSENT)
        if not info.is_alive:
            return VersionStatus(Health.DEAD, backend, info.has_crashed, self._last_words(tag, info.log))
        if self._answers(backend):
            self._was_ready.add(tag)
            return VersionStatus(Health.READY, backend, info.has_crashed)
        health = Health.UNREADY if tag in self._was_ready else Health.STARTING
        return VersionStatus(health, backend, info.has_crashed, self._last_words(tag, info.log))

    def _last_words(self, tag: str, log: Path) -> str:
        words = last_words(log)
        if SignatureError.__name__ in words and tag not in self._refused:
            self._refused.add(tag)  # it is looked at on every beat until it is gone
            self._on_refusal()
        return words

    def _answers(self, backend: Backend) -> bool:
        try:
            return self._probes.get(f"{backend.url}/readyz").is_success
        except httpx.HTTPError:
            return False

    def _backends(self) -> tuple[Backend, ...]:
        return tuple(Backend(record["tag"], "127.0.0.1", record["port"]) for record in self._records())

    def _records(self) -> list[dict[str, Any]]:
        return [json.loads(file.read_text()) for file in sorted(self._folder.glob("*.json"))]

    def _forget(self, tag: str) -> None:
        self._seen.pop(tag, None)
        self._was_ready.discard(tag)


def server_command(tag: str, port: int) -> list[str]:
    """How BentoML serves a tag on a port."""
    return [sys.executable, "-m", "bentoml", "serve", tag, "--host", "127.0.0.1", "--port", str(port)]


def server_environment(settings: Settings, tag: str, *, records: Path) -> dict[str, str]:
    """What the server of a tag needs besides this process's environment; it keeps its records under `records`."""
    # `bentoml serve --api-workers` does not reach a service class; its configuration does.
    workers = {"services": {"predictor": {"workers": settings.workers}}}
    return {
        "KANARIA_VERSION": tag,
        "KANARIA_ANSWERS_DIR": str(records / "answers"),
        "KANARIA_PREDICTIONS_DIR": str(records / "predictions"),
        "KANARIA_DEADLINE_S": str(settings.deadline_s),
        "KANARIA_PREDICTION_LOG_MB": str(settings.prediction_log_mb),
        "BENTOML_CONFIG_OVERRIDES": json.dumps(workers),
        "BENTOML_DO_NOT_TRACK": "True",
        **checking(settings, tag),
    }


def process_name(tag: str) -> str:
    """What the supervisor calls the process of a version."""
    return tag.replace(":", "@")  # the supervisor gives `:` a meaning of its own


def last_words(log: Path) -> str:
    """The end of a log as one line, preferring the line that names an error."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Exit)\b", line)]
    return (errors or lines or [""])[-1][:300]
