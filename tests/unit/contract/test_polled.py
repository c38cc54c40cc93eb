"""A client for a service that is polled: its answers, kept connections and errors."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext, suppress
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import sleep
from typing import Any, Literal

import pytest

from contract import polled as polled_module
from contract.deadline import within
from contract.polled import FAILURES, Answer, ConnectTimeout, Polled, ReadTimeout
from tests.support.dribbling import dribbling
from tests.support.running_server import running_server

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Service:
    """A server on a socket; `answer` sees each request and its connection."""

    def __init__(self, server: socket.socket, answer: Callable[[socket.socket, bytes], bool]) -> None:
        self._server, self._answer = server, answer
        self.connections, self.requests = 0, list[bytes]()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            with connection, suppress(ConnectionError):  # a client may leave part of an answer unread
                while head := connection.recv(4096):
                    self.requests.append(head)
                    if not self._answer(connection, head):
                        break

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.close()


@contextmanager
def served(path: Path, answer: Callable[[socket.socket, bytes], bool]) -> Iterator[Service]:
    server = socket.socket(socket.AF_UNIX)
    path.unlink(missing_ok=True)
    server.bind(str(path))
    server.listen()
    service = Service(server, answer)
    try:
        yield service
    finally:
        service.close()


def answers(connection: socket.socket, _: bytes) -> bool:
    connection.sendall(ANSWER)
    return True


def answers_once(connection: socket.socket, _: bytes) -> bool:
    """Answer, then close the connection without announcing it."""
    connection.sendall(ANSWER)
    return False


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


def polled(path: Path, *, timeout_s: float = 5.0, keeps_connection: bool = True) -> Polled:
    return Polled("http://admin", timeout_s=timeout_s, keeps_connection=keeps_connection, unix_socket=path)


def test_all_requests_use_one_connection(path: Path) -> None:
    """The query is percent-encoded."""
    asked = polled(path)
    with served(path, answers) as service:
        found = [asked.get("/stats", {"filter": "^a|b$"}) for _ in range(3)]
        asked.close()
    assert found == [Answer(200, b"ok")] * 3
    assert service.connections == 1
    assert service.requests[0].startswith(b"GET /stats?filter=%5Ea%7Cb%24 HTTP/1.1\r\n")


def test_each_request_may_use_a_new_connection(path: Path) -> None:
    """This is how a new client behaves."""
    with served(path, answers) as service:
        asked = polled(path, keeps_connection=False)
        for _ in range(3):
            asked.get("/livez")
    assert service.connections == 3


def test_a_connection_that_the_service_closed_is_replaced(path: Path) -> None:
    """The caller does not notice that the service closes idle connections."""
    asked = polled(path)
    with served(path, answers_once) as service:
        assert [asked.get("/").status for _ in range(3)] == [200] * 3
    assert service.connections == 3


def test_a_restarted_service_is_reached_at_once(path: Path) -> None:
    """The connections to the old process are gone."""
    asked = polled(path)
    for _ in range(2):
        with served(path, answers):
            assert asked.get("/").is_success
            asked.close()


def test_a_stopped_service_is_an_error(path: Path) -> None:
    """This holds with a kept connection and without one."""
    asked = polled(path)
    with pytest.raises(FAILURES):
        asked.get("/")
    with served(path, answers_once):
        asked.get("/")
    with pytest.raises(FAILURES):
        asked.get("/")


def test_a_hanging_service_is_not_asked_twice(path: Path) -> None:
    """The request is not repeated even on a kept connection: that would only double the wait."""
    asked, seen = polled(path, timeout_s=1.0), list[bytes]()  # enough for the first answer

    def hangs_later(connection: socket.socket, head: bytes) -> bool:
        seen.append(head)
        if len(seen) == 1:
            connection.sendall(ANSWER)
        return True

    with served(path, hangs_later) as service:
        asked.get("/")
        with pytest.raises(TimeoutError):
            asked.get("/")
        assert service.connections == 1


@pytest.mark.parametrize("part", ["head", "body"])
def test_a_service_that_sends_a_byte_now_and_then_times_out(part: Literal["head", "body"]) -> None:
    """Each part comes in time and the whole answer does not. A surrounding deadline also applies."""
    with dribbling(part) as service:
        with pytest.raises(TimeoutError):
            Polled(service.url, timeout_s=0.3).get("/")
        with within(0.3), pytest.raises(TimeoutError):
            Polled(service.url, timeout_s=60.0).get("/")


def test_a_kept_connection_gets_no_extra_time(path: Path) -> None:
    """The second answer comes byte by byte and times out."""
    seen, ends = list[bytes](), threading.Event()

    def dribbles_later(connection: socket.socket, head: bytes) -> bool:
        seen.append(head)
        if len(seen) == 1:
            return answers(connection, head)
        with suppress(OSError):  # the client has gone
            for _ in range(200):
                if ends.wait(0.05):
                    break
                connection.sendall(b"H")
        return False

    asked = polled(path, timeout_s=1.0)  # enough for the first answer
    with served(path, dribbles_later):
        asked.get("/")
        try:
            with pytest.raises(TimeoutError):
                asked.get("/")
        finally:
            ends.set()


def test_every_address_of_a_name_is_tried() -> None:
    """One address refuses, and the next answers."""
    with dribbling(at_once=lambda _: b"ok") as service:  # only at 127.0.0.1; localhost may resolve to ::1 first
        assert Polled(f"http://localhost:{service.server_port}", timeout_s=5.0).get("/").body == b"ok"


@pytest.mark.parametrize("host", ["a..b", ".a", "a" * 64, "ü" * 63])
def test_an_invalid_host_name_is_an_os_error(host: str) -> None:
    """Callers expect OS errors."""
    with pytest.raises(OSError, match="label"):
        Polled(f"http://{host}:80", timeout_s=1.0).get("/")


@pytest.mark.parametrize(
    "garbage", [b"", b"nothing of HTTP\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab"]
)
def test_an_invalid_answer_is_an_error(path: Path, garbage: bytes) -> None:
    """The next request uses a new connection and succeeds."""

    def says(connection: socket.socket, _: bytes) -> bool:
        connection.sendall(garbage)
        return False

    asked = polled(path)
    with served(path, says), pytest.raises(FAILURES):
        asked.get("/")
    with served(path, answers):
        assert asked.get("/").body == b"ok"
        asked.close()


def test_an_error_status_is_an_answer(path: Path) -> None:
    """No error is raised; the status tells."""

    def refuses(connection: socket.socket, _: bytes) -> bool:
        connection.sendall(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
        return True

    asked = polled(path)
    with served(path, refuses):
        assert (asked.get("/").status, asked.get("/").is_success) == (404, False)
        asked.close()


def test_a_form_is_sent_again_after_the_service_closed_the_connection(path: Path) -> None:
    """The whole form is sent again, with its head."""

    def answers_forms_once(connection: socket.socket, part: bytes) -> bool:
        return b"query=" not in part or answers_once(connection, part)

    asked = polled(path)
    with served(path, answers_forms_once) as service:
        found = [asked.post("/api/v1/query", {"query": "up{a='b'}"}) for _ in range(3)]
    assert found == [Answer(200, b"ok")] * 3
    sent = b"".join(service.requests)
    assert sent.count(b"POST /api/v1/query HTTP/1.1\r\n") == 3
    assert sent.count(b"content-type: application/x-www-form-urlencoded\r\n") == 3
    assert sent.count(b"Content-Length: 25\r\n") == 3


def test_a_connection_that_was_idle_for_long_is_not_used_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device in between may have dropped it: the request then goes nowhere and no error comes back."""
    monkeypatch.setattr(polled_module, "_KEPT_S", 0.0)
    asked = polled(path)
    with served(path, answers) as service:
        for _ in range(3):
            asked.get("/")
        asked.close()
    assert service.connections == 3


