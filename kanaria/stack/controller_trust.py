"""How commands know the controller where it speaks TLS: by its certificate, not by its name."""

import ssl

from contract.tls import trusting
from kanaria.errors import SetupError
from kanaria.regular_files import text_of
from kanaria.settings import Settings


def controller_trust(settings: Settings) -> ssl.SSLContext | None:
    """Takes the controller of these settings alone; None: it speaks plain HTTP. Raises SetupError.

    That of this state folder says which certificate it has in force: the file of the setting may be newer.
    """
    if settings.controller_tls_certificate is None:
        return None
    kept = settings.controller_certificate
    path = kept if kept.exists() else settings.controller_tls_certificate
    try:
        return trusting(text_of(path))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise SetupError(
            "the controller's certificate cannot be read, so nothing would tell it from others",
            saw=f"{path}: {getattr(error, 'strerror', None) or error}",
            do="correct KANARIA_CONTROLLER_TLS_CERTIFICATE, or let this user read that file",
        ) from error
