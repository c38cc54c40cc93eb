"""How `kanaria judge explain` and `serve` reach a Prometheus: accepted options, and errors for wrong ones."""

import json
import ssl
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from typer.testing import CliRunner, Result

from kanaria.cli import app
from tests.support.certificates import Pair, pair
from tests.support.running_server import running_server


class _MultiTenantStore(BaseHTTPRequestHandler):
    """A multi-tenant store under its own path, without any series."""

    def do_POST(self) -> None:
        query = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())["query"]
        result = [{"metric": {}, "value": [0, "1700000000"]}] if query == ["time()"] else []
        kind = "matrix" if query[0].endswith("ms]") else "vector"
        status, text = 200, json.dumps({"status": "success", "data": {"resultType": kind, "result": result}})
        if self.headers["X-Scope-OrgID"] != "shop":
            status, text = 401, "no org id\n"
        elif not self.path.startswith("/prometheus/api/v1/"):
            status, text = 404, "no such page\n"
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Writes no log."""


@pytest.fixture
def certificate(tmp_path: Path) -> Pair:
    return pair(tmp_path / "certificates")


@pytest.fixture
def store(certificate: Pair) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _MultiTenantStore) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certificate, certificate.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        with running_server(server):
            yield f"https://127.0.0.1:{server.server_port}/prometheus"


def explained(prometheus: str, *options: str) -> Result:
    command = ["judge", "explain", "--prometheus", prometheus, "--canary", "v2", "--stable", "v1", *options]
    return CliRunner().invoke(app, command)


def test_a_multi_tenant_store_behind_its_own_certificate_authority_is_read(store: str, certificate: Pair) -> None:
    """Mimir and OpenShift's Prometheus are like this. Without one of the options, the answer names the option."""
    trusting = ("--prometheus-ca", str(certificate.authority))
    tenant = ("--prometheus-header", "X-Scope-OrgID: shop")
    read = explained(store, *trusting, *tenant)
    assert (read.exit_code, "there is no series kanaria_requests_total: check" in read.output) == (3, True), read.output
    unknown = explained(store, *tenant)
    assert "--prometheus-ca" in unknown.output
    assert explained(store, *trusting, *tenant, "--prometheus-header", "X-Scope-OrgID: other").exit_code != 3
    nobody = explained(store, *trusting)
    assert "--prometheus-header 'X-Scope-OrgID: shop'" in " ".join(nobody.output.split())


NOW_S = 1_700_000_000


class _ArgoStore(BaseHTTPRequestHandler):
    """A store in which two services scraped stable's pod until recently; the canary began a minute ago."""

    second_until_s = 60

    def do_POST(self) -> None:
        query = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())["query"][0]
        kind, result = ("matrix", self.series(query)) if query.endswith("ms]") else ("vector", [])
        if query == "time()":
            result = [{"metric": {}, "value": [0, f"{NOW_S}"]}]
        text = json.dumps({"status": "success", "data": {"resultType": kind, "result": result}})
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def series(self, query: str) -> list[dict[str, object]]:
        return [
            {
                "metric": {
                    "__name__": "kanaria_requests_total",
                    "namespace": "default",
                    "rollouts_pod_template_hash": version,
                    "pod": version,
                    "job": job,
                    "code": "200",
                },
                "values": [[NOW_S - ago, f"{1000 - ago}"] for ago in range(first, last, -5)],
            }
            for version, job, first, last in (
                ("v1", "stable", 290, 0),
                ("v1", "canary", 290, self.second_until_s),
                ("v2", "canary", 60, 0),
            )
            if f'"{version}"' in query and "kanaria_requests_total" in query
        ]

    def log_message(self, *_: object) -> None:
        """Writes no log."""


@pytest.mark.parametrize(("second_until_s", "is_twice"), [(60, False), (30, True)])
def test_only_series_scraped_twice_within_the_release_count_as_double(second_until_s: int, is_twice: bool) -> None:
    """Both services of Argo Rollouts have stable's pods until there is a canary."""
    kind = type("_ArgoStore", (_ArgoStore,), {"second_until_s": second_until_s})
    with running_server(ThreadingHTTPServer(("127.0.0.1", 0), kind)) as server:
        done = explained(f"http://127.0.0.1:{server.server_port}")
    assert "errors, v2: 1 series of 1 pod" in done.output, done.output
    assert ("each event would count twice" in done.output) is is_twice, done.output


@pytest.mark.parametrize(
    ("prometheus", "options", "words"),
    [
        ("https://me:secret@prometheus.example", (), "--prometheus-login FILE"),
        ("https://prometheus.example/?dedup=true", (), "dedup=true"),
        ("https://prometheus.example/#graph", (), "has parameters"),
        ("https://prometheus.example", ("--prometheus-header", "X-Scope-OrgID"), "--prometheus-header"),
        ("https://prometheus.example", ("--prometheus-header", "X-Scope-OrgID:"), "--prometheus-header"),
        ("https://prometheus.example", ("--prometheus-header", "a b: c"), "--prometheus-header"),
        ("https://prometheus.example", ("--prometheus-header", "a: secret\nb: c"), "--prometheus-header"),
        ("https://prometheus.example", ("--prometheus-header", "Authorization: secret"), "--prometheus-login FILE"),
        ("https://prometheus.example", ("--prometheus-ca", "missing.pem"), "missing.pem"),
        ("https://prometheus.example", ("--prometheus-ca", __file__), "in PEM"),
    ],
)
def test_an_address_or_option_that_cannot_work_is_reported(
    prometheus: str, options: tuple[str, ...], words: str
) -> None:
    """The exit code is 2, and the output contains no secret."""
    done = explained(prometheus, *options)
    output = " ".join(done.output.split())
    assert (done.exit_code, words in output, "secret" in output) == (2, True, False), output
