"""`make audit` reports packages with known vulnerabilities; an unreachable service is not good news."""

import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

import pytest

from tests.support.paths import ROOT
from tests.support.running_server import running_server

pytestmark = pytest.mark.needs("audit")


class Service:
    """A vulnerability service that speaks OSV's API and answers as the test sets it."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}  # package -> known vulnerabilities
        self.asked: dict[str, str] = {}  # package -> version

    def answer(self, query: dict[str, object]) -> dict[str, object]:
        package = query["package"]
        assert isinstance(package, dict)
        self.asked[package["name"]] = str(query["version"])
        if package["name"] not in self.known:
            return {}
        return {"vulns": [{"id": self.known[package["name"]], "summary": "it is", "affected": [], "aliases": []}]}


@pytest.fixture
def service() -> Iterator[tuple[Service, str]]:
    known = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["content-length"])))
            body = json.dumps(known.answer(query)).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with running_server(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield known, f"http://127.0.0.1:{server.server_port}/v1/query"


def audit(url: str) -> subprocess.CompletedProcess[str]:
    """`make audit ARGS="--osv-url URL"`."""
    command = [sys.executable, str(ROOT / ".ci" / "audit.py"), "--osv-url", url, "--timeout", "10"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_package_with_a_known_vulnerability_is_named(service: tuple[Service, str]) -> None:
    """The audit sends the installed version of every package."""
    known, url = service
    clean = audit(url)
    assert (clean.returncode, "No known vulnerabilities found" in clean.stdout) == (0, True), clean.stderr
    assert known.asked["pydantic"] == version("pydantic")
    known.known["pydantic"] = "GHSA-0000-0000-0000"
    found = audit(url)
    assert (found.returncode, "GHSA-0000-0000-0000" in found.stdout) == (1, True), found.stderr


def test_an_unreachable_service_has_its_own_error() -> None:
    """The result is neither "nothing known" nor "something known": it says what to do, without a traceback."""
    done = audit("http://127.0.0.1:9/v1/query")
    assert done.returncode == 2
    assert done.stderr.startswith("audit: the vulnerability service did not answer, so nothing is known\n  saw: ")
    assert "make audit ARGS='--osv-url URL'" in done.stderr
    assert "Traceback" not in done.stderr
