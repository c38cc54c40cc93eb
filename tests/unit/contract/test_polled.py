"""A service that is asked all the time: answers, connections that are kept, and what is raised."""

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
    """Answers at a socket; `answer` sees each request and its connection."""

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
            with connection, suppress(ConnectionError):  # a client need not read all of an answer
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
    """And closes the connection without a word of it."""
    connection.sendall(ANSWER)
    return False


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


def polled(path: Path, *, timeout_s: float = 5.0, keeps_connection: bool = True) -> Polled:
    return Polled("http://admin", timeout_s=timeout_s, keeps_connection=keeps_connection, unix_socket=path)


def test_one_connection_serves_all_questions(path: Path) -> None:
    """With the query as it is to be written."""
    asked = polled(path)
    with served(path, answers) as service:
        found = [asked.get("/stats", {"filter": "^a|b$"}) for _ in range(3)]
        asked.close()
    assert found == [Answer(200, b"ok")] * 3
    assert service.connections == 1
    assert service.requests[0].startswith(b"GET /stats?filter=%5Ea%7Cb%24 HTTP/1.1\r\n")


def test_each_question_may_have_a_connection_of_its_own(path: Path) -> None:
    """As new clients have."""
    with served(path, answers) as service:
        asked = polled(path, keeps_connection=False)
        for _ in range(3):
            asked.get("/livez")
    assert service.connections == 3


def test_a_connection_that_was_closed_meanwhile_is_replaced(path: Path) -> None:
    """Nobody sees that the service closes what is not used."""
    asked = polled(path)
    with served(path, answers_once) as service:
        assert [asked.get("/").status for _ in range(3)] == [200] * 3
    assert service.connections == 3


def test_a_service_that_was_started_again_is_asked_at_once(path: Path) -> None:
    """Its connections ended with it."""
    asked = polled(path)
    for _ in range(2):
        with served(path, answers):
            assert asked.get("/").is_success
            asked.close()


def test_a_service_that_is_gone_is_an_error(path: Path) -> None:
    """With a connection that was kept, and without one."""
    asked = polled(path)
    with pytest.raises(FAILURES):
        asked.get("/")
    with served(path, answers_once):
        asked.get("/")
    with pytest.raises(FAILURES):
        asked.get("/")


def test_a_service_that_hangs_is_waited_for_once(path: Path) -> None:
    """On a kept connection, too: asking again would only take as long again."""
    asked, seen = polled(path, timeout_s=1.0), list[bytes]()  # the first answer comes in time

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
def test_a_service_that_sends_a_byte_now_and_then_is_waited_for_no_longer(part: Literal["head", "body"]) -> None:
    """Every part comes in time, and the whole does not. A deadline around it counts, too."""
    with dribbling(part) as service:
        with pytest.raises(TimeoutError):
            Polled(service.url, timeout_s=0.3).get("/")
        with within(0.3), pytest.raises(TimeoutError):
            Polled(service.url, timeout_s=60.0).get("/")


def test_a_kept_connection_is_given_no_more_time(path: Path) -> None:
    """The second answer comes byte by byte."""
    seen, ends = list[bytes](), threading.Event()

    def dribbles_later(connection: socket.socket, head: bytes) -> bool:
        seen.append(head)
        if len(seen) == 1:
            return answers(connection, head)
        with suppress(OSError):  # whoever asked has gone
            for _ in range(200):
                if ends.wait(0.05):
                    break
                connection.sendall(b"H")
        return False

    asked = polled(path, timeout_s=1.0)  # the first answer comes in time
    with served(path, dribbles_later):
        asked.get("/")
        try:
            with pytest.raises(TimeoutError):
                asked.get("/")
        finally:
            ends.set()


def test_every_address_of_a_name_is_tried() -> None:
    """One that refuses, and then one that answers."""
    with dribbling(at_once=lambda _: b"ok") as service:  # at 127.0.0.1 alone; localhost may be ::1 first
        assert Polled(f"http://localhost:{service.server_port}", timeout_s=5.0).get("/").body == b"ok"


