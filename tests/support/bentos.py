"""Train, build and serve an example with the commands that a user types, in its own BentoML home."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import orjson
import psutil
from prometheus_client.parser import text_string_to_metric_families

from kanaria.stack import model_server
from kanaria.stack.ports import free_port
from tests.support.asking import HTTP
from tests.support.children import children_with
from tests.support.paths import ROOT
from tests.support.waiting import eventually

START_WITHIN_S = 180.0
OURS = ("-m", model_server.MODULE)  # how a stack serves it on Linux
BENTOML = ("-m", "bentoml", "serve")  # how it is served on other systems and in a container


@dataclass(frozen=True)
class Server:
    """A running server of a Bento."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def address(self) -> tuple[str, int]:
        url = httpx.URL(self.url)
        return url.host, url.port or 80

    def workers(self) -> list[psutil.Process]:
        """The processes that answer requests."""
        words = ("_bentoml_impl.worker.service", model_server.MODULE)
        return [worker for word in words for worker in children_with(word, of=self.process.pid)]

    def metrics(self) -> dict[tuple[str, ...], float]:
        """Every sample of /metrics whose name starts with `kanaria_`, keyed by name and sorted label values.

        The samples of all callers are added up.
        """
        text = HTTP.get(f"{self.url}/metrics").raise_for_status().text
        found: dict[tuple[str, ...], float] = {}
        for sample in (sample for family in text_string_to_metric_families(text) for sample in family.samples):
            if sample.name.startswith("kanaria_"):
                values = (sample.labels[name] for name in sorted(sample.labels.keys() - {"caller"}))
                key = (sample.name, *values)
                found[key] = found.get(key, 0.0) + sample.value
        return found


class Bentos:
    """A BentoML home in which models are trained and Bentos are built."""

    def __init__(self, home: Path, *, project: Path = ROOT) -> None:
        self.home = home
        self._project = project
        self._environment = {
            **os.environ,
            "BENTOML_HOME": str(home),
            "BENTOML_DO_NOT_TRACK": "True",
            "KANARIA_ANSWERS_DIR": str(home / "shared-answers"),
        }

    def copied_to(self, folder: Path) -> "Bentos":
        """A separate store with the same models and Bentos, without files that versions served from this one write."""
        for kind in ("bentos", "models"):
            compiled = shutil.ignore_patterns("__pycache__")  # by versions that other tests run from here
            shutil.copytree(self.home / kind, folder / kind, ignore=compiled)
        return Bentos(folder)

    def train(self, *variants: str, example: str = "examples.digits") -> None:
        self._run(f"{example}.train", *variants)

    def build(self, version: str, *arguments: str) -> None:
        self._run("bentoml", "build", "--version", version, *arguments)

    def carried(self, tag: str) -> set[Path]:
        """The files that a Bento contains beside its model, relative to their folder.

        Compiled files, which Python writes beside them when a version runs, are left out.
        """
        source = self.home / "bentos" / tag.replace(":", "/") / "src"
        found = (path.relative_to(source) for path in source.rglob("*") if path.is_file())
        return {path for path in found if "__pycache__" not in path.parts}

    def model_folder(self, tag: str) -> Path:
        name, version = tag.split(":")
        return self.home / "models" / name / version

    def requests(self, tag: str, rows: int) -> bytes:
        """Body of a prediction request with the first samples of a trained model."""
        lines = (self.model_folder(tag) / "samples.jsonl").read_bytes().splitlines()[:rows]
        return orjson.dumps({"features": [orjson.loads(line)["features"] for line in lines]})

    @contextmanager
    def serve(
        self, tag: str, *, workers: int = 1, by: tuple[str, ...] | None = None, **environment: str
    ) -> Iterator[Server]:
        """Serve until the block ends; the block may end the server itself.

        `by`: the server; None: the server that a stack uses.
        """
        module = by or (OURS if sys.platform == "linux" else BENTOML)
        port = free_port()
        overrides = orjson.dumps({"services": {"predictor": {"workers": workers}}}).decode()
        log = self.home / f"serve-{port}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *module, tag, "--host", "127.0.0.1", "--port", str(port)],
                cwd=self.home,
                env={**self._environment, "BENTOML_CONFIG_OVERRIDES": overrides, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        server = Server(f"http://127.0.0.1:{port}", process, log)
        try:
            eventually(lambda: self._ready_workers(server) == workers, within_s=START_WITHIN_S)
            yield server
        finally:
            process.terminate()
            process.wait(timeout=120)

    def _ready_workers(self, server: Server) -> int:
        assert server.process.poll() is None, server.log.read_text()
        return server.log.read_text().count('"event": "model_ready"')

    def _run(self, module: str, *arguments: str) -> None:
        subprocess.run([sys.executable, "-m", module, *arguments], cwd=self._project, env=self._environment, check=True)
