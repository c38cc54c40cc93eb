"""A cluster on one machine: BentoML processes on their own addresses as pods, a weighted route, and Prometheus."""

import atexit
import json
import os
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from kanaria.stack.ports import free_port
from tests.support.children import started
from tests.support.paths import ROOT
from tests.support.waiting import eventually

_HTTP = httpx.Client(trust_env=False, timeout=5)  # one for all: each client makes its own TLS context, which is slow
atexit.register(_HTTP.close)
_STARTS_IN_S = 180.0
_HASH = "rollouts_pod_template_hash"


@dataclass
class Pod:
    """One container of `examples/colours`, as a deployment would start it."""

    name: str
    labels: Mapping[str, str]  # as a PodMonitor adds them to its series
    address: str
    folder: Path
    arguments: Sequence[str] = ()
    port: int = 3000
    _running: ExitStack = field(default_factory=ExitStack)
    _starts: int = 0

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    def start(self) -> None:
        """Start a new container: the counts of the previous one are gone."""
        self._starts += 1
        home = self.folder / f"{self.name}-{self._starts}"
        home.mkdir()
        command = [sys.executable, "-m", "bentoml", "serve", "service:Colours", f"--host={self.address}"]
        command += [f"--port={self.port}", "--api-workers=1", *(f"--arg={each}" for each in self.arguments)]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}
        log = self._running.enter_context((home / "log").open("w"))
        process = started(command, cwd=ROOT / "examples/colours", env=environment, stdout=log, stderr=log)
        self._running.callback(_kill_children, self._running.enter_context(process).pid)

    def wait(self) -> None:
        eventually(lambda: answers(f"{self.url}/readyz"), within_s=_STARTS_IN_S)

    def stop(self) -> None:
        """Kill it at once, like the loss of a node."""
        self._running.close()


