"""What a person reads if another service has the controller's port or closes the connection; with real listeners."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from rollout.errors import ControllerUnreachable
from rollout.ui.callers import digest
from rollout.ui.client import Absence, ControllerClient
from rollout.ui.proof import PROOF_PATH, proof_of

TOKEN = "the-token"  # noqa: S105 - of a test


def answer(head: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {head}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


JSON = "content-type: application/json"
OTHERS = {
    "a page": (answer("200 OK\r\ncontent-type: text/html", b"<h1>hi"), "HTTP 200, text/html: <h1>hi"),
    "an error": (answer(f"500 No\r\n{JSON}", b"x"), "HTTP 500, application/json: x"),
    "a list": (answer(f"200 OK\r\n{JSON}", b"[]"), "HTTP 200, application/json: []"),
    "an error with a list": (answer(f"400 No\r\n{JSON}", b"[]"), "HTTP 400, application/json: []"),
    "an error that is another's": (answer(f"404 No\r\n{JSON}", b"{}"), "HTTP 404, application/json: {}"),
    "a detour": (answer("302 Go\r\nlocation: http://127.0.0.1:1/", b""), "HTTP 302, no content type: nothing"),
    "text for a terminal": (answer("200 OK", b"\x1b[2J\xff"), "HTTP 200, no content type: "),
}


@contextmanager
def listening(say: Callable[[str], bytes], *, on: socket.socket | None = None) -> Iterator[str]:
    """A server that answers each request with `say(request)`; gives its address."""
    with on or socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    one, _ = server.accept()
                except OSError:
                    return
                with one, suppress(ConnectionError):  # a client need not read the whole answer
                    while (asked := one.recv(65536)) and (said := say(asked.decode())):
                        one.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def refusal(url: str, *, commands: bool) -> ControllerUnreachable:
    """The error of a status, or of a command."""
    client = ControllerClient(url, token=TOKEN, by="ann")
    with pytest.raises(ControllerUnreachable) as raised:
        client.command("pause") if commands else client.status()
    client.close()
    return raised.value


@pytest.mark.parametrize(("said", "saw"), OTHERS.values(), ids=OTHERS)
def test_another_service_on_the_port_is_reported(said: bytes, saw: str) -> None:
    """One sentence gives its answer."""
    with listening(lambda _: said) as url:
        found = refusal(url, commands=False)
    assert found.what == f"the process that listens at {url} does not answer like a controller"
    assert (saw in found.saw, "\x1b" in found.saw, "kanaria processes show" in found.do) == (True, False, True)


@pytest.mark.parametrize(("said", "saw"), OTHERS.values(), ids=OTHERS)
def test_an_unexpected_answer_to_a_command_is_reported(said: bytes, saw: str) -> None:
    """It may be a controller of another version, or one behind a proxy."""

    def say(asked: str) -> bytes:
        if PROOF_PATH not in asked:
            return said
        nonce = asked.partition("nonce=")[2].split()[0]
        return answer("200 OK", proof_of(digest(TOKEN), nonce).encode())

    with listening(say) as url:
        assert saw in refusal(url, commands=True).saw


@pytest.mark.parametrize("commands", [True, False])
def test_a_closed_connection_does_not_advise_to_start_the_stack(*, commands: bool) -> None:
    """The controller runs: it is full or shutting down."""
    with listening(lambda _: b"") as url:
        found = refusal(url, commands=commands)
    assert ("closed the connection" in found.saw, "try again" in found.do, "up TAG" in found.do) == (True, True, False)


@pytest.mark.parametrize("commands", [True, False])
def test_the_client_waits_for_a_controller_that_is_starting(*, commands: bool) -> None:
    """A command typed just after the controller ended advised to start the stack, which was running."""
    taken, said = socket.socket(), list[str]()
    taken.bind(("127.0.0.1", 0))  # connections are refused
    url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    asked = iter(range(100))

    def say(asked: str) -> bytes:
        nonce = asked.partition("nonce=")[2].split()
        return answer(f"200 OK\r\n{JSON}", proof_of(digest(TOKEN), nonce[0]).encode() if nonce else b"[]")

    with ExitStack() as stack:

        def comes() -> bool:
            if next(asked) == 30:
                taken.listen()
                stack.enter_context(listening(say, on=taken))
            return True

        client = ControllerClient(url, token=TOKEN, by="ann", comes=comes, say=said.append)
        with pytest.raises(ControllerUnreachable, match="does not answer like a controller"):
            client.command("pause") if commands else client.status()
        client.close()
    assert said == ["waits for the controller, which is being started"]


def test_the_client_waits_again_each_time_the_controller_is_away() -> None:
    """`--wait` lasts for hours. After one wait of half a minute, each later absence was an error at once."""
    taken, said, address = [socket.socket(), socket.socket()], list[str](), ("127.0.0.1", 0)
    for each in taken:  # connections are refused
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        each.bind(address)
        address = each.getsockname()
    url, asked = f"http://127.0.0.1:{address[1]}", iter(range(100))

    with ExitStack() as stack:

        def comes() -> bool:
            if next(asked) in (30, 70):
                server = taken.pop()
                server.listen()
                stack.enter_context(listening(lambda _: answer("200 OK", b"x"), on=server))
            return True

        client = ControllerClient(url, token=TOKEN, by="ann", comes=comes, say=said.append)
        for _ in range(2):
            with pytest.raises(ControllerUnreachable, match="does not answer like a controller"):
                client.status()
            client.close()
            stack.close()
    assert said == ["waits for the controller, which is being started"] * 2


def test_a_command_that_repeats_anyway_does_not_wait() -> None:
    """`kanaria status --watch` showed an old picture for half a minute, with a line across it."""
    said = list[str]()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        client = ControllerClient(url, token=TOKEN, by="ann", comes=lambda: True, say=said.append)
        with pytest.raises(ControllerUnreachable) as raised:
            client.status(waits=False)
    assert (raised.value.saw, said) == (f"nothing listens at {url} yet", [])


def test_the_client_does_not_wait_for_a_controller_that_is_not_starting() -> None:
    """It also stops waiting when nothing starts the controller any more."""
    asked = iter([True, True, False])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        client = ControllerClient(url, token=TOKEN, by="ann", comes=lambda: next(asked, False))
        with pytest.raises(ControllerUnreachable, match="does not answer") as raised:
            client.status()
    assert raised.value.do == "start the stack with `kanaria up TAG`"


def test_a_wait_without_success_says_what_is_known() -> None:
    """If the reason is known, the error gives it; `kanaria up` would not help."""
    asked = iter([False])  # it has waited long enough
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        absence = Absence("it has been down for 2 s", "read its log")
        client = ControllerClient(url, token=TOKEN, by="ann", comes=lambda: next(asked, True), absence=lambda: absence)
        with pytest.raises(ControllerUnreachable) as raised:
            client.status()
    assert raised.value.saw == f"nothing listens at {url} yet: it has been down for 2 s"
    assert raised.value.do == "read its log"


def test_a_killed_controller_is_asked_again() -> None:
    """Its connection closed before a command was sent. If it keeps closing, it is full, and the error says so."""
    answers = iter([b"", b"", b"", b"x", b"", b"", b"", b""])
    asked = list[bytes]()

    def say(_: str) -> bytes:
        asked.append(given := next(answers))
        return answer(f"500 No\r\n{JSON}", given) if given else b""

    with listening(say) as url:
        client = ControllerClient(url, token=TOKEN, by="ann", comes=lambda: True)
        with pytest.raises(ControllerUnreachable, match="does not answer like a controller"):
            client.status()
        client.close()
        with pytest.raises(ControllerUnreachable, match="does not answer") as raised:
            ControllerClient(url, token=TOKEN, by="ann", comes=lambda: True).command("pause")
    assert (len(asked), "all its connections are in use" in raised.value.do) == (8, True)


def test_a_command_that_was_sent_is_not_sent_again() -> None:
    """It may have been executed; the advice was to try again."""
    commands = list[str]()

    def say(asked: str) -> bytes:
        if PROOF_PATH not in asked:
            commands.append(asked)
            return b""
        nonce = asked.partition("nonce=")[2].split()[0]
        return answer("200 OK", proof_of(digest(TOKEN), nonce).encode())

    with listening(say) as url:
        client = ControllerClient(url, token=TOKEN, by="ann", comes=lambda: True)
        with pytest.raises(ControllerUnreachable, match="does not answer") as raised:
            client.command("pause")
    assert (len(commands), raised.value.do) == (1, "see `kanaria status`: the command may have been carried out")
