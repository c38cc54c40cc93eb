"""At their own ports, versions answer only clients with their secret: models of the contract and other services."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from contract.http import CALLER_HEADER, SECRET_HEADER
from kanaria.stack.stack import CLOSED_PORTS
from kanaria.stack.supervision import Supervisor
from tests.support.asking import HTTP
from tests.support.endless import MOST, accepted_bytes
from tests.support.own_service import store_with
from tests.support.processes import until
from tests.support.stack import Kanaria
from tests.support.web_socket import WebSocket

OTHERS = [{}, {SECRET_HEADER: "guessed"}, {SECRET_HEADER: "", CALLER_HEADER: "shop"}, {"authorization": "Bearer x"}]

# Returns what it was sent, and calls another service of its Bento, which BentoML puts at a Unix socket.
CURIOUS = """
import os
import bentoml
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute

async def headers(request):
    return JSONResponse({"headers": dict(request.headers), "variables": dict(os.environ)})

async def talk(socket):
    await socket.accept()
    while True:
        await socket.send_text(socket.headers.get(await socket.receive_text(), "none"))

APP = Starlette(routes=[Route("/headers", headers), WebSocketRoute("/talk", talk)])

@bentoml.service
class Inner:
    @bentoml.api
    def turn(self, text: str) -> str:
        return text[::-1]

@bentoml.service(name="summary")
@bentoml.asgi_app(APP, path="/app")
class Summary:
    inner = bentoml.depends(Inner)

    @bentoml.api
    def summarize(self, text: str) -> dict:
        return {"summary": self.inner.turn(text=text)}
"""

# Not a Bento. Checks the secret itself if its entry requests one, and returns the headers it was sent.
LISTED = """
import http.server, json, os, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        secret = os.environ.get("KANARIA_PORT_SECRET")
        self.send_response(403 if secret and self.headers.get("x-kanaria-secret") != secret else 200)
        self.end_headers()
        self.wfile.write(json.dumps(list(self.headers)).encode())

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def url_of(kanaria: Kanaria) -> str:
    """The version's own port, which every user of the machine can find out."""
    (record,) = (kanaria.home / "versions").glob("*.json")
    return f"http://127.0.0.1:{json.loads(record.read_bytes())['port']}"


def secret_of(kanaria: Kanaria) -> str:
    return (kanaria.home / "version-secret").read_text().strip()


