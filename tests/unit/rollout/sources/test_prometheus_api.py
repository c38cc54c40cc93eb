"""How Kanaria asks a Prometheus over real connections: requests, TLS, credentials and error messages."""

import gzip
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from contract.login import Login
from rollout.errors import SourceUnreachable
from rollout.sources.prometheus_api import PrometheusApi
from tests.support.certificates import Pair, pair
from tests.support.running_server import running_server

PATH, FORM = "/api/v1/query", {"query": 'up{job="a b"}', "time": "7"}


class Store(ThreadingHTTPServer):
    """Gives each question the same answer and keeps its connections open."""

    daemon_threads = True
    answer, status = b"fine", 200

    def __init__(self, tls: Pair | None = None) -> None:
        self.said: dict[str, str] = {}  # headers of the answer
        self.asked: list[tuple[str, str, Message]] = []  # path, body, headers
        self.protocols: list[str | None] = []
        self.connections = 0
        self.meeting = threading.Barrier(1)
        super().__init__(("127.0.0.1", 0), _Handler)
        self.scheme = "http"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls.certificate, tls.key)
            context.set_alpn_protocols(["h2", "http/1.1"])
            self.socket = context.wrap_socket(self.socket, server_side=True)
            self.scheme = "https"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """A client that does not trust it closes the connection."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self._store.connections += 1
        if isinstance(self.connection, ssl.SSLSocket):
            self._store.protocols.append(self.connection.selected_alpn_protocol())

    @property
    def _store(self) -> Store:
        assert isinstance(self.server, Store)
        return self.server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        self._store.asked.append((self.path, body, self.headers))
        self._store.meeting.wait(20)
        self.send_response(self._store.status)
        for name, value in self._store.said.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(self._store.answer)))
        self.end_headers()
        self.wfile.write(self._store.answer)

    def log_message(self, *_: object) -> None:
        """Writes no log."""


@pytest.fixture
def store() -> Iterator[Store]:
    with running_server(Store()) as made:
        yield made


@pytest.fixture
def certificate(tmp_path: Path) -> Pair:
    return pair(tmp_path / "certificates")


@pytest.fixture
def encrypted(certificate: Pair) -> Iterator[Store]:
    with running_server(Store(certificate)) as made:
        yield made


def api(store: Store, **more: object) -> "closing[PrometheusApi]":
    return closing(PrometheusApi(store.url, timeout_s=20.0, **more))  # type: ignore[arg-type] # as each test gives them


def test_a_form_is_sent_under_the_path_of_the_url(store: Store) -> None:
    """Mimir's API has such a path. One connection serves all questions, and no compression is requested."""
    for end in ("", "/"):
        with closing(PrometheusApi(f"{store.url}/prom%20a/x{end}", timeout_s=20.0)) as asked:
            assert [asked.ask(PATH, FORM).body for _ in range(3)] == [b"fine"] * 3
    assert store.connections == 2
    assert {(path, body) for path, body, _ in store.asked} == {
        ("/prom%20a/x/api/v1/query", "query=up%7Bjob%3D%22a+b%22%7D&time=7")
    }
    for _, _, headers in store.asked:
        assert headers["content-type"] == "application/x-www-form-urlencoded"
        assert headers["accept-encoding"] == "identity"
        assert (headers["user-agent"], headers["accept"]) == ("kanaria", "*/*")
        assert headers["host"] == f"127.0.0.1:{store.server_port}"
        assert "cookie" not in headers


def test_each_question_has_the_given_headers(store: Store) -> None:
    """A given header may replace one of Kanaria's own."""
    with api(store, headers={"X-Scope-OrgID": "shop", "User-Agent": "me"}) as asked:
        asked.ask(PATH, FORM)
    (headers,) = (each for _, _, each in store.asked)
    assert headers["x-scope-orgid"] == "shop"
    assert headers.get_all("user-agent") == ["me"]


def test_the_login_is_read_for_each_question(store: Store, tmp_path: Path) -> None:
    """A token may be renewed. An unreadable file is reported, and nothing is sent without the login."""
    path = tmp_path / "login"
    with api(store, login=Login(path)) as asked:
        for text in ("ann:pass:word", "first.token", "second.token"):
            path.write_text(text)
            asked.ask(PATH, FORM)
        path.write_text("a secret in two\nlines")
        with pytest.raises(SourceUnreachable, match="the login of Prometheus cannot be read") as refused:
            asked.ask(PATH, FORM)
        path.unlink()
        with pytest.raises(SourceUnreachable, match="cannot be read"):
            asked.ask(PATH, FORM)
    assert "secret" not in str(refused.value)
    said = [headers["authorization"] for _, _, headers in store.asked]
    assert said == ["Basic YW5uOnBhc3M6d29yZA==", "Bearer first.token", "Bearer second.token"]


