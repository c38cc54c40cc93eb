"""The guard of a version's port, as the version's Python sees it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from typing import Any

import psutil
import pytest

from kanaria.stack.guarded_ports import carried, guarding, is_guarded
from kanaria.stack.port_guard.sitecustomize import VARIABLE, Guard, without_forbidden_bodies
from kanaria.stack.ports import free_port
from tests.support.children import started


def run(code: str, *words: str, **environment: str) -> str:
    """What a Python process prints that has only these variables."""
    done = subprocess.run(
        [sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_another_sitecustomize_file_is_run_too(tmp_path: Path) -> None:
    """It may belong to the user or to a tracer. Python itself imports only the first such file on the path."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.own = 'was run'\n")
    guard = guarding(1, "a secret")
    paths = f"{guard['PYTHONPATH']}:{tmp_path}"
    assert run("import sys; print(sys.own)", PYTHONPATH=paths) == "was run"


@pytest.mark.needs("serve")
def test_a_worker_is_guarded_before_the_model_runs() -> None:
    """The worker no longer has the secret in its environment. Other programs of the version stay as they are."""
    code = f"import os, uvicorn; print(uvicorn.Config(print).app, os.environ.get('{VARIABLE}'))"
    guard = guarding(1, "a secret")
    guarded, left = run(code, "--fd", "3", **guard).rsplit(" ", 1)
    assert "Guard object" in guarded
    assert left == "None"
    assert run(code, **guard) == f"<built-in function print> {guard[VARIABLE]}"


@pytest.mark.needs("serve")
def test_a_worker_limits_what_a_connection_may_send() -> None:
    """The limit holds whatever `contract` package the Bento contains.

    A service that chose its HTTP implementation keeps it.
    """
    code = """
import sys, types, uvicorn
sys.modules["contract"] = types.ModuleType("contract")
print(uvicorn.Config(print).http.__name__, uvicorn.Config(print, http="h11").http)
"""
    assert run(code, "--fd", "3", **guarding(1, "a secret")) == "Bounded h11"


@pytest.mark.needs("serve")
def test_a_worker_keeps_idle_connections_longer_than_its_caller_does() -> None:
    """Where one service uses another, about one request in 600 hit a connection that had just ended, and got 500."""
    code = """
import asyncio, aiohttp, uvicorn
async def caller():
    async with aiohttp.TCPConnector() as connector:
        return connector._keepalive_timeout
kept = asyncio.run(caller())
print(*(uvicorn.Config(print, **given).timeout_keep_alive > kept for given in ({}, {"timeout_keep_alive": 5})))
print(uvicorn.Config(print, timeout_keep_alive=99).timeout_keep_alive)
"""
    assert run(code, "--fd", "3", **guarding(1, "a secret")) == "True True\n99"


@pytest.mark.needs("serve")
@pytest.mark.parametrize("asks_for_certificates", [0, 2])
def test_a_worker_leaves_tls_to_the_gateway(asks_for_certificates: int) -> None:
    """A service with `ssl` never became ready.

    A service that requires client certificates refuses to start instead of serving everybody.
    """
    code = f"""
import uvicorn
print(uvicorn.Config(print, ssl_certfile='none.pem', ssl_version=17, ssl_cert_reqs={asks_for_certificates}).is_ssl)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, "--fd", "3"],
        env=guarding(1, "a secret"),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.strip() == ("" if asks_for_certificates else "False")
    assert ("OSError: it requires client certificates" in done.stderr) is bool(asks_for_certificates)


@pytest.mark.needs("serve")
def test_the_process_that_starts_the_workers_listens_on_no_port() -> None:
    """Circus accepts commands on its ports from any client, including commands to start programs.

    The test creates it as BentoML does.
    """
    code = """
