"""A real Prometheus with series generated for a test: hours of many pods, without waiting for them."""

import json
import random
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from kanaria.stack.ports import free_port
from tests.support.asking import HTTP
from tests.support.children import started


@dataclass
class Pod:
    """One process that counts requests from its start to its end."""

    labels: Mapping[str, str]
    begin_s: float
    end_s: float
    per_scrape: int = 40  # requests
    error_ratio: float = 0.0
    restarts: Sequence[float] = ()  # when it restarts at 0, Unix seconds
    before: int = 0  # requests counted before `begin_s`
    slow_ratio: float = 0.02  # above 100 ms

    def counts(self, rng: random.Random, interval_s: float) -> Iterator[tuple[float, int, int, int]]:
        """At each scrape: the time, and all, failed and slow requests since the last start."""
        total, failed, slow = self.before, 0, 0
        waiting = sorted(self.restarts)
        at_s = self.begin_s
        while at_s <= self.end_s:
            if waiting and at_s >= waiting[0]:
                waiting.pop(0)
                total = failed = slow = 0
            total += self.per_scrape
            failed += sum(rng.random() < self.error_ratio for _ in range(self.per_scrape))
            slow += sum(rng.random() < self.slow_ratio for _ in range(self.per_scrape))
            yield at_s, total, failed, slow
            at_s += interval_s


@dataclass(frozen=True)
class Shape:
    """How a data plane writes the counts of a pod."""

    requests: str
    good: Mapping[str, str]  # labels of answered requests
    bad: Mapping[str, str]  # labels of failed requests
    histogram: str
    bound: str  # of the bucket of 100 ms
    common: Mapping[str, str] = field(default_factory=dict)
    bounds: Sequence[str] = ()  # of further buckets
    says_start: bool = False  # has `process_start_time_seconds`, with the labels of the versions


SHAPES: Mapping[str, Shape] = {
    "gateway": Shape(
        "envoy_kanaria_predict_total", {"code": "200"}, {"code": "503"}, "envoy_kanaria_predict_duration_ms", "100"
    ),
    "service": Shape(
        "kanaria_requests_total",
        {"status_class": "2xx"},
        {"status_class": "5xx"},
        "kanaria_request_duration_seconds",
        "0.1",
        {"namespace": "shop", "route": "/predict"},
    ),
    "bentoml": Shape(
        "bentoml_service_request_total",
        {"http_response_code": "200"},
        {"http_response_code": "500"},
        "bentoml_service_request_duration_seconds",
        "0.1",
        {"namespace": "shop"},
    ),
    "istio": Shape(
        "istio_requests_total",
        {"response_code": "200"},
        {"response_code": "503"},
        "istio_request_duration_milliseconds",
        "100",
        {"destination_workload_namespace": "shop", "reporter": "source", "request_protocol": "http"},
    ),
    "istio-grpc": Shape(
        "istio_requests_total",
        {"response_code": "200", "grpc_response_status": "0"},
        {"response_code": "200", "grpc_response_status": "14"},
        "istio_request_duration_milliseconds",
        "100",
        {"destination_workload_namespace": "shop", "reporter": "source", "request_protocol": "grpc"},
    ),
    "envoy-gateway": Shape(
        "envoy_cluster_upstream_rq_xx",
        {"envoy_response_code_class": "2"},
        {"envoy_response_code_class": "5"},
        "envoy_cluster_upstream_rq_time",
        "100",
    ),
    "linkerd": Shape(
        "response_total",
        {"classification": "success"},
        {"classification": "failure"},
        "response_latency_ms",
        "100",
        {"namespace": "shop", "direction": "inbound"},
    ),
}


def openmetrics(shape: Shape, pods: Sequence[Pod], *, interval_s: float = 5.0, seed: int = 1) -> list[str]:
    """The samples of all pods in OpenMetrics' text format. A series of failures starts with the first failure."""
    rng = random.Random(seed)
    lines = []
    for pod in pods:
        shared = {**pod.labels, **shape.common}
        started_s = pod.begin_s - (1e6 if pod.before else 1)
        for at_s, total, failed, slow in pod.counts(rng, interval_s):
            if shape.says_start:
                started_s = max([started_s, *(restart_s for restart_s in pod.restarts if restart_s <= at_s)])
                lines.append(_line("process_start_time_seconds", shared, started_s, at_s))
            lines.append(_line(shape.requests, {**shared, **shape.good}, total - failed, at_s))
            if failed:
                lines.append(_line(shape.requests, {**shared, **shape.bad}, failed, at_s))
            buckets = {**dict.fromkeys((shape.bound, *shape.bounds), total - slow), "+Inf": total}
            lines += [
                _line(f"{shape.histogram}_bucket", {**shared, "le": le}, count, at_s) for le, count in buckets.items()
            ]
    return lines


def _line(name: str, labels: Mapping[str, str], value: float, at_s: float) -> str:
    written = ",".join(f'{label}="{text}"' for label, text in labels.items())
    return f"{name}{{{written}}} {value} {at_s:.3f}"


def fill(folder: Path, lines: Sequence[str], promtool: str) -> None:
    """Write samples into the data folder of a stopped Prometheus."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "samples").write_text("\n".join([*sorted(lines, key=lambda line: line.partition("{")[0]), "# EOF", ""]))
    command = [promtool, "tsdb", "create-blocks-from", "openmetrics", "samples", "data"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)


@contextmanager
def prometheus_with(folder: Path, lines: Sequence[str], *, prometheus: str, promtool: str) -> Iterator[str]:
    """A Prometheus that has these samples; yields its URL."""
    fill(folder, lines, promtool)
    with running(folder, prometheus) as url:
        yield url


@contextmanager
def running(
    folder: Path,
    prometheus: str,
    *,
    port: int | None = None,
    most_samples: int = 50_000_000,
    config: Mapping[str, object] | None = None,
) -> Iterator[str]:
    """A Prometheus on the data of `folder`; yields its URL."""
    (folder / "prometheus.yml").write_text(json.dumps(config or {"global": {"scrape_interval": "5s"}}))
    shutil.rmtree(folder / "data" / "wal", ignore_errors=True)
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        prometheus,
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=data",
        "--storage.tsdb.retention.time=100y",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--query.max-samples={most_samples}",
    ]
    with (folder / "log").open("w") as log, started(command, cwd=folder, stdout=log, stderr=log):
        deadline = time.monotonic() + 120
        while True:
            try:
                HTTP.get(f"{url}/-/ready").raise_for_status()
                break
            except httpx.HTTPError:
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)
        yield url
