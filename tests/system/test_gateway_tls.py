"""The gateway with a certificate: real clients of a real Envoy."""

import datetime as dt
import itertools
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from contract.tls import Validity
from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stack.certificate_watch import certificate_watch
from kanaria.stack.certificates import Certificate, gateway_certificate
from kanaria.stack.gateway_watch import GatewayWatch
from kanaria.stack.ports import free_port
from rollout.routers.envoy.pressure import Pressure
from rollout.routers.envoy.settings import GatewaySettings
from rollout.routers.envoy.tls import shown_by_gateway, write_certificate
from rollout.routers.router import GatewayHealth, Split
from tests.support.certificates import Pair, pair
from tests.support.gateway_rig import Gateway, StandIn
from tests.support.waiting import eventually

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"  # with empty SETTINGS
SETTINGS_FRAME = 4


def give(settings: GatewaySettings, one: Pair) -> None:
    write_certificate(settings, chain=one.certificate.read_text(), key=one.key.read_text())


def usable(home: Path, one: Pair) -> Certificate | None:
    """The certificate as `kanaria up` reads it."""
    return gateway_certificate(Settings(home=home, tls_certificate=one.certificate, tls_key=one.key))


@pytest.fixture
def certificate(tmp_path: Path) -> Pair:
    return pair(tmp_path / "first")


@pytest.fixture
def gateway(tmp_path: Path, certificate: Pair, require_program: Callable[[str], str]) -> Iterator[Gateway]:
    require_program("envoy")
    settings = GatewaySettings(tmp_path / "gateway", port=free_port(), stats_port=free_port(), has_tls=True)
    settings.directory.mkdir()
    give(settings, certificate)
    with Gateway(settings) as gateway:
        yield gateway


def url(gateway: Gateway) -> str:
    return f"https://127.0.0.1:{gateway.settings.port}"


def shaken(gateway: Gateway, trust: ssl.SSLContext, *protocols: str, name: str = "127.0.0.1") -> ssl.SSLSocket:
    """A connection after its handshake. Raises ssl.SSLError."""
    trust.set_alpn_protocols(protocols)
    plain = socket.create_connection(("127.0.0.1", gateway.settings.port), timeout=10)
    return trust.wrap_socket(plain, server_hostname=name)


def test_predictions_are_only_available_over_tls(gateway: Gateway, certificate: Pair) -> None:
    """The client trusts the authority; plain HTTP and other authorities fail."""
    with StandIn("m:v1") as model:
        gateway.router.apply(Split(model.version))
        with httpx.Client(base_url=url(gateway), verify=certificate.trust(), trust_env=False) as client:
            eventually(lambda: client.post("/predict", json={"features": [[0.0]]}).is_success)
            assert client.get("/livez").status_code == 200
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{gateway.settings.port}/livez", trust_env=False)
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{url(gateway)}/livez", trust_env=False)


@pytest.mark.parametrize(("offered", "chosen"), [(("h2", "http/1.1"), "h2"), (("http/1.1",), "http/1.1")])
def test_the_protocol_is_chosen_in_the_handshake(
    gateway: Gateway, certificate: Pair, offered: tuple[str, ...], chosen: str
) -> None:
    """The client is offered HTTP/2 and can use it."""
    with shaken(gateway, certificate.trust(), *offered, name="models.example") as connection:
        assert connection.selected_alpn_protocol() == chosen
        if chosen == "h2":
            connection.sendall(PREFACE)
            assert connection.recv(9)[3] == SETTINGS_FRAME


def test_old_versions_of_tls_are_refused(gateway: Gateway) -> None:
    """These are TLS 1.1 and older."""
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        shaken(gateway, old)


def test_a_renewed_certificate_is_shown_to_new_clients(gateway: Gateway, certificate: Pair, tmp_path: Path) -> None:
    """No restart is needed, and existing connections go on. Only the owner can read the key."""
    renewed = pair(tmp_path / "second")
    with httpx.Client(base_url=url(gateway), verify=certificate.trust(), trust_env=False) as before:
        assert before.get("/livez").status_code == 200
        give(gateway.settings, renewed)

        def is_given() -> bool:
            try:
                shaken(gateway, renewed.trust()).close()
            except ssl.SSLError:
                return False
            return True

        eventually(is_given)
        assert before.get("/livez").status_code == 200
        with pytest.raises(ssl.SSLError):
            shaken(gateway, certificate.trust())
    assert gateway.settings.certificate_path.stat().st_mode & 0o777 == 0o600


