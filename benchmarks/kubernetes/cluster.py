"""A Prometheus with an hour of a release's samples, and a judge that reads them, as processes of this machine."""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.errors import BenchmarkError
from contract import loopback
from contract import metrics as m
from kanaria.stack.ports import free_port

INTERVAL_S = 5.0
HISTORY_S = 1800.0  # of stable, before the release
AHEAD_S = 1200.0  # of samples after now, so that there are new ones during the measurement
TOKEN = "a-token-of-the-benchmark"  # noqa: S105 - only this benchmark uses it
STABLE, CANARY = "stable-6c", "canary-7f"
_PER_SCRAPE = 40  # requests of a pod
_STARTS_IN_S = 60.0


def samples(pods: int, hours: float, classes: int, now_s: float) -> Iterator[str]:
    """The lines of all pods in OpenMetrics' text format, series by series.

    Args:
        pods: of both versions together; one is the canary's.
        hours: since the canary's first sample.
        classes: that the model predicts.
        now_s: Unix seconds.
    """
    rng = random.Random(7)  # noqa: S311 - seeded on purpose
    begin_s = now_s - 3600 * hours
    for pod in range(pods):
        is_canary = pod == 0
        labels = f'namespace="shop",pod="p{pod}",rollouts_pod_template_hash="{CANARY if is_canary else STABLE}"'
        first_s = begin_s if is_canary else begin_s - HISTORY_S
        times = [first_s + 0.01 * pod + INTERVAL_S * n for n in range(int((now_s + AHEAD_S - first_s) / INTERVAL_S))]
        shares = {
            f'{m.REQUESTS}{{{labels},status_class="2xx"}}': 0.999,
            f'{m.REQUESTS}{{{labels},status_class="5xx"}}': 0.001,
        }
        shares |= {f'{m.PREDICTIONS}{{{labels},label="class {each}"}}': 1 / classes for each in range(classes)}
        for histogram in (m.REQUEST_DURATION, m.CONFIDENCE):
            bounds = [*map(str, histogram.bounds), "+Inf"]
            shares |= {
                f'{histogram.bucket}{{{labels},le="{le}"}}': (n + 1) / len(bounds) for n, le in enumerate(bounds)
            }
        for series, share in shares.items():
            value = 0
            for at_s in times:
                value += _events(rng, share)
                yield f"{series} {value} {at_s:.3f}"


def _events(rng: random.Random, share: float) -> int:
    """About this share of a scrape's requests."""
    expected = _PER_SCRAPE * share
    whole = int(expected)
    return whole + (rng.random() < expected - whole)


@contextmanager
def prometheus(folder: Path, lines: Iterator[str]) -> Iterator[str]:
    """Run a Prometheus with these samples; yields its URL. Raises BenchmarkError if it is not installed."""
    programs = {name: shutil.which(name) for name in ("prometheus", "promtool")}
    if missing := [name for name, path in programs.items() if path is None]:
        raise BenchmarkError(f"{missing[0]} is not installed", saw=os.environ.get("PATH", ""), do="install Prometheus")
    with (folder / "samples").open("w") as file:
        file.writelines(f"{line}\n" for line in lines)
        file.write("# EOF\n")
    fill = [str(programs["promtool"]), "tsdb", "create-blocks-from", "openmetrics", "samples", "data"]
    subprocess.run(fill, cwd=folder, check=True, capture_output=True)
    (folder / "samples").unlink()
    (folder / "prometheus.yml").write_text("global: {scrape_interval: 5s}\n")
    address = f"127.0.0.1:{free_port()}"
    command = [str(programs["prometheus"]), "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    command += [f"--web.listen-address={address}", "--storage.tsdb.retention.time=100y"]
    with _running(command, folder, f"http://{address}/-/ready"):
        yield f"http://{address}"


@contextmanager
def judge(folder: Path, prometheus_url: str) -> Iterator[tuple[str, int]]:
    """Run a judge that has not been asked yet; yields its URL and its pid."""
    folder.mkdir()
    (folder / "token").write_text(TOKEN)
    port = free_port()
    command = [sys.executable, "-m", "kanaria", "judge", "serve", f"--prometheus={prometheus_url}", f"--port={port}"]
    command += ["--token-file=token", "--ledger=judge.db"]
    with _running(command, folder, f"http://127.0.0.1:{port}/readyz") as pid:
        yield f"http://127.0.0.1:{port}", pid


@contextmanager
def _running(command: Sequence[str], folder: Path, ready_url: str) -> Iterator[int]:
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment)
        try:
            deadline_s = time.monotonic() + _STARTS_IN_S
            while not loopback.answers(ready_url, timeout_s=1.0):
                if time.monotonic() > deadline_s or process.poll() is not None:
                    saw = (folder / "log").read_text()[-500:]
                    raise BenchmarkError(f"{Path(command[0]).name} does not start", saw=saw, do="see its output")
                time.sleep(0.1)
            yield process.pid
        finally:
            process.kill()
            process.wait()


def ask(http: loopback.Client, rollout: str) -> float:
    """How long one answer takes, seconds. Raises BenchmarkError if the judge gives no verdict."""
    question = {"namespace": "shop", "rollout": rollout, "canary": CANARY, "stable": STABLE, "to_percent": 25}
    began_s = time.perf_counter()
    answer = http.post("/v1/judge", json={**question, "profile": "service"})
    took_s = time.perf_counter() - began_s
    if not answer.is_success or answer.json()["verdict"] == "no_data":
        raise BenchmarkError("the judge gives no verdict", saw=answer.text[:500], do="see its log")
    return took_s
