"""A service that is asked all the time: answers, connections that are kept, and what is raised."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import pytest

from contract.deadline import within
from contract.polled import FAILURES, Answer, Polled
from tests.support.dribbling import dribbling

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
            with connection:
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
    asked, seen = polled(path, timeout_s=0.2), list[bytes]()

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

    asked = polled(path, timeout_s=0.3)
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
