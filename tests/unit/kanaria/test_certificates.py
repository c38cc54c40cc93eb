"""Which certificate files `kanaria up` accepts, how it explains the others, and how a renewed one comes into force."""

import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from contract.tls import Validity
from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stack.certificate_watch import certificate_watch
from kanaria.stack.certificates import (
    Certificate,
    controller_certificate,
    expiring_soon,
    gateway_certificate,
    keep,
    names_in_force,
    open_without_tls,
)
from kanaria.stack.controller_trust import controller_trust
from rollout.routers.envoy.settings import GatewaySettings
from tests.support.certificates import Pair, pair

pytestmark = pytest.mark.needs("serve")


@pytest.fixture
def made(tmp_path: Path) -> Pair:
    return pair(tmp_path / "made")


def settings(tmp_path: Path, certificate: Path | None, key: Path | None, **more: Any) -> Settings:
    return Settings(
        home=tmp_path / "home",
        tls_certificate=certificate,
        tls_key=key,
        controller_tls_certificate=certificate,
        controller_tls_key=key,
        **more,
    )


def test_a_certificate_with_its_key_is_accepted(tmp_path: Path, made: Pair) -> None:
    """Both services accept it and then use https."""
    given = settings(tmp_path, made.certificate, made.key)
    found = gateway_certificate(given)
    assert found is not None
    assert (found.names, found) == (("models.example", "127.0.0.1"), controller_certificate(given))
    assert {given.gateway_url[:8], given.controller_url[:8]} == {"https://"}


def test_without_certificate_files_both_services_use_http(tmp_path: Path) -> None:
    """No file is read, and no certificate is trusted."""
    given = settings(tmp_path, None, None)
    assert (gateway_certificate(given), controller_certificate(given), controller_trust(given)) == (None, None, None)
    assert given.gateway_url.startswith("http://")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _rsa(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def _use(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(signs, False, True, False, False, False, False, False, False)


FOR_CLIENTS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
FOR_BOTH = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])

SPOILT: dict[str, tuple[Callable[[Pair, Path], Pair], str]] = {
    "no certificate": (lambda made, _: made.certificate.unlink() or made, "cannot be read"),  # type: ignore[func-returns-value]
    "no key": (lambda made, _: made.key.unlink() or made, "cannot be read"),  # type: ignore[func-returns-value]
    "a folder": (lambda made, _: _folder(made.key) or made, "cannot be read"),  # type: ignore[func-returns-value]
    "not text": (lambda made, _: made.certificate.write_bytes(b"\xff\xfe") and made, "cannot be read"),
    "empty": (lambda made, _: made.certificate.write_text("") or made, "certificate cannot be used"),
    "swapped": (lambda made, _: Pair(made.key, made.certificate, made.authority), "certificate cannot be used"),
    "not a key": (lambda made, _: made.key.write_text("key") and made, "key of the certificate"),
    "a key with a password": (lambda _, tmp: pair(tmp / "other", password=b"secret"), "key of the certificate"),
    "another key": (
        lambda made, tmp: Pair(made.certificate, pair(tmp / "other").key, made.authority),
        "do not belong together",
    ),
    "expired": (lambda _, tmp: pair(tmp / "other", days=(-30, -1)), "not valid now"),
    "not yet valid": (lambda _, tmp: pair(tmp / "other", days=(1, 30)), "not valid now"),
    "for no host": (lambda _, tmp: pair(tmp / "other", names=()), "names no host"),
    "a pipe": (lambda made, _: _pipe(made.certificate) or made, "cannot be read"),  # type: ignore[func-returns-value]
    "a pipe with the key": (lambda made, _: _pipe(made.key) or made, "cannot be read"),  # type: ignore[func-returns-value]
    "a short key": (lambda _, tmp: pair(tmp / "other", key=_rsa(1024)), "no server can use"),
    "a rare curve": (lambda _, tmp: pair(tmp / "other", key=ec.generate_private_key(ec.SECP256K1())), "no server"),
    "Ed448": (lambda _, tmp: pair(tmp / "other", key=ed448.Ed448PrivateKey.generate()), "no server can use"),
    "for clients": (lambda _, tmp: pair(tmp / "other", more=[FOR_CLIENTS]), "no server can use"),
    "a key that signs nothing": (lambda _, tmp: pair(tmp / "other", more=[_use(signs=False)]), "no server can use"),
    "signed with a short key": (lambda _, tmp: pair(tmp / "other", authority_key=_rsa(1024)), "no server can use"),
}


@pytest.mark.parametrize(("spoil", "words"), SPOILT.values(), ids=SPOILT)
def test_unusable_files_are_explained(
    tmp_path: Path, made: Pair, spoil: Callable[[Pair, Path], Pair], words: str
) -> None:
    """The error names the file and the setting, and shows nothing of a key."""
    found = spoil(made, tmp_path)
    with pytest.raises(SetupError, match=words) as raised:
        gateway_certificate(settings(tmp_path, found.certificate, found.key))
    assert (str(tmp_path) in raised.value.saw, "KANARIA_TLS_" in raised.value.do) == (True, True)
    assert "PRIVATE" not in str(raised.value)


TAKEN: dict[str, Callable[[Path], Pair]] = {
    "RSA": lambda folder: pair(folder, key=_rsa(2048)),
    "P-384": lambda folder: pair(folder, key=ec.generate_private_key(ec.SECP384R1())),
    "P-521": lambda folder: pair(folder, key=ec.generate_private_key(ec.SECP521R1())),
    "Ed25519": lambda folder: pair(folder, key=ed25519.Ed25519PrivateKey.generate()),
    "for clients and servers": lambda folder: pair(folder, more=[FOR_BOTH, _use(signs=True)]),
}


