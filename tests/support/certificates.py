"""Certificates for tests, each signed by its own authority."""

import datetime as dt
import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Pair:
    """The files of one certificate; `authority` is the certificate of its issuer."""

    certificate: Path
    key: Path
    authority: Path

    def trust(self) -> ssl.SSLContext:
        """The TLS context of a client that knows the authority and checks the name."""
        return ssl.create_default_context(cafile=self.authority)

    def replace_by(self, other: "Pair") -> None:
        """Replace the files as a renewal does."""
        self.key.write_bytes(other.key.read_bytes())
        self.certificate.write_bytes(other.certificate.read_bytes())


def pair(
    folder: Path,
    *,
    names: Sequence[str] = ("127.0.0.1", "models.example"),
    days: tuple[int, int] = (-1, 30),
    password: bytes | None = None,
    key: CertificateIssuerPrivateKeyTypes | None = None,
    authority_key: CertificateIssuerPrivateKeyTypes | None = None,
    more: Sequence[x509.ExtensionType] = (),
) -> Pair:
    """A new certificate with its key.

    Args:
        names: hosts and addresses that it is for.
        days: start and end of its validity, in days from today.
        key: its private key; None: a new one. `authority_key` is likewise the private key of its issuer.
        more: additional extensions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    authority_key = authority_key or ec.generate_private_key(ec.SECP256R1())
    own_key = key or ec.generate_private_key(ec.SECP256R1())
    authority = _signed("authority", authority_key, "authority", authority_key, is_authority=True)
    own = _signed("service", own_key, "authority", authority_key, names=names, days=days, more=more)
    made = Pair(folder / "certificate.pem", folder / "key.pem", folder / "authority.pem")
    made.authority.write_bytes(authority.public_bytes(Encoding.PEM))
    made.certificate.write_bytes(own.public_bytes(Encoding.PEM) + authority.public_bytes(Encoding.PEM))
    hidden: KeySerializationEncryption = BestAvailableEncryption(password) if password else NoEncryption()
    made.key.write_bytes(own_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden))
    return made


def _signed(
    subject: str,
    key: CertificateIssuerPrivateKeyTypes,
    issuer: str,
    issuer_key: CertificateIssuerPrivateKeyTypes,
    *,
    names: Sequence[str] = (),
    days: tuple[int, int] = (-1, 30),
    is_authority: bool = False,
    more: Sequence[x509.ExtensionType] = (),
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + dt.timedelta(days=days[0]))
        .not_valid_after(now + dt.timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    if names:
        made = made.add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
    for extension in more:
        made = made.add_extension(extension, critical=False)
    return made.sign(issuer_key, hashes.SHA256())


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
