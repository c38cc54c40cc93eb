"""Servers that hold back the answer to a readiness probe are not ready, and the control loop does not wait for them."""

import socket
from dataclasses import replace
from typing import Literal

import pytest

from kanaria.stack.probes import Probes, polled, unready
from rollout.fleet import Backend, Readiness
from tests.support.dribbling import Dribbling, dribbling
from tests.support.no_files import no_file_to_open
from tests.support.thread_limit import no_more_threads
from tests.support.waiting import eventually

READY = Readiness("/ready", below=300)

of_each_part = pytest.mark.parametrize("part", ["head", "body"])


def backend_of(server: Dribbling) -> Backend:
    return Backend("chat:v1", "127.0.0.1", server.server_port, secret="s")


@of_each_part
def test_a_server_that_sends_a_byte_now_and_then_is_not_ready(part: Literal["head", "body"]) -> None:
    """It counted as ready at the end, before the time for the whole answer was limited."""
    with dribbling(part) as server:
        backend = backend_of(server)
        assert "gives no answer" in unready(polled(backend, timeout_s=0.3), backend, READY)


@of_each_part
def test_a_server_that_stops_answering_is_no_longer_ready(part: Literal["head", "body"]) -> None:
    """A new process is probed afresh while the probe of its predecessor still runs."""
    hangs = False
    with dribbling(part, lambda _: None if hangs else b"ok") as server:
        probes, backend = Probes(), backend_of(server)
        assert not probes.trouble(backend, READY, 1)
        hangs = True
        eventually(lambda: "gives no answer" in probes.trouble(backend, READY, 1))
        hangs = False
        assert not probes.trouble(backend, READY, 2)


@of_each_part
def test_a_probe_that_takes_too_long_counts_as_unanswered(part: Literal["head", "body"]) -> None:
    """The previous answer counts only while it is recent."""
    hangs, now_s = False, 0.0
    with dribbling(part, lambda _: None if hangs else b"ok") as server:
        probes, backend = Probes(lambda: now_s), backend_of(server)
        assert not probes.trouble(backend, READY, 1)
        hangs, now_s = True, 0.5
        assert not probes.trouble(backend, READY, 1)
        now_s = 2.0
        assert "gives no answer" in probes.trouble(backend, READY, 1)


@of_each_part
def test_a_server_that_holds_back_its_answer_without_the_secret_is_not_open(part: Literal["head", "body"]) -> None:
    """The control loop sends this probe itself."""
    with dribbling(part) as server:
        assert not Probes().is_open(backend_of(server), READY)


def test_without_a_thread_the_control_loop_probes_by_itself() -> None:
    """Every tick failed with a Python error, and no version was probed."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        closed = Backend("chat:v1", "127.0.0.1", silent.getsockname()[1])
        probes = Probes()
    with no_more_threads():
        assert "gives no answer" in probes.trouble(closed, READY, 1)
        assert "gives no answer" in probes.trouble(closed, READY, 1)
    with dribbling(at_once=lambda _: b"ok") as server:
        assert not probes.trouble(backend_of(server), READY, 2)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_probe_that_could_not_be_sent_does_not_blame_the_server(host: str) -> None:
    """Out of file descriptors, a ready server was reported as giving no answer, and rolled back for it."""
    with dribbling("head", lambda _: b"ok") as server:
        probes, backend = Probes(), replace(backend_of(server), host=host)
        with no_file_to_open(), pytest.raises(OSError, match="Too many open files"):
            probes.trouble(backend, READY, 1)
        eventually(lambda: _trouble(probes, backend) == "")


def test_a_name_that_cannot_be_looked_up_here_does_not_blame_the_server() -> None:
    """The lookup needs a thread, and there was none. A server at an IP address needs no lookup."""
    with no_more_threads(), pytest.raises(OSError, match="could not look up the host localhost"):
        Probes().trouble(Backend("chat:v1", "localhost", 1), READY, 1)


def test_a_name_that_cannot_be_looked_up_is_the_servers_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exception is a lack of memory on this machine."""
    code = socket.EAI_AGAIN

    def fails(*_: object, **__: object) -> None:
        raise socket.gaierror(code, "in words")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    backend = Backend("chat:v1", "elsewhere", 1)
    assert "gives no answer" in Probes().trouble(backend, READY, 1)
    code = socket.EAI_MEMORY
    with pytest.raises(OSError, match="could not look up the host elsewhere: in words"):
        Probes().trouble(backend, READY, 1)


def _trouble(probes: Probes, backend: Backend) -> str | None:
    try:
        return probes.trouble(backend, READY, 1)
    except OSError:  # the error of the previous probe
        return None
