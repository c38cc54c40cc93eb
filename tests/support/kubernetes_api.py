"""A stand-in for the API server, for one ConfigMap only: over TLS, with versions, conflicts and rights."""

import datetime as dt
import ipaddress
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.running_server import running_server

TOKEN = "token-of-the-account"  # noqa: S105 - of a test
_MOST_BYTES = 1024 * 1024  # of a ConfigMap's data
PATH = "/api/v1/namespaces/kanaria/configmaps/kanaria-judge-shared"


class KubernetesApi(ThreadingHTTPServer):
    """It has only the ConfigMap that the judge's replicas share."""

    request_queue_size = 128  # as on a real one, where no connection waits for the handshake of another either

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.version = 1  # of the ConfigMap
        self.data: dict[str, str] = {}
        self.is_missing = False
        self.refuses: int | None = None  # with this status
        self.page = ""  # that a proxy sends instead of an answer
        self.conflicts = 0  # for the next writes
        self.reads = self.writes = 0
        self.goes_on = threading.Event()  # not set: it accepts connections and answers nothing
        self.goes_on.set()
        self.answers_after_s = 0.0
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)
        _write_certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "ca.crt", folder / "key.pem")
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        (folder / "token").write_text(TOKEN)
        (folder / "namespace").write_text("kanaria")

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that every pod has."""
        return {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.server_port)}

    @property
    def content(self) -> dict[str, Any]:
        """The answer to a GET of the ConfigMap. Without data, the answer has no key `data`."""
        metadata = {"name": PATH.rpartition("/")[2], "resourceVersion": str(self.version)}
        return {"kind": "ConfigMap", "metadata": metadata, **({"data": self.data} if self.data else {})}

    def shared(self, release: str) -> Any:
        return json.loads(self.data.get(release, "{}"))

    def handle_error(self, *_: object) -> None:
        """Ignore it: clients that are killed during a request are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._api.reads += 1
        self._api.goes_on.wait()
        found = self._refusal() or self._api.content
        time.sleep(self._api.answers_after_s)
        self._answer(found)

    def do_PATCH(self) -> None:
        patch = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert self.headers["content-type"] == "application/merge-patch+json"
        self._api.goes_on.wait()
        with self._api.lock:
            if refusal := self._refusal():
                self._answer(refusal)
                return
            if self._api.conflicts or patch["metadata"]["resourceVersion"] != str(self._api.version):
                self._api.conflicts = max(0, self._api.conflicts - 1)
                self._answer(409)
                return
            merged = self._api.data | patch["data"]
            data = {key: text for key, text in merged.items() if text is not None}
            if sum(len(text.encode()) for text in data.values()) > _MOST_BYTES:
                self._answer(422)
                return
            self._api.writes += 1
            self._api.version += 1
            self._api.data = data
            self._answer(self._api.content)

    @property
    def _api(self) -> KubernetesApi:
        assert isinstance(self.server, KubernetesApi)
        return self.server

    def _refusal(self) -> int | None:
        token = (self._api.folder / "token").read_text()
        if self.headers["authorization"] != f"Bearer {token}":
            return 401
        return self._api.refuses or (404 if self._api.is_missing or self.path != PATH else None)

    def _answer(self, given: int | dict[str, Any]) -> None:
        status, body = (given, {"kind": "Status", "code": given}) if isinstance(given, int) else (200, given)
        content = (self._api.page or json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def kubernetes_api(folder: Path) -> Iterator[KubernetesApi]:
    """Run it until the block ends; `folder` becomes the folder of its service account."""
    folder.mkdir()
    with running_server(KubernetesApi(folder)) as api:
        try:
            yield api
        finally:
            api.goes_on.set()


def _write_certificate(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    now = dt.datetime.now(dt.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    written = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(written)