@pytest.mark.parametrize("host", ["a..b", ".a", "a" * 64, "ü" * 63])
def test_a_name_that_no_machine_can_have_is_an_error(host: str) -> None:
    """One of those that whoever asks expects."""
    with pytest.raises(OSError, match="label"):
        Polled(f"http://{host}:80", timeout_s=1.0).get("/")


@pytest.mark.parametrize(
    "garbage", [b"", b"nothing of HTTP\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab"]
)
def test_what_is_no_answer_is_an_error(path: Path, garbage: bytes) -> None:
    """And the next question begins anew."""

    def says(connection: socket.socket, _: bytes) -> bool:
        connection.sendall(garbage)
        return False

    asked = polled(path)
    with served(path, says), pytest.raises(FAILURES):
        asked.get("/")
    with served(path, answers):
        assert asked.get("/").body == b"ok"
        asked.close()


def test_a_refusal_is_an_answer(path: Path) -> None:
    """Its status says so."""

    def refuses(connection: socket.socket, _: bytes) -> bool:
        connection.sendall(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
        return True

    asked = polled(path)
    with served(path, refuses):
        assert (asked.get("/").status, asked.get("/").is_success) == (404, False)
        asked.close()


def test_a_form_is_sent_again_where_a_connection_was_closed_meanwhile(path: Path) -> None:
    """Whole, with its head."""

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


def test_a_connection_that_was_not_used_for_long_is_not_used_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine in between may have forgotten it: what is sent then comes to nobody, and no error comes back."""
    monkeypatch.setattr(polled_module, "_KEPT_S", 0.0)
    asked = polled(path)
    with served(path, answers) as service:
        for _ in range(3):
            asked.get("/")
        asked.close()
    assert service.connections == 3


class _Meeting(BaseHTTPRequestHandler):
    """Answers four questions when it has them all."""

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
        """Nobody reads it."""


def test_threads_that_ask_at_one_time_get_each_its_own_answer() -> None:
    """By connections of their own, which whoever asks later uses again."""
    connections: list[Any] = []
    kind = type("_Meeting", (_Meeting,), {"connections": connections, "met": threading.Barrier(4)})
    with running_server(ThreadingHTTPServer(("127.0.0.1", 0), kind)) as server, ThreadPoolExecutor(4) as callers:
        asked = Polled(f"http://127.0.0.1:{server.server_port}", timeout_s=20.0)
        for _ in range(5):
            found = list(callers.map(lambda number: asked.post("/", {"number": str(number)}).body, range(4)))
            assert found == [b"number=%d" % number for number in range(4)]
        asked.close()
    assert len(connections) == 4


def test_who_takes_the_connection_and_says_nothing_is_told_from_who_does_not_take_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the second kind is a name that the system does not look up in time, and a service that begins no TLS."""
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
def test_a_limit_of_one_question_counts_in_the_place_of_the_one_for_all(
    path: Path, for_all_s: float, for_one_s: float, *, is_answered: bool
) -> None:
    """Whichever is longer."""

    def answers_late(connection: socket.socket, _: bytes) -> bool:
        sleep(0.5)
        with suppress(OSError):  # the client has gone
            connection.sendall(ANSWER)
        return False

    with served(path, answers_late), nullcontext() if is_answered else pytest.raises(ReadTimeout):
        assert polled(path, timeout_s=for_all_s).post("/", {}, timeout_s=for_one_s).is_success


@pytest.mark.parametrize("interim", [b"102 Processing", b"103 Early Hints", b"101 Switching Protocols"])
def test_what_comes_before_an_answer_is_taken_for_none_and_shifts_no_later_one(path: Path, interim: bytes) -> None:
    """http.client takes it for the answer, and the next question would have got this one's."""

    def hints(connection: socket.socket, head: bytes) -> bool:
        is_first = head.startswith(b"GET /first")
        connection.sendall(b"HTTP/1.1 " + interim + b"\r\n\r\n" + ANSWER if is_first else ANSWER.replace(b"ok", b"no"))
        return True

    with served(path, hints), closing(polled(path)) as asked:
        with pytest.raises(HTTPException, match=interim[:3].decode()):
            asked.get("/first")
        assert asked.get("/second").body == b"no"
