"""Real processes for tests of the gateway: Envoy, model servers whose behaviour a test can set, clients."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
from prometheus_client.parser import text_string_to_metric_families

from kanaria.stack.guarded_ports import guarding
from rollout.fleet import Backend, Version
from rollout.judge import Pair
from rollout.routers.envoy import admin
from rollout.routers.envoy.bootstrap import envoy_command, write_bootstrap
from rollout.routers.envoy.metrics import EnvoyMetrics
from rollout.routers.envoy.router import EnvoyRouter
from rollout.routers.envoy.settings import GatewaySettings
from rollout.signals.counters import Reading, windows
from rollout.sources.scrape import ScrapeSource
from tests.support.asking import HTTP
from tests.support.waiting import eventually

STAND_IN = Path(__file__).with_name("stand_in_model.py")


class StandIn:
    """One version: a model server in its own process, which may require a secret."""

    def __init__(self, tag: str, *, secret: str = "") -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:  # accepts before the process is up
            self.backend = Backend(tag, "127.0.0.1", listener.getsockname()[1], secret=secret)
            self._process = subprocess.Popen(
                [sys.executable, str(STAND_IN), tag, "--fd", str(listener.fileno())],  # as BentoML's workers get it
                pass_fds=[listener.fileno()],
                env={**os.environ, **(guarding(self.backend.port, secret) if secret else {})},
            )

    @property
    def tag(self) -> str:
        return self.backend.tag

    @property
    def version(self) -> Version:
        """The version of which this is the only process."""
        return Version((self.backend,))

    def behave(
        self, *, status: int = 200, delay_s: float = 0.0, ready: bool = True, fails_user: str | None = None
    ) -> None:
        behaviour = {"status": status, "delay_s": delay_s, "ready": ready, "fails_user": fails_user}
        HTTP.put(f"{self.backend.url}/behaviour", json=behaviour, headers=self.backend.headers).raise_for_status()

    def seen(self, path: str) -> int:
        """Requests to `path` so far."""
        return int(self._seen()["requests"].get(path, 0))

    def last_headers(self) -> dict[str, str]:
        return dict(self._seen()["last_headers"])

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def hang(self) -> None:
        """Stop the process without ending it: it accepts connections and answers nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def _seen(self) -> Any:
        return HTTP.get(f"{self.backend.url}/seen", headers=self.backend.headers).json()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class Gateway:
    """A running Envoy and the router that controls it."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self.router = EnvoyRouter(settings, timeout_s=60.0)
        self.url = f"http://127.0.0.1:{settings.port}"
        self.client = httpx.Client(base_url=self.url, timeout=60)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start Envoy and return when it serves."""
        self.spawn()
        eventually(self._is_ready)

    def spawn(self) -> None:
        """Start Envoy and return at once."""
        write_bootstrap(self.settings)
        with (self.settings.directory / "envoy.log").open("ab") as log:
            self._process = subprocess.Popen(envoy_command(self.settings), stderr=log)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def kill(self) -> None:
        """End Envoy without warning."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def predict(self, **request: Any) -> httpx.Response:
        return self.client.post("/predict", **({"json": {"features": [[0.0]]}} | request))

    def counted(self) -> dict[tuple[str, str, str], int]:
        """Predictions by (version that answered, version that was chosen, code)."""
        counted: Counter[tuple[str, str, str]] = Counter()
        for name, labels, value in self.samples():
            if name == "envoy_kanaria_predict_total":
                counted[labels["version"], labels["routed"], labels["code"]] += int(value)
        return dict(counted)

    def errors(self, *, stable: str, canary: str, mirrored: str | None = None) -> tuple[Pair, Pair]:
        """Failed and all requests of both versions since the start of the gateway, as the judge sees them."""
        found = self.judged(stable=stable, canary=canary, mirrored=mirrored)
        return found.get("errors", (Pair(0, 0), Pair(0, 0)))

    def judged(self, *, stable: str, canary: str, mirrored: str | None = None) -> dict[str, tuple[Pair, Pair]]:
        """The counts of both versions since the start of the gateway, by signal, as the judge sees them."""
        with ScrapeSource(EnvoyMetrics.of(self.settings)) as source:
            new = windows(Reading(0.0, {}), source.read((), mirrored=mirrored), stable=stable, canary=canary)
        return {window.signal: (window.stable, window.canary) for window in new}

    def samples(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """Everything that Envoy exports, as (name, labels, value)."""
        with admin.client(self.settings, timeout_s=30.0) as asked:
            page = asked.get("/stats/prometheus").text
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                yield sample.name, sample.labels, sample.value

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.settings.directory / "envoy.log").read_text()[-2000:]
        try:
            with admin.client(self.settings, timeout_s=30.0) as asked:
                return asked.get("/ready").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.stop()


@dataclass(slots=True)
class Load:
    """The answers and failures that the clients of one `load` have seen so far."""

    answers: Counter[str] = field(default_factory=Counter)  # by version
    failures: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self, version: str) -> None:
        """Count an answer. The clients are threads, and adding to a counter is not atomic."""
        with self._lock:
            self.answers[version] += 1

    @property
    def total(self) -> int:
        return self.answers.total() + len(self.failures)

    def wait_for(self, more: int) -> None:
        """Return when `more` further requests were answered or failed."""
        target = self.total + more
        eventually(lambda: self.total >= target, within_s=120)


@contextmanager
def load(url: str, *, clients: int = 4, headers: dict[str, str] | None = None) -> Iterator[Load]:
    """Run clients that send one request after another until the block ends."""
    seen, stop = Load(), threading.Event()

    def one_client() -> None:
        with httpx.Client(base_url=url, headers=headers, timeout=60.0) as client:
            while not stop.is_set():
                try:
                    answer = client.post("/predict", json={"features": [[0.0]]}).raise_for_status()
                    seen.answered(answer.json()["version"])
                except httpx.HTTPError as failure:
                    seen.failures.append(repr(failure))

    threads = [threading.Thread(target=one_client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()
