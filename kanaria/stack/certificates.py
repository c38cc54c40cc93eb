"""Reads and checks the certificates of the gateway and the controller from the files in the settings."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from contract.files import write_whole
from contract.plain_text import one_line
from contract.tls import Validity
from kanaria.errors import SetupError
from kanaria.private_files import close_folder
from kanaria.regular_files import text_of
from kanaria.settings import Settings
from kanaria.stack.certificate_use import check_use


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that is valid now, with its key."""

    chain: str  # PEM: the server's certificate first, then those of its authorities
    key: str  # PEM
    names: tuple[str, ...]  # hosts and addresses that it covers
    validity: Validity

    @property
    def host(self) -> str:
        """One host name that the certificate covers."""
        return self.names[0].replace("*", "kanaria", 1)


def gateway_certificate(settings: Settings) -> Certificate | None:
    """The gateway's certificate; None: it speaks plain HTTP. Raises SetupError."""
    return _read("TLS", settings.tls_certificate, settings.tls_key)


def controller_certificate(settings: Settings) -> Certificate | None:
    """The controller's certificate; None: it speaks plain HTTP. Raises SetupError."""
    return _read("CONTROLLER_TLS", settings.controller_tls_certificate, settings.controller_tls_key)


def names_in_force(settings: Settings) -> tuple[str, ...]:
    """The host names in the certificate that the controller uses now."""
    own = _in_force(settings)
    return _names(own) if own else ()


def shown_by_controller(settings: Settings) -> Validity | None:
    """The validity of the certificate that new clients of the controller get; None: it has none."""
    own = _in_force(settings)
    return _validity(own) if own else None


def _in_force(settings: Settings) -> x509.Certificate | None:
    if settings.controller_tls_certificate is None or not settings.controller_certificate.exists():
        return None
    return x509.load_pem_x509_certificate(settings.controller_certificate.read_bytes())


def expiring_soon(gateway: Certificate | None, controller: Certificate | None) -> Iterator[str]:
    """A warning for each certificate that expires soon."""
    for name, certificate in (("gateway", gateway), ("controller", controller)):
        if certificate is not None and is_due(certificate.validity, dt.datetime.now(dt.UTC)):
            yield (
                f"the certificate of the {name} expires at {certificate.validity.until:%Y-%m-%d %H:%M} UTC: renew it. "
                "A renewed file is used without a restart"
            )


def is_due(validity: Validity, now: dt.datetime) -> bool:
    """Whether it should be renewed now, by the rule of the alert KanariaCertificateExpiresSoon."""
    left, lifetime = validity.until - now, validity.until - validity.since
    return left < min(dt.timedelta(days=14), lifetime / 4)


def open_without_tls(settings: Settings) -> Iterator[str]:
    """A warning for each service that listens on a network without TLS."""
    listening = (
        ("gateway", settings.host, settings.tls_certificate, "TLS", "keys, requests and answers"),
        ("controller", settings.controller_host, settings.controller_tls_certificate, "CONTROLLER_TLS", "tokens"),
    )
    for name, host, certificate, setting, seen in listening:
        if certificate is None and not ip_address(host).is_loopback:
            yield (
                f"the {name} listens on {host} without TLS: anyone on the network path can read {seen}. Set "
                f"KANARIA_{setting}_CERTIFICATE and KANARIA_{setting}_KEY, or put a proxy with TLS before it"
            )


def keep(settings: Settings, certificate: Certificate) -> None:
    """Store the controller's certificate where the controller, its clients and Prometheus find it. Raises OSError."""
    close_folder(settings.controller_certificate.parent)
    write_whole(settings.controller_key, certificate.key, mode=0o600)
    write_whole(settings.controller_certificate, certificate.chain, mode=0o600)


def _read(setting: str, chain: Path | None, key: Path | None) -> Certificate | None:
    if chain is None and key is None:
        return None
    if chain is None or key is None:
        missing = f"KANARIA_{setting}_KEY" if key is None else f"KANARIA_{setting}_CERTIFICATE"
        do = f"set both KANARIA_{setting}_CERTIFICATE and KANARIA_{setting}_KEY, or neither"
        raise SetupError("a certificate needs its key, and a key its certificate", saw=f"no {missing}", do=do)
    chain_text, key_text = _text(setting, chain), _text(setting, key)
    try:
        own = x509.load_pem_x509_certificates(chain_text.encode())[0]
    except (ValueError, UnsupportedAlgorithm) as error:
        do = f"give KANARIA_{setting}_CERTIFICATE a file that begins with the service's own certificate in PEM"
        raise SetupError("the certificate cannot be used", saw=f"{chain}: {_words(error)}", do=do) from error
    try:
        private = load_pem_private_key(key_text.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it has a password
        do = f"give KANARIA_{setting}_KEY a private key in PEM without a password, readable by you alone"
        raise SetupError("the key of the certificate cannot be used", saw=f"{key}: {_words(error)}", do=do) from error
    _check(setting, own, chain)
    if _bytes(own) != _bytes(private):
        do = f"give KANARIA_{setting}_KEY the key with which KANARIA_{setting}_CERTIFICATE was made"
        raise SetupError("the certificate and the key do not belong together", saw=f"{chain} and {key}", do=do)
    names = _names(own)
    if not names:
        do = f"give KANARIA_{setting}_CERTIFICATE one with subject alternative names: clients read only these"
        raise SetupError("the certificate names no host", saw=f"{chain} has no subject alternative name", do=do)
    check_use(setting, own, chain=chain, key=key)
    if (chain_text, key_text) != (_text(setting, chain), _text(setting, key)):
        raise SetupError("a file of the certificate changed while it was read", saw=f"{chain} or {key}", do="try again")
    return Certificate(chain_text, key_text, names, _validity(own))


def _validity(own: x509.Certificate) -> Validity:
    return Validity(own.serial_number, own.not_valid_before_utc, own.not_valid_after_utc)


def _bytes(of: x509.Certificate | PrivateKeyTypes) -> bytes:
    """The public key."""
    return of.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _text(setting: str, path: Path) -> str:
    do = f"correct KANARIA_{setting}_CERTIFICATE and KANARIA_{setting}_KEY, or make the file readable for this user"
    try:
        return text_of(path)
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError("a file of the certificate cannot be read", saw=f"{path}: {_words(error)}", do=do) from error


def _check(setting: str, own: x509.Certificate, path: Path) -> None:
    now = dt.datetime.now(dt.UTC)
    if not own.not_valid_before_utc <= now <= own.not_valid_after_utc:
        saw = f"{path} is valid from {own.not_valid_before_utc:%Y-%m-%d} to {own.not_valid_after_utc:%Y-%m-%d}"
        do = f"renew it, or unset KANARIA_{setting}_CERTIFICATE and KANARIA_{setting}_KEY"
        raise SetupError("the certificate is not valid now", saw=saw, do=do)


def _names(own: x509.Certificate) -> tuple[str, ...]:
    try:
        found = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return (*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress)))


def _words(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return one_line(str(error))[:200] or type(error).__name__
