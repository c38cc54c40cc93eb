"""Checks whether a server can use a certificate: what Envoy or clients refuse is refused before anything starts."""

import ssl
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID

from kanaria.errors import SetupError

_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_SMALLEST_RSA = 2048

_Kind = TypeVar("_Kind", bound=x509.ExtensionType)


def check_use(setting: str, own: x509.Certificate, *, chain: Path, key: Path) -> None:
    """Raise SetupError for a certificate that the gateway, the controller or their clients would refuse."""
    reason = _other_key(own.public_key()) or _other_purpose(own) or _not_loaded(chain, key)
    if reason:
        do = (
            f"give KANARIA_{setting}_CERTIFICATE one for servers, with a key of the kind RSA (2048 bits or more), "
            "P-256, P-384, P-521 or Ed25519"
        )
        raise SetupError("no server can use the certificate", saw=f"{chain} {reason}", do=do)


def _other_key(key: PublicKeyTypes) -> str | None:
    match key:
        case rsa.RSAPublicKey():
            return f"has a key of only {key.key_size} bits" if key.key_size < _SMALLEST_RSA else None
        case ec.EllipticCurvePublicKey():
            return None if key.curve.name in _CURVES else f"has a key on the curve {key.curve.name}"
        case ed25519.Ed25519PublicKey():
            return None
    return f"has a key of another kind ({type(key).__name__})"


def _other_purpose(own: x509.Certificate) -> str | None:
    purposes, use = _extension(own, x509.ExtendedKeyUsage), _extension(own, x509.KeyUsage)
    if purposes is not None and ExtendedKeyUsageOID.SERVER_AUTH not in purposes:
        return "is not for servers (its extended key usage lacks serverAuth)"
    if use is not None and not use.digital_signature:
        return "may not sign handshakes (its key usage lacks digitalSignature)"
    return None


def _extension(own: x509.Certificate, kind: type[_Kind]) -> _Kind | None:
    try:
        return own.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _not_loaded(chain: Path, key: Path) -> str | None:
    """Why OpenSSL refuses the certificate; None if it does not."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key, password=b"")
    except OSError as error:  # ssl.SSLError is one
        words = getattr(error, "reason", None) or error.strerror or type(error).__name__
        return f"is refused by OpenSSL: {words.replace('_', ' ').lower()}"
    return None