import psutil
from bentoml._internal.utils.circus import create_standalone_arbiter
arbiter = create_standalone_arbiter([])
arbiter.initialize()
arbiter.ctrl.initialize()
print(sum(one.status == psutil.CONN_LISTEN for one in psutil.Process().net_connections("inet")))
"""
    guard = guarding(1, "a secret")
    assert [run(code, "serve", **guard), run(code, "serve")] == ["0", "2"]


def headers_behind(path: str, *sent: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]] | None:
    """The request headers that an app behind the guard receives; None if the guard refuses the request."""
    got: list[list[tuple[bytes, bytes]]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        got.append(scope["headers"])

    async def ask() -> None:
        async def send(message: Any) -> None:
            pass

        scope = {"type": "http", "server": ("127.0.0.1", 1), "path": path, "headers": list(sent)}
        await Guard(app, port=1, header="x-kanaria-secret", secret="s")(scope, send, send)  # type: ignore[arg-type]

    asyncio.run(ask())
    return got[0] if got else None


def test_the_app_never_sees_the_secret_in_a_header() -> None:
    """This holds for repeated headers and for both forms of the secret."""
    ours, bearer, other = (b"x-kanaria-secret", b"s"), (b"authorization", b"Bearer s"), (b"authorization", b"Bearer t")
    assert headers_behind("/predict", ours, other, ours, bearer) == [other]
    assert headers_behind("/metrics", bearer) == []
    assert headers_behind("/v1/metrics", bearer) == []
    assert headers_behind("/predict", bearer) is None
    assert headers_behind("/metrics", other, (b"x-kanaria-secret", b"t")) is None


def test_a_caller_without_the_secret_keeps_no_connection() -> None:
    """Each connection takes a file descriptor of the version.

    After an answer with `connection: close`, uvicorn closes it.
    """
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "path": "/predict", "headers": [], "server": ("127.0.0.1", 1)}
    guard = Guard(send, port=1, header="x-kanaria-secret", secret="s")  # type: ignore[arg-type] # it is not called
    asyncio.run(guard(scope, send, send))  # type: ignore[arg-type] # likewise
    assert (sent[0]["status"], (b"connection", b"close") in sent[0]["headers"]) == (403, True)


def test_an_environment_gets_the_guard_and_no_other_path_of_ours() -> None:
    """A version with its own packages must not find Kanaria's packages."""
    guard = guarding(1, "a secret")
    assert carried({}) == {}
    assert not is_guarded({})
    taken = carried({**guard, "PYTHONPATH": "ours"})["PYTHONPATH"]
    assert [path.name for path in Path(taken).glob("*.py")] == ["__init__.py", "sitecustomize.py"]
    assert json.loads(guard[VARIABLE]) == {"port": 1, "header": "x-kanaria-secret", "secret": "a secret"}


def answered(*messages: Any) -> list[Any]:
    """What the server receives when the app sends these messages."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    async def ask() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        await without_forbidden_bodies(app)({"type": "http"}, send, send)  # type: ignore[arg-type]

    asyncio.run(ask())
    return sent


@pytest.mark.parametrize(("status", "body"), [(204, b""), (304, b""), (200, b"null"), (404, b"null")])
def test_an_answer_without_content_has_no_body(status: int, body: bytes) -> None:
    """BentoML sends `null` for a method that returns nothing, even with status 204, and the gateway answered 502."""
    headers = [(b"content-length", b"4"), (b"etag", b"1")]
    start, end = answered(
        {"type": "http.response.start", "status": status, "headers": headers},
        {"type": "http.response.body", "body": b"null"},
    )
    assert dict(start["headers"]) == ({b"etag": b"1"} if not body else {b"content-length": b"4", b"etag": b"1"})
    assert end["body"] == body


def test_an_answer_may_have_no_headers() -> None:
    """ASGI allows an app to omit them; this caused an error."""
    start, end = answered({"type": "http.response.start", "status": 204}, {"type": "http.response.body"})
    assert (list(start["headers"]), end["body"]) == ([], b"")


SERVES = """
import sys, bentoml, uvicorn
from _bentoml_impl.server.app import ServiceAppFactory
from bentoml._internal.server.base_app import BaseAppFactory

@bentoml.service(http={"proxy_port": int(sys.argv[3])}, **({"cmd": ["true"]} if "command" in sys.argv else {}))
class Own:
    pass

