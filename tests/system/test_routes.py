"""Every route of a service without the model contract, through the gateway: real BentoML behind a real Envoy."""

import os
import re
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import psutil
import pytest

from contract.loopback import answers
from kanaria.settings import Settings
from kanaria.stack.bentos import service_of
from kanaria.stack.fleet import record_environment
from kanaria.stack.observer_program import ObserverProgram
from kanaria.stack.ports import free_port
from kanaria.stack.version_process import server_command
from rollout.errors import RouterRefused
from rollout.fleet import Backend, Route, Service, Version
from rollout.judge import Pair
from rollout.routers.envoy.settings import ApiKey, GatewaySettings
from rollout.routers.router import Split
from tests.support.asking import HTTP
from tests.support.children import started
from tests.support.gateway_rig import Gateway, StandIn, eventually
from tests.support.own_service import WITHOUT_ROUTES, store_with
from tests.support.web_socket import WebSocket

STABLE, CANARY = "summary:v1", "summary:v2"
MEGABYTE = 2**20


@dataclass(frozen=True)
class Running:
    """A version that `bentoml serve` serves."""

    version: Version
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return self.version.backends[0].url

    def kill(self) -> None:
        """Send SIGKILL to it and its workers."""
        main = psutil.Process(self.process.pid)
        for one in (main, *main.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with two versions of one service, and one without routes."""
    versions = {"v1": {}, "v2": {}, "empty": {"service": WITHOUT_ROUTES}}
    store = store_with(tmp_path_factory.getbasetemp().parent, "summaries", versions)
    before = os.environ.get("BENTOML_HOME")
    os.environ["BENTOML_HOME"] = str(store)
    yield store
    os.environ.pop("BENTOML_HOME") if before is None else os.environ.update(BENTOML_HOME=before)


@contextmanager
def served(home: Path, tag: str) -> Iterator[Running]:
    backend = Backend(tag, "127.0.0.1", free_port())
    log = home / f"{backend.port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            server_command(Settings(runtime="shared"), tag, backend.port), stdout=output, stderr=output
        )
    running = Running(Version((backend,), service_of(tag)), process)

    def is_ready() -> bool:
        assert process.poll() is None, log.read_text()
        with suppress(httpx.TransportError):
            return HTTP.get(f"{backend.url}/readyz").is_success
        return False

    try:
        eventually(is_ready, within_s=180)
        yield running
    finally:
        if process.poll() is None:
            running.kill()


@pytest.fixture(scope="module")
def both(home: Path) -> Iterator[tuple[Running, Running]]:
    with served(home, STABLE) as stable, served(home, CANARY) as canary:
        yield stable, canary


@pytest.fixture(scope="module")
def stable(both: tuple[Running, Running]) -> Running:
    return both[0]


@pytest.fixture(scope="module")
def canary(both: tuple[Running, Running]) -> Running:
    return both[1]


@pytest.fixture
def settings(tmp_path: Path, require_program: Callable[[str], str]) -> GatewaySettings:
    require_program("envoy")
    return GatewaySettings(tmp_path, port=free_port(), stats_port=free_port(), receive_timeout_s=60.0)


@pytest.fixture
def gateway(settings: GatewaySettings) -> Iterator[Gateway]:
    with Gateway(settings) as running:
        running.client.timeout = httpx.Timeout(30.0)
        yield running


def counted(gateway: Gateway) -> dict[tuple[str, str], int]:
    """Requests by (route, code), of all versions."""
    found: Counter[tuple[str, str]] = Counter()
    for name, labels, value in gateway.samples():
        if name == "envoy_kanaria_predict_total":
            found[labels["route"], labels["code"]] += int(value)
    return dict(found)


def only(running: Running) -> Split:
    return Split(running.version)


def test_a_manifest_gives_routes_streams_and_the_time_limit(home: Path) -> None:
    """The routes include those of mounted applications."""
    service = service_of(STABLE)
    assert {route.path: route.is_streamed for route in service.routes} == {
        "/rare": False,
        "/size": False,
        "/summarize": False,
        "/words": True,
        **{
            f"/app/{path}": True for path in ("count", "cut", "echo", "endless", "hello/{name}", "open", "until-opened")
        },
    }
    assert (service.timeout_s, service.keeps_contract) == (25, False)
    assert service_of("summary:empty") == Service((), 60)


def test_every_method_and_path_is_passed(gateway: Gateway, stable: Running) -> None:
    """JSON, forms with files, mounted applications, BentoML's own pages and unknown paths work as without a gateway."""
    gateway.router.apply(only(stable))
    client = gateway.client
    answer = client.post("/summarize", json={"text": "a long text"})
    assert answer.json() == {"summary": "a long text", "length": 11}
    assert answer.headers["x-kanaria-version"] == STABLE
    assert client.post("/size", files={"file": ("a.bin", b"12345")}).json() == 5
    for method in ("GET", "PUT", "DELETE"):
        assert client.request(method, "/app/hello/you?a=1").json() == {"hello": "you", "method": method}
    assert client.post("/words", json={"text": "one two"}).text.split() == ["one", "two"]
    assert "swagger" in client.get("/").text.lower() or client.get("/").is_success
    assert client.get("/docs.json").json()["openapi"]
    assert client.get("/no/such/path").status_code == 404
    assert client.post("/summarize", json={"words": "?"}).status_code == 400
    seen = counted(gateway)
    assert seen["/summarize", "200"] == seen["/summarize", "400"] == seen["/words", "200"] == 1
    assert seen["/app/hello/{name}", "200"] == 3
    assert seen["other", "404"] == 1


@pytest.mark.parametrize(
    "path", ["/metrics", "/metrics/", "/%6detrics", "/app/../metrics", "//metrics", "/metrics?a=1"]
)
def test_a_versions_metrics_are_not_for_clients(gateway: Gateway, stable: Running, path: str) -> None:
    """This holds however the path is written."""
    gateway.router.apply(only(stable))
    with socket.create_connection(("127.0.0.1", gateway.settings.port), timeout=10) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b"bentoml_" not in answer
    assert re.match(rb"HTTP/1.1 (400|404) ", answer)


def test_probes_need_no_key_and_everything_else_does(settings: GatewaySettings, stable: Running) -> None:
    with Gateway(replace(settings, api_keys=(ApiKey("k"),))) as gateway:
        gateway.router.apply(only(stable))
        for path in ("/livez", "/readyz", "/healthz"):
            assert gateway.client.get(path).status_code == 200
        for path in ("/", "/app/hello/you", "/docs.json", "/metrics"):
            assert gateway.client.get(path).status_code == 401
        assert gateway.client.get("/app/hello/you", headers={"x-api-key": "k"}).status_code == 200


def test_a_large_upload_passes_and_one_over_the_limit_does_not(gateway: Gateway, stable: Running) -> None:
    """50 MB with a given length and in chunks pass; 101 MiB are a problem before the version gets a byte."""
    gateway.router.apply(only(stable))
    upload = {"file": ("a.bin", b"x" * 50_000_000)}
    assert gateway.client.post("/size", files=upload).json() == 50_000_000
    request = gateway.client.build_request("POST", "/size", files=upload)
    whole = request.read()
    kind = {"content-type": request.headers["content-type"]}
    chunks = (whole[at : at + MEGABYTE] for at in range(0, len(whole), MEGABYTE))
    assert gateway.client.post("/size", content=chunks, headers=kind).json() == 50_000_000
    with socket.create_connection(("127.0.0.1", gateway.settings.port), timeout=10) as connection:
        connection.sendall(b"POST /size HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (101 * MEGABYTE))
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_body_in_chunks_over_the_limit_is_a_problem(settings: GatewaySettings, stable: Running) -> None:
    with Gateway(replace(settings, max_upload_bytes=MEGABYTE)) as gateway:
        gateway.router.apply(only(stable))
        for body in (b"x" * 2 * MEGABYTE, iter([b"x" * MEGABYTE] * 2)):
            assert gateway.client.post("/app/count", content=body).status_code == 413


def test_a_stream_is_not_held_back(gateway: Gateway, stable: Running) -> None:
    """The client gets the first part while the service waits for the client to ask for the rest."""
    gateway.router.apply(only(stable))
    with gateway.client.stream("GET", "/app/until-opened") as answer:
        parts = answer.iter_text()
        assert next(parts) == "first "
        assert gateway.client.post("/app/open").text == "opened"
        assert "".join(parts) == "last"


def test_streams_and_large_bodies_pass_while_an_observer_is_shown_answers(
    settings: GatewaySettings, stable: Running, canary: Running, tmp_path: Path
) -> None:
    """The observer sees answers to requests that are copied to the canary; 50 MB bodies and WebSockets still pass."""
    records = record_environment(Settings(home=tmp_path), tmp_path)
    observer = ObserverProgram.beside(replace(settings, has_observer=True), tmp_path / "recorded", records)
    with Gateway(observer.gateway) as gateway, started(observer.program().command, env=os.environ | records):
        gateway.client.timeout = httpx.Timeout(30.0)
        gateway.router.apply(Split(stable.version, canary.version, mirror=True))
        eventually(lambda: answers(f"http://{observer.address}/metrics", timeout_s=1))

        def compared() -> int:
            gateway.client.post("/summarize", json={"text": "a long text"}).raise_for_status()
            page = HTTP.get(f"http://{observer.address}/metrics").text
            found = re.search(r'kanaria_observer_answers_total{outcome="compared"} (\d+)', page)
            return int(found[1]) if found else 0

        eventually(compared)  # the gateway has found the observer
        with gateway.client.stream("GET", "/app/until-opened") as answer:
            parts = answer.iter_text()
            assert next(parts) == "first "
            assert gateway.client.post("/app/open").text == "opened"
            assert "".join(parts) == "last"
        with WebSocket(settings.port, "/app/echo") as echo:
            assert [echo.ask(str(number)) for number in range(50)] == [f"echo {number}" for number in range(50)]
        large = b"x" * (50 * MEGABYTE)
        assert gateway.client.post("/size", files={"file": ("a.bin", large)}).json() == len(large)


def test_a_stream_that_breaks_off_is_an_error_of_its_version(
    gateway: Gateway, stable: Running, canary: Running
) -> None:
    """Its status of 200 had already been sent."""
    gateway.router.apply(Split(stable.version, canary.version, 100))
    with gateway.client.stream("GET", "/app/cut") as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            answer.read()
    eventually(lambda: gateway.errors(stable=STABLE, canary=CANARY) == (Pair(0, 0), Pair(1, 1)))


def test_a_stream_that_its_client_leaves_is_not_an_error(gateway: Gateway, stable: Running) -> None:
    gateway.router.apply(only(stable))
    with gateway.client.stream("GET", "/app/endless") as answer:
        assert next(answer.iter_text()).startswith("more")
    eventually(lambda: gateway.errors(stable=STABLE, canary="another")[0] == Pair(0, 1))


def test_a_web_socket_outlives_a_change_of_the_weight(gateway: Gateway, stable: Running, canary: Running) -> None:
    """It stays on its version; new ones follow the weight. None counts as an error, or as slow because it is long."""
    gateway.router.apply(Split(stable.version, canary.version, 0))
    with WebSocket(gateway.settings.port, "/app/echo") as first:
        assert (first.status, first.headers["x-kanaria-version"]) == (101, STABLE)
        assert first.ask("one") == "echo one"
        gateway.router.apply(Split(stable.version, canary.version, 100))
        assert first.ask("two") == "echo two"
        with WebSocket(gateway.settings.port, "/app/echo") as second:
            assert second.headers["x-kanaria-version"] == CANARY
            assert second.ask("three") == "echo three"
    eventually(lambda: gateway.errors(stable=STABLE, canary=CANARY) == (Pair(0, 1), Pair(0, 1)))


def test_a_thousand_paths_of_one_route_are_counted_as_one(gateway: Gateway, stable: Running) -> None:
    gateway.router.apply(only(stable))
    for number in range(1000):
        gateway.client.get(f"/app/hello/{number}")
    assert counted(gateway) == {("/app/hello/{name}", "200"): 1000}


def test_most_routes_are_counted_one_by_one_and_the_rest_together(gateway: Gateway, stable: Running) -> None:
    """The number of series stays bounded, however many routes a service has."""
    routes = stable.version.service.routes
    many = [replace(routes[0], path=f"/made-{number}") for number in range(200)]
    gateway.router.apply(
        Split(replace(stable.version, service=replace(stable.version.service, routes=(*many, *routes))))
    )
    for number in (0, 49, 50, 199):
        gateway.client.get(f"/made-{number}")
    assert gateway.client.post("/summarize", json={"text": "a"}).status_code == 200
    assert counted(gateway) == {("/made-0", "404"): 1, ("/made-49", "404"): 1, ("other", "404"): 2, ("other", "200"): 1}


def test_a_route_beyond_ascii_is_counted_by_its_name(gateway: Gateway, stable: Running) -> None:
    """Clients send its path percent-encoded."""
    some = stable.version.service.routes[0]
    routes = tuple(replace(some, path=path) for path in ("/größe", "/with space/{id}"))
    gateway.router.apply(Split(replace(stable.version, service=replace(stable.version.service, routes=routes))))
    for path in ("/größe", "/with space/7"):
        assert gateway.client.get(path).status_code == 404
    assert counted(gateway) == {("/größe", "404"): 1, ("/with space/{id}", "404"): 1}


def test_a_route_that_only_one_version_has_follows_the_split(
    gateway: Gateway, stable: Running, canary: Running
) -> None:
    """The other version's refusals are counted as its own."""
    fewer = replace(canary.version.service, routes=canary.version.service.routes[:1])
    gateway.router.apply(Split(stable.version, replace(canary.version, service=fewer), 50))
    for _ in range(20):
        assert gateway.client.post("/summarize", json={"text": "a"}).status_code == 200
    assert counted(gateway) == {("/summarize", "200"): 20}


def test_a_bento_without_routes_is_passed_through(home: Path, gateway: Gateway) -> None:
    """It has only BentoML's own pages; they are counted together."""
    with served(home, "summary:empty") as running:
        gateway.router.apply(only(running))
        assert gateway.client.get("/").is_success
        assert gateway.client.get("/nothing").status_code == 404
        assert counted(gateway) == {("other", "200"): 1, ("other", "404"): 1}
        with pytest.raises(RouterRefused, match="nothing to copy"):
            gateway.router.apply(
                Split(running.version, replace(running.version, backends=(Backend("a:b", "h", 1),)), mirror=True)
            )


def test_only_complete_answers_are_copied_to_a_shadow(gateway: Gateway, stable: Running, canary: Running) -> None:
    """Stable's streams are then left out of the comparison as well."""
    gateway.router.apply(Split(stable.version, canary.version, mirror=True))
    for _ in range(5):
        assert gateway.client.post("/summarize", json={"text": "a"}).headers["x-kanaria-version"] == STABLE
        gateway.client.get("/app/hello/you")
    eventually(lambda: gateway.errors(stable=STABLE, canary=CANARY, mirrored=CANARY) == (Pair(0, 5), Pair(0, 5)))
    assert gateway.errors(stable=STABLE, canary=CANARY) == (Pair(0, 10), Pair(0, 0))


def test_a_sticky_caller_stays_on_every_route(gateway: Gateway, stable: Running, canary: Running) -> None:
    gateway.router.apply(Split(stable.version, canary.version, 50, sticky="x-user-id"))
    seen = {}
    for user in range(20):
        headers = {"x-user-id": str(user)}
        answers = [
            gateway.client.get("/app/hello/you", headers=headers),
            gateway.client.post("/summarize", json={"text": "a"}, headers=headers),
            gateway.client.get("/docs.json", headers=headers),
        ]
        (seen[user],) = {answer.headers["x-kanaria-version"] for answer in answers}
    assert set(seen.values()) == {STABLE, CANARY}


def test_a_killed_canary_loses_only_its_open_requests_and_none_is_sent_twice(
    home: Path, gateway: Gateway, stable: Running
) -> None:
    """SIGKILL under load: a request that it may have received is not sent again; stable answers all others."""
    with served(home, CANARY) as doomed, ExitStack() as clients:
        gateway.router.apply(Split(stable.version, doomed.version, 50))
        failed: list[str] = []
        answered: list[str] = []
        lock, stop = threading.Lock(), threading.Event()

        def one_client(client: httpx.Client, name: int) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                key = f"{name}-{number}"
                status = client.post("/app/count", content=key).status_code
                with lock:
                    (answered if status == 200 else failed).append(key)

        pool = [clients.enter_context(httpx.Client(base_url=gateway.url, timeout=30)) for _ in range(4)]
        threads = [threading.Thread(target=one_client, args=(client, name)) for name, client in enumerate(pool)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(answered) > 50)
        doomed.kill()
        before = len(answered)
        eventually(lambda: len(answered) > before + 100)
        stop.set()
        for thread in threads:
            thread.join()
    done = HTTP.get(f"{stable.url}/app/count").json()
    # Its open request for each client, and the next one if the gateway has not yet seen the connection end.
    assert len(failed) <= 2 * len(threads)
    assert not set(failed) & set(done)
    assert set(done.values()) == {1}


def test_a_version_that_does_not_start_to_answer_in_time_is_charged(gateway: Gateway) -> None:
    """The limit is that of its own service and a little more, whether an answer is streamed or not."""
    service = Service((Route("/whole"), Route("/parts", is_streamed=True)), 0.1)
    with StandIn(STABLE) as slow:
        gateway.router.apply(Split(replace(slow.version, service=service)))
        slow.behave(delay_s=20.0)
        for path in ("/whole", "/parts", "/elsewhere"):
            assert gateway.client.post(path, json={}).status_code == 504
    assert gateway.errors(stable=STABLE, canary=CANARY)[0] == Pair(3, 3)
