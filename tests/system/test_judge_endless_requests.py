"""No client that reaches the port of `kanaria judge serve` can fill its memory."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from kanaria.stack.ports import free_port
from tests.support.waiting import eventually

TOKEN = "a token of the judge that is long"  # noqa: S105 - of this test
MOST = 8 * 2**20  # bytes that are sent; the judge disconnects long before
HEAD = b"POST /v1/judge HTTP/1.1\r\nhost: 127.0.0.1\r\n"
CHUNKED = HEAD + f"authorization: Bearer {TOKEN}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
ENDLESS = {
    "a header": (HEAD + b"a: ", b"x" * 65_536),
    "headers": (HEAD, b"a: b\r\n" * 10_000),
    "a name of a header": (HEAD, b"x" * 65_536),
    "a path": (b"GET /", b"x" * 65_536),
    "a trailer": (CHUNKED + b"0\r\na: ", b"x" * 65_536),
    "trailers": (CHUNKED + b"0\r\n", b"a: b\r\n" * 10_000),
    "an extension of a chunk": (CHUNKED + b"1;", b"x" * 65_536),
}


def is_up(port: int) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/livez").is_success
    return False


def send_endlessly(port: int, begin: bytes, again: bytes) -> None:
    """Raise OSError once the server disconnects, also after an answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(begin)
        for _ in range(MOST // len(again)):
            client.sendall(again)
        while client.recv(65_536):
            pass
        raise ConnectionResetError("reset, after an answer")


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a judge whose Prometheus is unreachable."""
    folder, port = tmp_path_factory.mktemp("judge"), free_port()
    (folder / "token").write_text(TOKEN)
    options = ["--prometheus", f"http://127.0.0.1:{free_port()}", "--token-file", folder / "token"]
    options += ["--ledger", folder / "judge.db", "--port", port]
    command = [sys.executable, "-m", "kanaria", "judge", "serve", *map(str, options)]
    with Path(folder, "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            eventually(lambda: is_up(port), within_s=120)
            yield port
        finally:
            process.terminate()


@pytest.mark.parametrize("what", ENDLESS)
def test_an_endless_request_is_disconnected(judge: int, what: str) -> None:
    """The judge disconnects before its memory fills, and still answers others."""
    with pytest.raises(OSError, match=r"pipe|reset"):
        send_endlessly(judge, *ENDLESS[what])
    eventually(lambda: is_up(judge))