Own.inject_config()
uvicorn.Config(BaseAppFactory.__call__(ServiceAppFactory(Own, is_main=True)))
print("serves")
"""
LISTENS = """
import socket, sys
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.mark.needs("serve")
@pytest.mark.parametrize(
    ("listener", "kind", "serves"), [("other", "command", False), ("own", "command", True), ("other", "class", True)]
)
def test_a_service_does_not_start_when_its_commands_port_is_taken(
    tmp_path: Path, listener: str, kind: str, *, serves: bool
) -> None:
    """BentoML passes requests to any server on that port, so another version would have answered.

    A server of the same version may have outlived the worker that started it; that one is accepted.
    """
    environment = {**guarding(1, "a secret"), "BENTOML_HOME": str(tmp_path / "own"), "BENTOML_DO_NOT_TRACK": "True"}
    of_listener = {"BENTOML_HOME": str(tmp_path / listener)}
    with subprocess.Popen(
        [sys.executable, "-c", LISTENS], env=of_listener, stdin=PIPE, stdout=PIPE, text=True
    ) as other:
        assert other.stdout is not None
        port = other.stdout.readline().strip()
        done = subprocess.run(
            [sys.executable, "-c", SERVES, "--fd", "3", port, kind],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        other.communicate()
    assert done.stdout.strip() == ("serves" if serves else ""), done.stderr
    assert (f"OSError: port {port}, which its command needs, is taken" in done.stderr) is not serves


@pytest.mark.needs("serve")
@pytest.mark.parametrize("kind", ["command", "class"])
def test_a_service_with_a_command_allows_only_one_process(tmp_path: Path, kind: str) -> None:
    """Both commands would listen on one port. The second ended unnoticed, and the first answered for it."""
    guard = guarding(1, "a secret", processes=2)
    done = subprocess.run(
        [sys.executable, "-c", SERVES, "--fd", "3", str(free_port()), kind],
        env={**guard, "BENTOML_HOME": str(tmp_path), "BENTOML_DO_NOT_TRACK": "True"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.strip() == ("serves" if kind == "class" else ""), done.stderr
    assert ("each of its 2 processes; set KANARIA_REPLICAS=1" in done.stderr) is (kind == "command")


# A worker as BentoML builds it: it starts the command and stores the process in the state of its service. The command
# serves itself, or a process that it left in the background does.
WORKS = """
import asyncio, os, sys
from types import SimpleNamespace
from kanaria.stack.port_guard.sitecustomize import ending_with_its_command
SERVER = "import socket, time; s = socket.create_server(('127.0.0.1', %s)); time.sleep(600)" % sys.argv[1]
COMMAND = ["-c", SERVER] if sys.argv[2] == "itself" else ["-c", f"import os, sys\\nif not os.fork(): exec({SERVER!r})"]
service = SimpleNamespace(config={"http": {"proxy_port": int(sys.argv[1])}}, context=SimpleNamespace(state={}))

async def app(scope, receive, send):
    service.context.state["proc"] = await asyncio.create_subprocess_exec(sys.executable, *COMMAND)
    while True:
        try:
            (await asyncio.open_connection("127.0.0.1", int(sys.argv[1])))[1].close()
            break
        except OSError:
            await asyncio.sleep(0.1)
    await send({"type": "lifespan.startup.complete"})
    await asyncio.sleep(600)

async def sent(message):
    print(service.context.state["proc"].pid, flush=True)

asyncio.run(ending_with_its_command(app, service)({"type": "lifespan"}, None, sent))
"""


@pytest.mark.parametrize("server", ["itself", "background"])
def test_a_worker_ends_only_when_nothing_serves_for_its_command(tmp_path: Path, server: str) -> None:
    """All requests of the version failed permanently while it reported that it was ready."""
    port, environment = free_port(), {**os.environ, "BENTOML_HOME": str(tmp_path)}
    command = [sys.executable, "-c", WORKS, str(port), server]
    with started(command, env=environment, stdout=PIPE, stderr=PIPE, text=True) as worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        (listener,) = {each.pid for each in psutil.net_connections("inet") if each.laddr[1:] == (port,) if each.pid}
        try:
            if server == "background":  # the command has ended, so the worker must outlive several checks
                with pytest.raises(subprocess.TimeoutExpired):
                    worker.wait(3)
            else:
                assert listener == pid
        finally:
            psutil.Process(listener).kill()
        assert worker.wait(60) == -signal.SIGTERM
        assert worker.stderr is not None
        assert f"and nothing listens on its port {port}: this worker ends" in worker.stderr.read()
