"""How commands verify a controller that speaks TLS: by its certificate, not by its name."""

import ssl

from contract.tls import trusting
from kanaria.errors import SetupError
from kanaria.regular_files import text_of
from kanaria.settings import Settings


def controller_trust(settings: Settings) -> ssl.SSLContext | None:
    """A TLS context that trusts only this controller; None: it speaks plain HTTP. Raises SetupError.

    The state folder holds the certificate in use: the file of the setting may be newer.
    """
    if settings.controller_tls_certificate is None:
        return None
    kept = settings.controller_certificate
    path = kept if kept.exists() else settings.controller_tls_certificate
    try:
        return trusting(text_of(path))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise SetupError(
            "the controller's certificate cannot be read, so the controller cannot be verified",
            saw=f"{path}: {getattr(error, 'strerror', None) or error}",
            do="correct KANARIA_CONTROLLER_TLS_CERTIFICATE, or make that file readable for this user",
        ) from error