@pytest.mark.parametrize("make", TAKEN.values(), ids=TAKEN)
def test_every_usual_kind_of_key_is_accepted(tmp_path: Path, make: Callable[[Path], Pair]) -> None:
    """Both services accept it."""
    found = make(tmp_path / "made")
    assert gateway_certificate(settings(tmp_path, found.certificate, found.key)) is not None


def test_a_command_does_not_wait_for_a_pipe(tmp_path: Path, made: Pair) -> None:
    """The pipe stands where another machine keeps its copy of the controller's certificate."""
    _pipe(made.certificate)
    with pytest.raises(SetupError, match="cannot be read") as raised:
        controller_trust(settings(tmp_path, made.certificate, made.key))
    assert raised.value.saw == f"{made.certificate}: it is not a regular file"


@pytest.mark.parametrize("lacks", ["certificate", "key"])
def test_one_file_without_the_other_is_refused(tmp_path: Path, made: Pair, lacks: str) -> None:
    """Otherwise a service that should use TLS would use plain HTTP."""
    files = (None, made.key) if lacks == "certificate" else (made.certificate, None)
    with pytest.raises(SetupError) as raised:
        controller_certificate(settings(tmp_path, *files))
    assert raised.value.saw == f"no KANARIA_CONTROLLER_TLS_{lacks.upper()}"


def test_a_service_that_is_reachable_without_tls_is_reported(tmp_path: Path, made: Pair) -> None:
    """Each service has its own warning; loopback has none."""
    own = settings(tmp_path, None, None)
    assert list(open_without_tls(own)) == []
    sentences = list(open_without_tls(own.model_copy(update={"host": "0.0.0.0", "controller_host": "::"})))  # noqa: S104
    assert ["gateway" in sentences[0], "controller" in sentences[1], len(sentences)] == [True, True, 2]
    assert list(open_without_tls(settings(tmp_path, made.certificate, made.key, host="0.0.0.0"))) == []  # noqa: S104


LIVES = {  # start and end in days from now, whether a warning appears
    "of 90 days, with a month left": ((-60, 30), False),
    "of 90 days, with 13 days left": ((-77, 13), True),
    "of 6 days, with two left": ((-4, 2), False),
    "of 6 days, with one left": ((-5, 1), True),
    "of a year, with 15 days left": ((-350, 15), False),
}


@pytest.mark.parametrize(("days", "is_said"), LIVES.values(), ids=LIVES)
def test_a_certificate_that_should_have_been_renewed_is_reported(
    tmp_path: Path, days: tuple[int, int], is_said: bool
) -> None:
    """`kanaria up` warns for each service that uses it."""
    one = pair(tmp_path / "other", days=days)
    given = settings(tmp_path, one.certificate, one.key)
    sentences = list(expiring_soon(gateway_certificate(given), None))
    assert [("gateway" in said, "expires at" in said) for said in sentences] == ([(True, True)] if is_said else [])
    assert len(list(expiring_soon(gateway_certificate(given), controller_certificate(given)))) == 2 * is_said


@contextmanager
def serving(context: ssl.SSLContext) -> Iterator[int]:
    """Yields the port of a server with this context that closes each connection after its handshake."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    plain, _ = server.accept()
                except OSError:
                    return
                with plain:
                    try:
                        context.wrap_socket(plain, server_side=True).close()
                    except OSError:
                        continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def accepts(trust: ssl.SSLContext | None, port: int) -> bool:
    """Whether a client with this trust accepts the server."""
    assert trust is not None
    with socket.create_connection(("127.0.0.1", port)) as plain:
        try:
            trust.wrap_socket(plain).close()
        except ssl.SSLCertVerificationError:
            return False
    return True


def found_in(given: Settings) -> Certificate:
    found = controller_certificate(given)
    assert found is not None
    return found


def test_a_renewed_certificate_comes_into_force_once_both_files_match(tmp_path: Path, made: Pair) -> None:
    """Some tools write the key before the certificate; until both match, the previous pair stays in force.

    Commands trust the certificate that the controller has in force, not the newer file. A pair that no server can use
    changes nothing: neither what is in force nor what the next start reads.
    """
    given = settings(tmp_path, made.certificate, made.key)
    first, gateway = controller_certificate(given), GatewaySettings(tmp_path / "gateway", has_tls=True)
    assert first is not None
    gateway.directory.mkdir()
    keep(given, first)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(given.controller_certificate, given.controller_key)
    told: dict[str, Validity] = {}
    watch = certificate_watch(given, gateway, context, tell=told.__setitem__)
    renewed = pair(tmp_path / "renewed", names=("new.example",))
    with serving(context) as port:
        before = controller_trust(given)
        made.key.write_bytes(renewed.key.read_bytes())
        watch.look()
        assert (accepts(before, port), accepts(controller_trust(given), port)) == (True, True)
        assert told == {"controller": first.validity}
        made.certificate.write_bytes(renewed.certificate.read_bytes())
        watch.look()
        assert (accepts(before, port), accepts(controller_trust(given), port)) == (False, True)
        assert names_in_force(given) == ("new.example",)
        assert told["controller"] == found_in(given).validity != first.validity
        assert renewed.certificate.read_text() in gateway.certificate_path.read_text().replace("\\n", "\n")
        short = pair(tmp_path / "short", names=("new.example",), key=_rsa(1024))
        gateway_before = gateway.certificate_path.read_bytes()
        made.replace_by(short)
        watch.look()
        assert (accepts(before, port), accepts(controller_trust(given), port)) == (False, True)
        assert gateway.certificate_path.read_bytes() == gateway_before
        assert given.controller_certificate.read_text() == renewed.certificate.read_text()
    kept = (given.controller_key, given.controller_certificate, gateway.certificate_path)
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}