def test_a_renewed_certificate_counts_once_clients_are_shown_it(
    gateway: Gateway, certificate: Pair, tmp_path: Path
) -> None:
    """Handing it over is not enough: an unreachable gateway shows nothing, which is logged once."""
    own = Settings(home=tmp_path, tls_certificate=certificate.certificate, tls_key=certificate.key)
    told: list[Validity] = []
    (renewed,) = certificate_watch(own, gateway.settings, None, tell=lambda _, shown: told.append(shown))._watched
    seconds = itertools.count(0.0, 15.0)
    renewed.clock = lambda: next(seconds)
    before = shown_by_gateway(gateway.settings)
    with structlog.testing.capture_logs() as logged:
        renewed.look()
        assert [line["event"] for line in logged] == ["certificate_taken"]
        gateway.kill()
        certificate.replace_by(pair(tmp_path / "second", days=(-1, 60)))
        for _ in range(4):
            renewed.look()
        assert [line["event"] for line in logged] == ["certificate_taken", "certificate_not_shown"]
        assert (set(told), renewed.is_settled) == ({before}, False)
        gateway.start()
        renewed.look()
    assert (logged[-1]["event"], len(logged), renewed.is_settled) == ("certificate_taken", 3, True)
    after = usable(tmp_path, certificate)
    assert after is not None
    assert told[-1] == after.validity != before


def test_an_expired_certificate_is_still_reported(gateway: Gateway, certificate: Pair, tmp_path: Path) -> None:
    """It is in force, whatever the configured files contain now: the alert depends on it."""
    give(gateway.settings, pair(tmp_path / "expired", days=(-30, -1)))
    own = Settings(home=tmp_path, tls_certificate=tmp_path / "gone.pem", tls_key=certificate.key)
    told: list[Validity] = []
    watch = certificate_watch(own, gateway.settings, None, tell=lambda _, shown: told.append(shown))

    def has_expired() -> bool:
        watch.look()
        return told[-1].until < dt.datetime.now(dt.UTC)

    eventually(has_expired)


KEYS: dict[str, tuple[Callable[[], CertificateIssuerPrivateKeyTypes], bool]] = {
    "RSA": (lambda: rsa.generate_private_key(65537, 2048), True),
    "P-384": (lambda: ec.generate_private_key(ec.SECP384R1()), True),
    "P-521": (lambda: ec.generate_private_key(ec.SECP521R1()), True),
    "Ed25519": (ed25519.Ed25519PrivateKey.generate, True),
    "short RSA": (lambda: rsa.generate_private_key(65537, 1024), False),  # noqa: S505 - of a test
    "secp256k1": (lambda: ec.generate_private_key(ec.SECP256K1()), False),
    "Ed448": (ed448.Ed448PrivateKey.generate, False),
}


@pytest.mark.parametrize(("make", "is_usable"), KEYS.values(), ids=KEYS)
def test_envoy_accepts_the_keys_that_we_accept(
    gateway: Gateway, tmp_path: Path, make: Callable[[], CertificateIssuerPrivateKeyTypes], is_usable: bool
) -> None:
    """It refuses others: such a gateway closes all connections, is not full, and is reported as silent."""
    made = pair(tmp_path / "made", key=make())
    if is_usable:
        assert usable(tmp_path, made) is not None
    else:
        with pytest.raises(SetupError, match="no server can use"):
            usable(tmp_path, made)
    give(gateway.settings, made)
    gateway.stop()
    gateway.spawn()

    def has_answer() -> bool:
        try:
            shaken(gateway, made.trust()).close()
        except (ssl.SSLError, ConnectionResetError):
            return not is_usable
        except ConnectionRefusedError:  # it is starting
            return False
        return is_usable

    eventually(has_answer)
    pressure = Pressure(gateway.settings)
    watch = GatewayWatch(url(gateway), restart=lambda: None, tell=pressure.tell, is_full=lambda: pressure.is_full)
    pressure.tell()
    expected = GatewayHealth.READY if is_usable else GatewayHealth.SILENT
    eventually(lambda: (watch.look(), watch.health)[1] is expected)


def test_the_watch_uses_tls_whatever_the_certificate(gateway: Gateway) -> None:
    """An expired certificate does not make the gateway silent: a restart would not help."""
    watch = GatewayWatch(url(gateway), restart=lambda: None)
    eventually(lambda: (watch.look(), watch.health)[1] is GatewayHealth.READY)


def test_connections_without_a_handshake_block_others_only_briefly(gateway: Gateway, tmp_path: Path) -> None:
    """Neither silent connections nor those in the middle of a handshake do."""
    gateway.stop()
    gateway.settings = type(gateway.settings)(
        gateway.settings.directory,
        port=gateway.settings.port,
        stats_port=gateway.settings.stats_port,
        has_tls=True,
        max_connections=200,
    )
    gateway.start()
    pressure = Pressure(gateway.settings)
    watch = GatewayWatch(url(gateway), restart=lambda: None, tell=pressure.tell, is_full=lambda: pressure.is_full)
    watch.start()
    with ExitStack() as stack:
        for number in range(220):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", gateway.settings.port)))
            try:
                one.sendall(b"\x16\x03\x01\x02\x00" if number % 2 else b"")
            except ConnectionError:
                continue
        eventually(lambda: watch.health is GatewayHealth.FULL)
        eventually(lambda: watch.health is GatewayHealth.READY)
    watch.stop()