def counts(kanaria: Kanaria) -> dict[tuple[str, ...], float]:
    """The counters of the version."""
    page = HTTP.get(f"{url_of(kanaria)}/metrics", headers={SECRET_HEADER: secret_of(kanaria)}).raise_for_status().text
    return {
        (sample.name, *map(str, sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name.startswith("kanaria_") and sample.name.endswith("_total")
    }


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, bento_home: Path, require_program: Callable[[str], str]
) -> Iterator[Kanaria]:
    """A model of the contract, and Prometheus."""
    require_program("envoy")
    require_program("prometheus")
    made = Kanaria.at(tmp_path_factory.mktemp("stack"), bento_home)
    made.ok("up", "digits:v1")
    yield made
    made("down")


@pytest.fixture(scope="module")
def curious(tmp_path_factory: pytest.TempPathFactory, require_program: Callable[[str], str]) -> Iterator[Kanaria]:
    """A service that does not know Kanaria."""
    require_program("envoy")
    store = store_with(tmp_path_factory.getbasetemp().parent, "curious", {"curious": {"service": CURIOUS}})
    made = Kanaria.at(tmp_path_factory.mktemp("curious-stack"), store, KANARIA_METRICS="scrape")
    made.ok("up", "summary:curious")
    yield made
    made("down")


@pytest.mark.parametrize("endless", ["headers", "trailer value"])
@pytest.mark.parametrize("kind", ["stack", "curious"])
def test_an_endless_request_does_not_fill_a_versions_memory(
    request: pytest.FixtureRequest, kind: str, endless: str
) -> None:
    """A client without the secret is refused only after its headers have arrived."""
    kanaria: Kanaria = request.getfixturevalue(kind)
    assert accepted_bytes(url_of(kanaria), endless) < MOST / 2
    HTTP.get(f"{url_of(kanaria)}/livez", headers={SECRET_HEADER: secret_of(kanaria)}).raise_for_status()


def key_of(kanaria: Kanaria) -> dict[str, str]:
    return {"x-api-key": (kanaria.home / "api-key").read_text().strip()}


def test_a_model_answers_only_the_gateway_and_counts_nothing_else(stack: Kanaria, samples: Path) -> None:
    """Other clients get no prediction, cannot label under another caller's name, and see neither metrics nor probes."""
    body = {"features": [json.loads(samples.read_text().splitlines()[0])["features"]]}
    answered = HTTP.post(f"{stack.gateway}/predict", json=body, headers=key_of(stack)).raise_for_status().json()
    before = counts(stack)
    assert before
    label = {"request_id": answered["request_id"], "labels": ["3"]}
    with httpx.Client(base_url=url_of(stack), timeout=60) as client:
        for headers in OTHERS:
            for answer in (
                client.post("/predict", json=body, headers=headers),
                client.post("/feedback", json=label, headers=headers),
                *(client.get(path, headers=headers) for path in ("/metrics", "/livez", "/readyz", "/docs.json", "/")),
            ):
                assert answer.status_code == 403
                assert "call the gateway" in answer.json()["detail"]
                assert secret_of(stack) not in answer.text
    assert counts(stack) == before


def test_the_owner_can_call_a_version_directly(stack: Kanaria, samples: Path) -> None:
    """This is for finding a fault, as the page about the service says."""
    body = {"features": [json.loads(samples.read_text().splitlines()[0])["features"]]}
    answer = HTTP.post(f"{url_of(stack)}/predict", json=body, headers={SECRET_HEADER: secret_of(stack)})
    assert answer.status_code == 200


def test_no_client_of_the_gateway_can_set_or_see_the_secret(curious: Kanaria) -> None:
    """The header is replaced, and the service never sees the secret, so it cannot pass it on or return it."""
    with httpx.Client(base_url=curious.gateway, headers=key_of(curious), timeout=60) as client:
        for sent in ({}, {SECRET_HEADER: "of a client"}):
            answer = client.get("/app/headers", headers=sent).raise_for_status()
            assert SECRET_HEADER not in answer.json()["headers"]
            assert secret_of(curious) not in answer.text + str(answer.headers)
            assert "of a client" not in answer.text
    port = httpx.URL(curious.gateway).port
    with WebSocket(port, "/app/talk", key_of(curious) | {SECRET_HEADER: "of a client"}) as talk:
        assert talk.ask("host") == "test"
        assert talk.ask(SECRET_HEADER) == "none"


def test_a_service_that_does_not_know_kanaria_answers_only_the_gateway(curious: Kanaria) -> None:
    """This includes its applications and WebSockets; the services of one Bento still call each other."""
    url = url_of(curious)
    for headers in OTHERS:
        asked = [
            HTTP.post(f"{url}/summarize", json={"text": "abc"}, headers=headers),
            *(HTTP.get(url + path, headers=headers) for path in ("/app/headers", "/metrics", "/livez", "/")),
        ]
        assert {answer.status_code for answer in asked} == {403}
        with WebSocket(httpx.URL(url).port, "/app/talk", headers) as talk:
            assert talk.status == 403
    answer = HTTP.post(f"{curious.gateway}/summarize", json={"text": "abc"}, headers=key_of(curious))
    assert answer.json() == {"summary": "cba"}


def test_a_version_opens_only_its_own_port(stack: Kanaria, curious: Kanaria) -> None:
    """Circus, which starts BentoML's workers, accepted any user's commands at another port, even to start a program."""
    for kanaria, name in ((stack, "digits@v1"), (curious, "summary@curious")):
        main = psutil.Process(kanaria.pid(name))
        processes = [main, *main.children(recursive=True)]
        listening = {
            one.laddr.port
            for process in processes
            for one in process.net_connections(kind="inet")
            if one.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)
        }
        assert (listening, len(processes) > 1) == ({httpx.URL(url_of(kanaria)).port}, True)


def test_prometheus_reads_the_counters_of_a_version(stack: Kanaria) -> None:
    """It uses the secret from a file of the owner."""
    address = (stack.home / "prometheus" / "url").read_text().strip()
    user, _, password = (stack.home / "prometheus-login").read_text().strip().partition(":")

    def up() -> list[Any]:
        asked = {"query": 'up{job="service"}'}
        answer = HTTP.get(f"{address}/api/v1/query", params=asked, auth=(user, password))
        return [found["value"][1] for found in answer.json()["data"]["result"]]

    assert until(lambda: up() == ["1"])