def test_cookies_are_sent_back(store: Store) -> None:
    """A load balancer over two replicas of a store uses a cookie to send a client to the same replica."""
    with api(store) as asked:
        store.said = {"set-cookie": "replica=b; Path=/; HttpOnly"}
        asked.ask(PATH, FORM)
        store.said = {"set-cookie": "replica=c; Path=/"}
        asked.ask(PATH, FORM)
        store.said = {}
        asked.ask(PATH, FORM)
    assert [headers.get("cookie") for _, _, headers in store.asked] == [None, "replica=b", "replica=c"]


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"])
def test_proxies_from_the_environment_are_not_used(store: Store, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Nothing listens at the proxy that the environment names."""
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    with api(store) as asked:
        assert asked.ask(PATH, FORM).body == b"fine"


def test_redirects_are_not_followed(store: Store) -> None:
    """The target may be a login page, and would receive the token in the headers."""
    with running_server(Store()) as other:
        store.status, store.said = 307, {"location": f"{other.url}/login"}
        with api(store) as asked:
            assert asked.ask(PATH, FORM).status == 307
        assert (len(store.asked), other.asked) == (1, [])


def _raw_deflate(text: bytes) -> bytes:
    packing = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packing.compress(text) + packing.flush()


@pytest.mark.parametrize(
    ("packing", "packed"),
    [
        ("gzip", gzip.compress(b"fine", mtime=0)),
        ("GZip", gzip.compress(b"fine", mtime=0)),
        ("deflate", zlib.compress(b"fine")),
        ("deflate", _raw_deflate(b"fine")),
        ("deflate, gzip", gzip.compress(zlib.compress(b"fine"), mtime=0)),
        ("identity", b"fine"),
        ("x-unknown", b"fine"),
    ],
)
def test_a_compressed_answer_is_decompressed(store: Store, packing: str, packed: bytes) -> None:
    """Some proxies compress although it was not requested."""
    store.said, store.answer = {"content-encoding": packing}, packed
    with api(store) as asked:
        assert asked.ask(PATH, FORM).body == b"fine"


@pytest.mark.parametrize("damaged", [b"no gzip", gzip.compress(b"fine" * 100, mtime=0)[:-12], b""])
def test_an_answer_that_cannot_be_decompressed_is_not_used(store: Store, damaged: bytes) -> None:
    """A part of it is not taken for the whole."""
    store.said, store.answer = {"content-encoding": "gzip"}, damaged
    with api(store) as asked, pytest.raises(SourceUnreachable, match="does not answer"):
        asked.ask(PATH, FORM)


def test_parallel_questions_have_a_connection_each(store: Store) -> None:
    """The store answers when it has all of them; later questions open no more connections."""
    store.meeting = threading.Barrier(8)
    with api(store) as asked, ThreadPoolExecutor(8) as callers:
        for _ in range(3):
            assert [answer.body for answer in callers.map(lambda _: asked.ask(PATH, FORM), range(8))] == [b"fine"] * 8
    assert store.connections == 8


def test_a_store_is_trusted_by_its_certificate_authority(encrypted: Store, certificate: Pair) -> None:
    """It is asked in HTTP/1.1, whatever else it supports."""
    with api(encrypted, trust=certificate.trust()) as asked:
        assert [asked.ask(PATH, FORM).body for _ in range(2)] == [b"fine"] * 2
    assert encrypted.protocols == ["http/1.1"]


def test_a_store_with_an_untrusted_certificate_is_sent_nothing(encrypted: Store, tmp_path: Path) -> None:
    """Trust is in the public authorities, in another authority, or in its own for a different name."""
    other = pair(tmp_path / "other")
    for trust in (None, other.trust()):
        with api(encrypted, trust=trust) as asked, pytest.raises(SourceUnreachable) as refused:
            asked.ask(PATH, FORM)
        assert "CERTIFICATE_VERIFY_FAILED" in refused.value.saw
        assert "--prometheus-ca" in refused.value.do
    named = pair(tmp_path / "named", names=["models.example"])
    with running_server(Store(named)) as store:
        with api(store, trust=named.trust()) as asked, pytest.raises(SourceUnreachable) as refused:
            asked.ask(PATH, FORM)
        assert "CERTIFICATE_VERIFY_FAILED" in refused.value.saw
        assert store.asked == []
    assert encrypted.asked == []


def test_the_public_authorities_are_those_of_httpx(
    encrypted: Store, certificate: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment variable that Python itself would use adds none."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.authority))
    with api(encrypted) as asked, pytest.raises(SourceUnreachable, match="CERTIFICATE_VERIFY_FAILED"):
        asked.ask(PATH, FORM)


def _refuses() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (_refuses, "ConnectionRefusedError"),
        (lambda: "http://nobody.invalid:9090", "nobody.invalid"),
        (lambda: "http://a..b:9090", "label"),
    ],
    ids=["port", "name", "no name"],
)
def test_an_unreachable_address_is_reported(url: Callable[[], str], words: str) -> None:
    """The error says what was tried."""
    asked = PrometheusApi(url(), timeout_s=5.0)
    with pytest.raises(SourceUnreachable, match="does not answer") as refused:
        asked.ask(PATH, FORM)
    assert words in refused.value.saw
    assert asked.url in refused.value.saw
