"""TLS with our own services. Clients know the exact certificate, so they check neither host name nor authority."""

import datetime as dt
import ssl
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Validity:
    """One certificate, and when it is valid."""

    serial: int
    since: dt.datetime
    until: dt.datetime


def trusting(certificate: str) -> ssl.SSLContext:
    """A context that accepts only a service with this certificate, while it is valid.

    Args:
        certificate: PEM; if it holds several, the first one, the service's own, counts.

    Raises: ssl.SSLError, ValueError if it is not a certificate.
    """
    end = "-----END CERTIFICATE-----"
    own, found, _ = certificate.partition(end)
    if not found:
        raise ValueError("there is no certificate in it")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the service is known by its certificate, whatever its address
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate itself is trusted, not its authority
    context.load_verify_locations(cadata=f"{own}{end}\n")
    return context


def unchecked() -> ssl.SSLContext:
    """A context that accepts any certificate, to ask whether a service answers, even with an expired one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