def content(path: Path) -> bytes:
    """The content of a file; empty if a process has replaced or removed it meanwhile."""
    with suppress(FileNotFoundError):
        return path.read_bytes()
    return b""


def test_only_the_owner_can_read_the_secret(stack: Kanaria, curious: Kanaria) -> None:
    """It is not in command lines, which all users see, nor in logs, the ledger or Prometheus's data."""
    allowed = {"version-secret", "programs", "gateway"}
    for kanaria in (stack, curious):
        secret = secret_of(kanaria).encode()
        files = [path for path in kanaria.home.rglob("*") if path.is_file()]
        holders = [path for path in files if secret in content(path)]
        assert {path.relative_to(kanaria.home).parts[0] for path in holders} <= allowed
        assert [path for path in holders if path.stat().st_mode & 0o077] == []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                assert secret.decode() not in " ".join(process.cmdline())
        assert secret not in HTTP.get(f"{kanaria.controller}/api/status").content
        assert secret not in HTTP.get(f"{kanaria.controller}/metrics").content


def test_a_restarted_version_requires_the_same_secret(stack: Kanaria, samples: Path) -> None:
    """The gateway, whose configuration did not change, reaches it."""
    body = {"features": [json.loads(samples.read_text().splitlines()[0])["features"]]}
    stack.ok("processes", "restart", "digits@v1")
    asked = {"json": body, "headers": key_of(stack)}
    assert until(lambda: HTTP.post(f"{stack.gateway}/predict", **asked).status_code == 200)
    assert HTTP.post(f"{url_of(stack)}/predict", json=body).status_code == 403


@pytest.mark.parametrize("asks", [True, False], ids=["requires the secret", "requires none"])
def test_a_version_that_is_not_a_bento_is_sent_the_secret_if_its_entry_says_so(
    asks: bool, tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """It may check it. A version that does not might show it to callers, so it is sent none."""
    require_program("envoy")
    entry = {"command": [sys.executable, "-c", LISTED, "{port}"], "ready": "/ready"} | (
        {"secret": True} if asks else {}
    )
    (tmp_path / "versions.yaml").write_text(json.dumps({"listed:v1": entry}))
    versions = str(tmp_path / "versions.yaml")
    kanaria = Kanaria.at(tmp_path / "state", tmp_path / "bentoml", KANARIA_METRICS="scrape", KANARIA_VERSIONS=versions)
    try:
        kanaria.ok("up", "listed:v1")
        answer = HTTP.get(f"{kanaria.gateway}/any", headers=key_of(kanaria)).raise_for_status()
        assert (SECRET_HEADER in answer.json()) is asks
        assert HTTP.get(f"{url_of(kanaria)}/any").status_code == (403 if asks else 200)
    finally:
        kanaria("down")


def test_a_stack_of_an_earlier_version_continues_with_open_ports(curious: Kanaria) -> None:
    """Its gateway and Prometheus send no secret. `kanaria upgrade` says so, and `down` and `up` close the ports."""
    name, supervisor = "summary@curious", Supervisor(curious.home, curious.home / "logs")
    environment = supervisor.environment()
    with supervisor.taken_over(doing="a test"):
        for each in ("controller", name):
            supervisor.end(each)
        controller = supervisor.program("controller")
        assert controller is not None
        supervisor.replace(replace(controller, command=[word for word in controller.command if word != CLOSED_PORTS]))
        supervisor.stop(name)
        (curious.home / "versions" / f"{name}.json").unlink()
    supervisor.start(environment)

    def asks() -> list[int]:
        asked = {"json": {"text": "abc"}, "headers": key_of(curious)}
        with suppress(httpx.TransportError, ValueError):
            return [HTTP.post(f"{url}/summarize", **asked).status_code for url in (curious.gateway, url_of(curious))]
        return []

    assert until(lambda: asks() == [200, 200])
    assert "can call versions at their own ports until `kanaria down` and `kanaria up`" in curious.ok("upgrade")
    assert until(lambda: asks() == [200, 200])
    targets = curious.home / "prometheus" / "targets"
    assert json.loads((targets / "service-open.json").read_text()) == []
    assert [each["targets"] for each in json.loads((targets / "service.json").read_text())] == [
        [url_of(curious).removeprefix("http://")]
    ]
    curious.ok("down")
    curious.ok("up", "summary:curious")
    assert asks() == [200, 403]
