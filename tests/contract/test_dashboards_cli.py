"""`kanaria dashboards` on the command line."""

import json
import ssl
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.certificates import pair
from tests.support.grafana import ADMIN, FakeGrafana, running
from tests.support.releases import finished
from tests.support.running_server import running_server
from tests.support.stack import run

PROMETHEUS = "http://127.0.0.1:9090"


def dashboards(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-m", "kanaria", "dashboards", *arguments], {"KANARIA_HOME": str(home)} | environment)


def test_a_second_push_reports_that_nothing_changed(tmp_path: Path) -> None:
    """A push writes boards for the given addresses, and an annotation for every decision in the ledger."""
    decisions = len(finished(tmp_path / "ledger.db").decisions)
    with running(FakeGrafana()) as grafana:
        access = {"KANARIA_GRAFANA_URL": grafana.url, "KANARIA_GRAFANA_TOKEN": ADMIN}
        options = ("push", "--prometheus", PROMETHEUS, "--controller", "https://canary.example/")
        first, second = (dashboards(tmp_path, *options, **access) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "unchanged" not in first.stdout
    assert {line.split()[0] for line in second.stdout.splitlines()} == {"unchanged"}
    assert len(grafana.annotations) == decisions
    assert "https://canary.example/releases/1" in grafana.annotations[0]["text"]
    assert grafana.data_sources["kanaria-prometheus"]["url"] == PROMETHEUS
    assert '"https://canary.example"' in json.dumps(grafana.boards["kanaria-overview"])


def test_the_stacks_login_is_sent_only_to_the_stacks_prometheus(tmp_path: Path) -> None:
    """Another URL gets the login from its own file, or none."""
    (tmp_path / "prometheus").mkdir()
    (tmp_path / "prometheus" / "url").write_text(f"{PROMETHEUS}\n")
    (tmp_path / "prometheus-login").write_text("kanaria:own")
    (tmp_path / "theirs").write_text("a-token")
    given = {
        (): "Basic a2FuYXJpYTpvd24=",
        ("--prometheus", f"{PROMETHEUS}/"): "Basic a2FuYXJpYTpvd24=",
        ("--prometheus", "http://elsewhere:9090"): None,
        ("--prometheus", "http://elsewhere:9090", "--prometheus-login", str(tmp_path / "theirs")): "Bearer a-token",
    }
    for options, header in given.items():
        with running(FakeGrafana()) as grafana:
            access = {"KANARIA_GRAFANA_URL": grafana.url, "KANARIA_GRAFANA_TOKEN": ADMIN}
            done = dashboards(tmp_path, "push", *options, **access)
            assert done.returncode == 0, done.stderr
            secrets = grafana.data_sources["kanaria-prometheus"].get("secureJsonData", {})
        assert secrets.get("httpHeaderValue1") == header, options


def test_grafana_gets_prometheus_authority_login_and_headers(tmp_path: Path) -> None:
    """They are in Grafana's own settings for TLS and headers; settings that are no longer given are removed."""
    authority = pair(tmp_path / "certificates").authority
    (tmp_path / "theirs").write_text("a-token")
    login = ("--prometheus-login", str(tmp_path / "theirs"))
    tenant = ("--prometheus-header", "X-Scope-OrgID: shop", "--prometheus-header", "x-team: ml")
    with running(FakeGrafana()) as grafana:
        access = {"KANARIA_GRAFANA_URL": grafana.url, "KANARIA_GRAFANA_TOKEN": ADMIN}
        push = ("push", "--prometheus", "https://mimir.example/prometheus")
        done = dashboards(tmp_path, *push, *login, *tenant, "--prometheus-ca", str(authority), **access)
        assert done.returncode == 0, done.stderr
        kept = grafana.data_sources["kanaria-prometheus"]
        names = {key: value for key, value in kept["jsonData"].items() if key.startswith(("httpHeader", "tls"))}
        assert names == {
            "httpHeaderName1": "Authorization",
            "httpHeaderName2": "X-Scope-OrgID",
            "httpHeaderName3": "x-team",
            "tlsAuthWithCACert": True,
        }
        assert kept["secureJsonData"] == {
            "httpHeaderValue1": "Bearer a-token",
            "httpHeaderValue2": "shop",
            "httpHeaderValue3": "ml",
            "tlsCACert": authority.read_text(),
        }
        done = dashboards(tmp_path, *push, **access)
        assert "updated    data source" in done.stdout, done.stdout + done.stderr
        assert not [key for key in kept["jsonData"] if key.startswith(("httpHeader", "tls"))]


class _OfTenants(BaseHTTPRequestHandler):
    """An empty store with tenants. It does not scrape, so it has no scrape configuration to show."""

    def do_GET(self) -> None:
        is_named = self.headers["X-Scope-OrgID"] == "shop"
        empty = {"status": "success", "data": [] if "/label/" in self.path else {"resultType": "vector", "result": []}}
        status, text = 200, json.dumps(empty)
        if not is_named:
            status, text = 401, "no org id\n"
        elif "/status/config" in self.path:
            status, text = 404, "no such page\n"
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Write nothing."""


def test_a_check_reads_a_multi_tenant_store_with_its_own_certificate_authority(tmp_path: Path) -> None:
    """Mimir is such a store. If one of the two options is missing, the error names it."""
    own = pair(tmp_path / "certificates")
    with ThreadingHTTPServer(("127.0.0.1", 0), _OfTenants) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own.certificate, own.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        check = ("check", "--prometheus", f"https://127.0.0.1:{server.server_port}")
        trusting, tenant = ("--prometheus-ca", str(own.authority)), ("--prometheus-header", "X-Scope-OrgID: shop")
        with running_server(server):
            said = {given: dashboards(tmp_path, *check, *given) for given in ((*trusting, *tenant), trusting, tenant)}
    assert [done.returncode for done in said.values()] == [3, 3, 3], [done.stderr for done in said.values()]
    assert "no traffic" in said[*trusting, *tenant].stderr
    assert "--prometheus-header 'X-Scope-OrgID: shop'" in said[trusting].stderr
    assert "--prometheus-ca FILE" in said[tenant].stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "exit_code", "words"),
    [
        (("push",), {}, 2, "KANARIA_GRAFANA_URL is not set"),
        (("push",), {"KANARIA_GRAFANA_URL": "grafana:3000"}, 2, "KANARIA_GRAFANA_URL"),
        (("push",), {"KANARIA_GRAFANA_URL": "http://127.0.0.1:1"}, 2, "--prometheus URL"),
        (("push", "--prometheus", PROMETHEUS), {"KANARIA_GRAFANA_URL": "http://127.0.0.1:1"}, 3, "does not answer"),
        (("check",), {}, 2, "--prometheus URL"),
        (("check", "--prometheus", "http://127.0.0.1:1"), {}, 3, "Prometheus does not answer"),
        (("check", "--last", "soon"), {}, 2, "15m"),
        (("check", "--prometheus", PROMETHEUS, "--prometheus-ca", "/dev/null"), {}, 2, "--prometheus-ca FILE"),
        (("check", "--prometheus", PROMETHEUS, "--prometheus-header", "Authorization: x"), {}, 2, "--prometheus-login"),
    ],
    ids=[
        "no Grafana",
        "invalid URL",
        "no Prometheus given",
        "Grafana unreachable",
        "no stack",
        "Prometheus unreachable",
        "invalid duration",
        "invalid authority",
        "a login in a header",
    ],
)
def test_each_error_says_what_to_do(
    tmp_path: Path, arguments: tuple[str, ...], environment: dict[str, str], exit_code: int, words: str
) -> None:
    """The error says what to do, and there is no traceback."""
    done = dashboards(tmp_path, *arguments, **environment)
    assert (done.returncode, words in " ".join(done.stderr.split())) == (exit_code, True), done.stderr
    assert "Traceback" not in done.stderr