class Route:
    """An Envoy that splits requests between two groups of pods by weight. It reads both from files that it watches."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.port, self._admin = folder, free_port(), free_port()
        self.weight = 0
        self.point(stable=(), canary=())
        self.set(0)
        (folder / "envoy.json").write_text(json.dumps(self._bootstrap()))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def running(self, program: str) -> Iterator[None]:
        command = [program, "-c", str(self._folder / "envoy.json"), "--disable-hot-restart", "--log-level", "error"]
        with (self._folder / "log").open("w") as log, started(command, stdout=log, stderr=log):
            eventually(lambda: answers(f"http://127.0.0.1:{self._admin}/ready"), within_s=_STARTS_IN_S)
            yield

    def set(self, percent: int) -> None:
        """Set the canary's weight, as an engine does."""
        self.weight = percent
        weights = {"stable": 100 - percent, "canary": percent}
        clusters = [{"name": name, "weight": weight} for name, weight in weights.items()]
        action = {"weighted_clusters": {"clusters": clusters}, "timeout": "10s"}
        host = {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": action}]}
        self._write("routes", "route.v3.RouteConfiguration", {"name": "routes", "virtual_hosts": [host]})

    def point(self, *, stable: Sequence[Pod], canary: Sequence[Pod]) -> None:
        """Set the pods behind each group, as Endpoints do."""
        for name, pods in (("stable", stable), ("canary", canary)):
            addresses = [{"address": pod.address, "port_value": pod.port} for pod in pods]
            found = [{"endpoint": {"address": {"socket_address": address}}} for address in addresses]
            assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": found}]}
            self._write(name, "endpoint.v3.ClusterLoadAssignment", assignment)

    def _write(self, name: str, kind: str, resource: Mapping[str, object]) -> None:
        """Envoy reads a file again when another file is moved into its place."""
        content = {"resources": [{"@type": f"type.googleapis.com/envoy.config.{kind}", **resource}]}
        new = self._folder / f"{name}.new"
        new.write_text(json.dumps(content))
        new.rename(self._folder / f"{name}.json")

    def _source(self, name: str) -> dict[str, object]:
        watched = {"path": str(self._folder / f"{name}.json"), "watched_directory": {"path": str(self._folder)}}
        return {"resource_api_version": "V3", "path_config_source": watched}

    def _bootstrap(self) -> dict[str, object]:
        extensions = "type.googleapis.com/envoy.extensions.filters"
        manager = {
            "@type": f"{extensions}.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "in",
            "rds": {"route_config_name": "routes", "config_source": self._source("routes")},
            "http_filters": [
                {"name": "router", "typed_config": {"@type": f"{extensions}.http.router.v3.Router"}},
            ],
        }
        listener = {
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": self.port}},
            "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
        }
        clusters = [
            {
                "name": name,
                "type": "EDS",
                "connect_timeout": "1s",
                "eds_cluster_config": {"eds_config": self._source(name), "service_name": name},
            }
            for name in ("stable", "canary")
        ]
        return {
            "node": {"id": "test", "cluster": "test"},
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": self._admin}}},
            "static_resources": {"listeners": [listener], "clusters": clusters},
        }


class Scraper:
    """A Prometheus that scrapes the pods every second, with the labels of a PodMonitor."""

    def __init__(self, folder: Path, program: str) -> None:
        self._folder, self._program, self.port = folder, program, free_port()
        self._running = ExitStack()
        job = {
            "job_name": "shop/colours",
            "scrape_interval": "1s",
            "file_sd_configs": [{"files": ["pods.json"]}],
        }
        (folder / "prometheus.yml").write_text(json.dumps({"scrape_configs": [job]}))
        self.scrape(())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def scrape(self, pods: Sequence[Pod]) -> None:
        """Set the list of pods."""
        found = [
            {
                "targets": [f"{pod.address}:{pod.port}"],
                "labels": {
                    "namespace": "shop",
                    "pod": pod.name,
                    "container": "model",
                    "endpoint": "http",
                    **pod.labels,
                },
            }
            for pod in pods
        ]
        new = self._folder / "pods.new"
        new.write_text(json.dumps(found))
        new.rename(self._folder / "pods.json")

    def start(self) -> None:
        command = [self._program, "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
        command += [f"--web.listen-address=127.0.0.1:{self.port}"]
        log = self._running.enter_context((self._folder / "log").open("a"))
        self._running.enter_context(started(command, cwd=self._folder, stdout=log, stderr=log))
        eventually(lambda: answers(f"{self.url}/-/ready"), within_s=_STARTS_IN_S)

    def stop(self) -> None:
        self._running.close()


class Users:
    """Sends pictures at a steady rate, a fifth of them without colours, and counts the answers."""

    def __init__(self, url: str, pictures: Mapping[str, bytes], *, per_s: float, threads: int = 4) -> None:
        self._url, self._pictures, self._pause_s = url, pictures, threads / per_s
        self.answers: Counter[int] = Counter()
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._go_on, args=(seed,)) for seed in range(threads)]

    def __enter__(self) -> "Users":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _go_on(self, seed: int) -> None:
        rng = random.Random(seed)
        with httpx.Client(base_url=self._url, trust_env=False, timeout=20) as http:
            while not self._is_over.wait(self._pause_s):
                picture = self._pictures["grey" if rng.random() < 0.2 else "red"]
                try:
                    answer = http.post("/name", files={"picture": ("picture.png", picture, "image/png")})
                    self.answers[answer.status_code] += 1
                except httpx.HTTPError:
                    self.answers[0] += 1


def _kill_children(pid: int) -> None:
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended with the previous one
            child.kill()


def answers(url: str) -> bool:
    try:
        return _HTTP.get(url).is_success
    except httpx.HTTPError:
        return False


def hash_labels(version: str, app: str) -> dict[str, str]:
    """The labels by which Argo Rollouts and Flagger tell the pods of a version apart."""
    return {_HASH: version, "app": app}


def probing(pods: Callable[[], Sequence[Pod]], is_over: threading.Event) -> None:
    """Do what the kubelet does: ask each pod every second whether it is ready."""
    while not is_over.wait(1.0):
        for pod in pods():
            answers(f"{pod.url}/readyz")
