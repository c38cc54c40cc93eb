"""The forking model server: what it passes to a model's code and to `bentoml serve`, and how it ends."""

import signal
import socket
import sys
from typing import Any

import psutil
import pytest

from kanaria.stack.guarded_ports import guarding
from kanaria.stack.port_guard.sitecustomize import VARIABLE
from tests.support.bentos import Bentos
from tests.support.processes import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the model server forks on Linux only")

TAG = "digits:v1"
SERVE = "from kanaria.stack.model_server import main; main()"
THREAD = f"import threading; threading.Thread(target=threading.Event().wait, daemon=True).start(); {SERVE}"
WATCH_IMPORTS = f"""
import os, sys
def watch(event, given):
    if event == "import" and given[0].partition(".")[0] in ("service", "examples"):
        os.write(1, b"import sees %r\\n" % os.environ.get("{VARIABLE}"))
sys.addaudithook(watch)
{SERVE}
"""
OWN_VARIABLES = {"OPENBLAS_NUM_THREADS", "BENTOML_RUNNER_MAP", "PROMETHEUS_MULTIPROC_DIR"}


def test_bentoml_serves_with_the_given_variables_if_an_import_starts_a_thread(
    bentos: Bentos, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets nothing that the forking server sets for itself."""
    for name in OWN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    guard = guarding(1, "a secret")
    with bentos.serve(TAG, by=("-c", THREAD), **guard) as server:
        process = psutil.Process(server.process.pid)
        assert process.cmdline()[3:5] == ["bentoml", "serve"]
        assert "threads that imports started: 1;" in server.log.read_text()
        assert not OWN_VARIABLES & process.environ().keys()
        assert process.environ()[VARIABLE] == guard[VARIABLE]


def test_no_import_of_the_model_sees_the_guards_secret(bentos: Bentos) -> None:
    """Processes that an import starts do not see it either."""
    with bentos.serve(TAG, by=("-c", WATCH_IMPORTS), **guarding(1, "a secret")) as server:
        said = [line for line in server.log.read_text().splitlines() if line.startswith("import sees")]
        assert said
        assert set(said) == {"import sees None"}


def test_a_stopping_server_refuses_new_connections_and_finishes_the_open_ones(bentos: Bentos) -> None:
    """Otherwise the system would accept connections that stay unanswered until the last worker has ended."""
    body = bentos.requests(TAG, 1)
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(
        body
    )
    with bentos.serve(TAG, workers=2) as server:
        with socket.create_connection(server.address) as asked:
            asked.sendall(head + body[:10])
            until(lambda: any(each.status == psutil.CONN_ESTABLISHED for each in connections(server.process.pid)))
            server.process.send_signal(signal.SIGTERM)
            until(lambda: is_refused(server.address))
            assert server.process.poll() is None
            asked.sendall(body[10:])
            assert asked.recv(15).startswith(b"HTTP/1.1 200")
        assert server.process.wait(120) == 0
        assert server.log.read_text().count("ended as asked") == 2
        assert "exit code" not in server.log.read_text()


def connections(server: int) -> list[Any]:
    return [each for worker in psutil.Process(server).children() for each in worker.net_connections()]


def is_refused(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address).close()
    except ConnectionRefusedError:
        return True
    return False
