"""A command shows its token only to a controller that has proved to know it; with real listeners."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from contract.http import DEADLINE_HEADER
from rollout.errors import CommandRefused, ControllerUnreachable
from rollout.ui.callers import NamedToken, digest
from rollout.ui.client import ControllerClient
from rollout.ui.proof import PROOF_PATH, id_of, proof_of
from tests.support.running_server import running_server
from tests.support.site import TOKEN, serving
from tests.support.thread_limit import no_more_threads
from tests.support.world import Version, World

RIGHT = digest(TOKEN)
ANN = NamedToken(name="ann", role="approver", sha256=digest("of-ann"), made_s=0)
Proof = Callable[[str], tuple[int, str]]


@dataclass
class Listener:
    """A process that took the port; it keeps everything that it is sent."""

    url: str = ""
    heard: list[str] = field(default_factory=list)
    connections: int = 0


@contextmanager
def listening(proof: Proof, *, hangs_up: bool = False) -> Iterator[Listener]:
    """A server that answers the request for a proof by `proof`, and everything else with success."""
    listener = Listener()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            listener.connections += 1

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            listener.heard.append(f"{self.requestline}\n{self.headers}\n{body.decode()}")
            nonce = parse_qs(urlsplit(self.path).query).get("nonce", [""])[0]
            status, text = proof(nonce) if self.path.startswith(PROOF_PATH) else (202, "{}")
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())
            self.close_connection = self.close_connection or hangs_up

        do_GET = do_POST = _serve  # noqa: N815 - http.server requires these names

        def log_message(self, *_: object) -> None: ...

    with running_server(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        listener.url = f"http://127.0.0.1:{server.server_port}"
        yield listener


def commanded(url: str, token: str = TOKEN) -> None:
    client = ControllerClient(url, token=token, by="ann")
    try:
        client.command("promote", reason="secret reason")
    finally:
        client.close()


OTHERS: dict[str, Proof] = {
    "knows nothing": lambda _: (404, "{}"),
    "agrees to everything": lambda _: (200, "ok"),
    "gives the nonce back": lambda nonce: (200, nonce),
    "has another token": lambda nonce: (200, proof_of(digest("another"), nonce)),
    "gives what it heard before": lambda _: (200, proof_of(RIGHT, "an earlier nonce")),
    "gives the id": lambda _: (200, id_of(RIGHT)),
}


@pytest.mark.parametrize("proof", OTHERS.values(), ids=OTHERS)
def test_another_process_on_the_port_gets_no_token(proof: Proof) -> None:
    """It does not get the command either; the error says that it was not sent."""
    with listening(proof) as listener, pytest.raises(ControllerUnreachable, match="not sent"):
        commanded(listener.url)
    heard = "".join(listener.heard)
    assert (len(listener.heard), "secret" in heard, TOKEN in heard, RIGHT in heard) == (1, False, False, False)


def test_a_token_is_sent_only_on_the_connection_of_the_proof() -> None:
    """The controller ends after its proof; a process that then has its port is not asked."""
    with (
        listening(lambda nonce: (200, proof_of(RIGHT, nonce)), hangs_up=True) as listener,
        pytest.raises(ControllerUnreachable),
    ):
        commanded(listener.url)
    assert (listener.connections, len(listener.heard)) == (1, 1)


def test_a_controller_with_the_token_gets_the_command() -> None:
    """It comes after the proof, on one connection, with the time until which the sender waits."""
    before_s = time.time()
    with listening(lambda nonce: (200, proof_of(RIGHT, nonce))) as listener:
        commanded(listener.url)
    assert listener.connections == 1
    assert f"Bearer {TOKEN}" in listener.heard[1]
    (deadline,) = re.findall(rf"{DEADLINE_HEADER}: (.*)", listener.heard[1], re.IGNORECASE)
    assert before_s < float(deadline) < time.time() + 40


def test_reading_sends_no_token() -> None:
    """Another process on the port may give any answer."""
    with listening(lambda _: (404, "")) as listener:
        client = ControllerClient(listener.url, token=TOKEN, by="ann")
        client.is_ready()
        with pytest.raises(ControllerUnreachable, match="does not answer like a controller"):
            client.status()
        client.close()
    assert (len(listener.heard), "authorization" in "".join(listener.heard).lower()) == (2, False)


@pytest.mark.parametrize("token", [TOKEN, "of-ann"])
def test_the_real_controller_proves_itself(tmp_path: Path, token: str) -> None:
    """It does so to the owner, and to a person with their own token, of which it stores only the hash."""
    world = World(tmp_path / "ledger.db", versions={"m:v1": Version(start_s=0)})
    with serving(world, named=(ANN,)) as url, pytest.raises(CommandRefused, match="no release"):
        commanded(url, token)


def test_the_real_controller_gives_no_other_proof(tmp_path: Path) -> None:
    """It gives none for an unknown token, without a nonce, or for a nonce that is too long."""
    with serving(World(tmp_path / "ledger.db", versions={}), named=(ANN,)) as url:
        with pytest.raises(ControllerUnreachable, match="not sent"):
            commanded(url, "withdrawn")
        for asked in (
            {},
            {"nonce": "n"},
            {"token": id_of(ANN.sha256)},
            {"token": id_of(ANN.sha256), "nonce": "n" * 101},
            {"token": ANN.sha256, "nonce": "n"},
        ):
            assert httpx.get(f"{url}{PROOF_PATH}", params=asked).status_code == 404, asked


def test_a_command_needs_no_new_thread_on_either_side(tmp_path: Path) -> None:
    """A version that starts processes without limit must not prevent its rollback."""
    world = World(tmp_path / "ledger.db", versions={"m:v1": Version(start_s=0)})
    with serving(world) as url, no_more_threads(), pytest.raises(CommandRefused, match="no release"):
        commanded(url)
