"""Services of our own that speak TLS. Clients know their certificates, so no name and no authority is asked."""

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
    """Takes a service with this certificate (PEM; of several the first, its own) while it is valid, and no other.

    Raises: ssl.SSLError, ValueError for what is none.
    """
    end = "-----END CERTIFICATE-----"
    own, found, _ = certificate.partition(end)
    if not found:
        raise ValueError("there is no certificate in it")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the service is known by its certificate, whatever its address
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate itself is trusted, not who signed it
    context.load_verify_locations(cadata=f"{own}{end}\n")
    return context


def unchecked() -> ssl.SSLContext:
    """Takes any service: to ask whether one answers, which an outdated certificate does not change."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
