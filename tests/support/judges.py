"""Judges as processes, as a StatefulSet starts them."""

import atexit
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from kanaria.stack.ports import free_port
from tests.support.children import started
from tests.support.waiting import eventually

TOKEN = "twenty-letters-or-more"  # noqa: S105 - of a test
_HTTP = httpx.Client(trust_env=False, timeout=60)  # one for all: each client makes its own TLS context, which is slow
atexit.register(_HTTP.close)


class Judge:
    """A replica with its own ledger, which outlives its process."""

    def __init__(self, folder: Path, prometheus: str, *options: str, environment: Mapping[str, str] | None = None):
        self.folder, self._environment = folder, environment or {}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "token").write_text(f"{TOKEN}\n")
        profiles = folder / "profiles"
        profiles.mkdir(exist_ok=True)
        (profiles / "bentoml-app.yaml").write_text("extends: bentoml\nversions: {app: '{version}'}\n")
        self._port = free_port()
        self._command = [sys.executable, "-m", "kanaria", "judge", "serve", f"--prometheus={prometheus}"]
        self._command += [f"--port={self._port}", f"--token-file={folder / 'token'}", f"--ledger={folder / 'judge.db'}"]
        self._command += [f"--profiles={profiles}", *options]
        self._running = ExitStack()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def start(self) -> None:
        log = self._running.enter_context((self.folder / "log").open("a"))
        environment = {**os.environ, **self._environment}
        process = started(self._command, stdout=log, stderr=log, env=environment)
        self._running.enter_context(process)
        eventually(self._is_ready, within_s=180)

    def kill(self) -> None:
        self._running.close()

    def ask(self, asked: Any, *, path: str = "/v1/judge") -> httpx.Response:
        return _HTTP.post(f"{self.url}{path}", json=asked, headers={"authorization": f"Bearer {TOKEN}"})

    def _is_ready(self) -> bool:
        try:
            return _HTTP.get(f"{self.url}/readyz").is_success
        except httpx.HTTPError:
            return False


@contextmanager
def judging(folder: Path, prometheus: str, *options: str, **more: Any) -> Iterator[Judge]:
    """A replica that runs until the block ends."""
    judge = Judge(folder, prometheus, *options, **more)
    judge.start()
    try:
        yield judge
    finally:
        judge.kill()