class _Meeting(BaseHTTPRequestHandler):
    """Answers four requests once all of them have arrived."""

    protocol_version = "HTTP/1.1"
    met = threading.Barrier(4)
    connections: list[Any]

    def setup(self) -> None:
        super().setup()
        self.connections.append(self.client_address)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.met.wait(20)
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write nothing."""


def test_concurrent_threads_get_their_own_answers() -> None:
    """Each thread uses its own connection, and later requests use these connections again."""
    connections: list[Any] = []
    kind = type("_Meeting", (_Meeting,), {"connections": connections, "met": threading.Barrier(4)})
    with running_server(ThreadingHTTPServer(("127.0.0.1", 0), kind)) as server, ThreadPoolExecutor(4) as callers:
        asked = Polled(f"http://127.0.0.1:{server.server_port}", timeout_s=20.0)
        for _ in range(5):
            found = list(callers.map(lambda number: asked.post("/", {"number": str(number)}).body, range(4)))
            assert found == [b"number=%d" % number for number in range(4)]
        asked.close()
    assert len(connections) == 4


def test_a_silent_service_is_distinguished_from_an_unreachable_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name that is not resolved in time and a service that does not start TLS count as unreachable."""
    find, ends = socket.getaddrinfo, threading.Event()

    def slow(host: str, *asked: Any, **how: Any) -> Any:
        if host == "slow.example":
            ends.wait()
            host = "127.0.0.1"
        return find(host, *asked, **how)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(ReadTimeout):
            Polled(f"http://127.0.0.1:{port}", timeout_s=0.2).get("/")
        with pytest.raises(ConnectTimeout):
            Polled(f"https://127.0.0.1:{port}", timeout_s=0.2).get("/")
        monkeypatch.setattr(socket, "getaddrinfo", slow)
        try:
            with pytest.raises(ConnectTimeout, match=r"slow\.example"):
                Polled(f"http://slow.example:{port}", timeout_s=0.2).get("/")
        finally:
            ends.set()


@pytest.mark.parametrize(("for_all_s", "for_one_s", "is_answered"), [(60.0, 0.1, False), (0.1, 60.0, True)])
def test_the_limit_of_one_request_replaces_the_limit_of_all(
    path: Path, for_all_s: float, for_one_s: float, *, is_answered: bool
) -> None:
    """It applies whether it is shorter or longer."""

    def answers_late(connection: socket.socket, _: bytes) -> bool:
        sleep(0.5)
        with suppress(OSError):  # the client has gone
            connection.sendall(ANSWER)
        return False

    with served(path, answers_late), nullcontext() if is_answered else pytest.raises(ReadTimeout):
        assert polled(path, timeout_s=for_all_s).post("/", {}, timeout_s=for_one_s).is_success


@pytest.mark.parametrize("interim", [b"102 Processing", b"103 Early Hints", b"101 Switching Protocols"])
def test_an_interim_response_is_an_error_and_does_not_shift_later_answers(path: Path, interim: bytes) -> None:
    """http.client takes it for the answer, and the next request would have received this request's answer."""

    def hints(connection: socket.socket, head: bytes) -> bool:
        is_first = head.startswith(b"GET /first")
        connection.sendall(b"HTTP/1.1 " + interim + b"\r\n\r\n" + ANSWER if is_first else ANSWER.replace(b"ok", b"no"))
        return True

    with served(path, hints), closing(polled(path)) as asked:
        with pytest.raises(HTTPException, match=interim[:3].decode()):
            asked.get("/first")
        assert asked.get("/second").body == b"no"
