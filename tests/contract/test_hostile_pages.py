"""A version controls its metrics page: hostile content affects neither the control loop nor another version."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from contract import loopback
from contract import metrics as declared
from contract.metrics import FEEDBACK, OF_VERSIONS
from kanaria.stack.compatibility import GoldenRequest
from kanaria.stack.ports import free_port
from kanaria.stack.preflight import replay
from monitoring.prometheus.configuration import (
    JOBS,
    VERSIONS,
    PrometheusSettings,
    Target,
    file_sd,
    prometheus_command,
    prometheus_config,
)
from rollout.errors import SourceUnreachable
from rollout.fleet import Backend
from rollout.judge.types import Pair
from rollout.routers.envoy.metrics import EnvoyMetrics
from rollout.signals.custom import CustomSignal
from rollout.sources.own_page import findings, look
from rollout.sources.page import parsed
from rollout.sources.scrape import ScrapeSource
from service.server import metrics
from tests.support.peak import at_most
from tests.support.processes import until
from tests.support.running_server import running_server

STABLE, CANARY = "digits:v1", "digits:v2"
GATEWAY = b'envoy_kanaria_predict_total{version="digits:v2",routed="digits:v2",code="503"} 7\n'
OWN = {"own": CustomSignal(bad="bad_total", of="all_total")}
TIMEOUT_S = 1.0  # enough to read the other pages on a busy machine


@contextmanager
def server(say: "type[BaseHTTPRequestHandler]") -> Iterator[int]:
    """A server on a free port, until the block ends."""
    made = ThreadingHTTPServer(("127.0.0.1", 0), say)
    made.daemon_threads = True
    with running_server(made):
        yield made.server_port


def handler(*parts: bytes, head: bytes = b"", again: bytes = b"", pause_s: float = 0.0) -> type[BaseHTTPRequestHandler]:
    """A handler with this answer; `again` is repeated until the client leaves or half a minute has passed."""

    class Says(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            try:
                self.wfile.write(b"HTTP/1.0 200 OK\r\n" + head + b"\r\n" + b"".join(parts))
                ends_s = time.monotonic() + 30
                while again and time.monotonic() < ends_s:
                    self.wfile.write(again)
                    time.sleep(pause_s)
            except OSError:
                return

        do_POST = do_GET  # noqa: N815 - the name that http.server calls

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    return Says


PACKED = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00"
HOSTILE = {
    "endless": handler(again=b"bad_total 1\n" * 5000),
    "slow": handler(again=b"#", pause_s=TIMEOUT_S / 5),
    "compressed": handler(PACKED, head=b"content-encoding: gzip\r\n"),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_an_endless_page_does_not_block_the_other_pages(how: str) -> None:
    """The counts of the gateway and of the other version are read each time."""
    page = generate_page(STABLE, "correct", 3)
    with server(handler(GATEWAY)) as gateway, server(handler(page)) as stable, server(HOSTILE[how]) as canary:
        backends = Backend(STABLE, "127.0.0.1", stable), Backend(CANARY, "127.0.0.1", canary)
        source = ScrapeSource(EnvoyMetrics(f"127.0.0.1:{gateway}"), timeout_s=TIMEOUT_S)
        source.has_read = True
        for _ in range(3):
            found = source.read(backends)
            assert found.counters[f"127.0.0.1:{gateway}", CANARY, "errors"] == Pair(7, 7)
            assert found.counters[f"127.0.0.1:{stable}", STABLE, "wrong_label"] == Pair(0, 3)
        alone = (Backend(STABLE, "127.0.0.1", 1, has_metrics=False), backends[1])
        assert source.read(alone).counters[f"127.0.0.1:{gateway}", CANARY, "errors"] == Pair(7, 7)
        source.close()
        with pytest.raises(SourceUnreachable, match="no metrics that can be read"):
            look(backends[1], OWN, timeout_s=TIMEOUT_S)


def test_a_line_with_very_many_labels_is_ignored() -> None:
    """Reading such a line of 13 MB takes an hour, in which the control loop would stand still."""
    labels = ",".join(f'l{number}="v"' for number in range(1_000_000))
    text = f'kanaria_feedback_total{{{labels}}} 1\n{FEEDBACK.name}{{version="{CANARY}",outcome="correct"}} 3\n'
    text += f"bad_total{{{labels}}} 1\nall_total 2\n"
    assert [sample.value for sample in parsed(text, [FEEDBACK.name])] == [3.0]
    assert [sample.value for sample in parsed(text, ["bad_total", "all_total"], is_foreign=True)] == [2.0]
    assert ["bad_total" in finding.saw for finding in findings(text, OWN)] == [True]


def test_an_endless_answer_fails_the_preflight(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not fill the memory."""
    monkeypatch.setattr("kanaria.stack.preflight._LARGEST_ANSWER", 10_000)
    golden = [GoldenRequest(features=[[1.0]], predictions=[{"label": "1"}])]
    with server(HOSTILE["endless"]) as canary:
        (said,) = replay(Backend(CANARY, "127.0.0.1", canary), golden).differences
    assert "longer than 10,000 bytes" in said


def test_an_answer_with_millions_of_mistakes_fails_by_the_first() -> None:
    """Listing them all took 400 times as much of the controller's memory as the length of the answer."""
    answer = b'{"version":"m:v2","predictions":[' + b"1," * 100_000 + b"1]}"
    golden = [GoldenRequest(features=[[1.0]], predictions=[{"label": "1"}])]
    with server(handler(answer)) as canary, at_most(megabytes=20):
        (said,) = replay(Backend(CANARY, "127.0.0.1", canary), golden).differences
    assert "breaks the contract: ('predictions', 0)" in said


def generate_page(version: str, outcome: str, value: object) -> bytes:
    return f'{FEEDBACK}{{version="{version}",outcome="{outcome}"}} {value}\n'.encode()


@pytest.mark.parametrize("value", ["+Inf", "-Inf", "NaN", "-5", "1e300", str(2**70)])
def test_an_impossible_count_is_ignored(value: str) -> None:
    """Otherwise each tick of the control loop would fail, or the value would not fit into the ledger."""
    own = f"bad_total {value}\nall_total {value}\n".encode()
    with server(handler(GATEWAY)) as gateway, server(handler(generate_page(CANARY, "wrong", value), own)) as canary:
        backends = (Backend(CANARY, "127.0.0.1", canary),)
        with ScrapeSource(EnvoyMetrics(f"127.0.0.1:{gateway}"), timeout_s=TIMEOUT_S) as source:
            found = source.read(backends, own=[OWN["own"].counter])
    assert {key[2] for key in found.counters if key[0] == backends[0].address} == set()


def test_a_version_cannot_count_for_another() -> None:
    """A canary could make stable look bad, and thereby itself better."""
    pages = generate_page(CANARY, "correct", 5), generate_page(STABLE, "wrong", 1000)
    with server(handler(GATEWAY)) as gateway, server(handler(*pages)) as canary:
        backends = (Backend(CANARY, "127.0.0.1", canary),)
        with ScrapeSource(EnvoyMetrics(f"127.0.0.1:{gateway}"), timeout_s=TIMEOUT_S) as source:
            found = source.read(backends)
    assert {key[1] for key in found.counters if key[0] == backends[0].address} == {CANARY}


ITS_OWN = ["kanaria_feedback_total", "kanaria_request_duration_seconds_bucket", "kanaria_confidence_sum", "chat"]
NOT_ITS_OWN = [
    *("envoy_kanaria_predict_total", "envoy_cluster_upstream_rq_time_bucket", "slo:events:increase5m", "ALERTS"),
    *(
        "kanaria_ledger_head",
        "kanaria_release_state",
        "kanaria_gateway_silent_seconds",
        "up",
        "scrape_duration_seconds",
    ),
]


def test_a_version_cannot_imitate_metrics_of_the_gateway_or_the_controller(
    tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """Alerts and people rely on those. A page may hold only what a version and its own service count."""
    lines = [f'{name}{{version="{CANARY}",code="200"}} 1e6\n' for name in (*NOT_ITS_OWN, *ITS_OWN)]
    config, listen = tmp_path / "prometheus.yml", f"127.0.0.1:{free_port()}"
    settings = PrometheusSettings(targets_dir=tmp_path, scrape_interval_s=0.25, rule_files=())
    config.write_text(prometheus_config(settings))
    program = require_program("prometheus")
    command = prometheus_command(program, config=config, data_dir=tmp_path / "data", listen=listen)

    def names() -> set[str]:
        with suppress(httpx.HTTPError, ValueError), loopback.client(timeout_s=2.0) as http:
            asked = {"match[]": f'{{version="{CANARY}"}}'}
            answer = http.get(f"http://{listen}/api/v1/label/__name__/values", params=asked)
            return set(answer.json()["data"])
        return set()

    with server(handler(*map(str.encode, lines))) as canary, (tmp_path / "log").open("w") as log:
        for job in JOBS:
            targets = [Target(f"127.0.0.1:{canary}")] if job == VERSIONS else []
            (tmp_path / f"{job}.json").write_text(file_sd(targets))
        with subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                # Prometheus shows the series of a page one by one; the forbidden ones come first.
                assert until(lambda: (found := names()) >= set(ITS_OWN) and found, limit_s=120.0) == set(ITS_OWN)
            finally:
                process.terminate()


def test_every_metric_of_a_version_is_on_the_list_that_prometheus_keeps() -> None:
    """Prometheus would drop any other."""
    made = re.findall(r"_made\(prometheus\.\w+, m\.([A-Z_]+)", Path(metrics.__file__).read_text())
    assert {getattr(declared, name) for name in made} == {*OF_VERSIONS}
