"""What a Prometheus, or what speaks its API, says to a client that it does not answer."""

from http import HTTPStatus

NAME_A_TENANT = "name a tenant that you may read: --prometheus-header 'X-Scope-OrgID: shop'"
_NOT_VERIFIED = "CERTIFICATE_VERIFY_FAILED"
_NO_TENANT = "no org id"  # as Mimir and Cortex say it
_LONGEST = 300  # letters that are looked at


def asks_for_tenant(status: int, text: str) -> bool:
    """Whether it does not know whose samples are meant."""
    is_client_error = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    return is_client_error and _NO_TENANT in text[:_LONGEST]


def has_unknown_authority(error: str) -> bool:
    """Whether its certificate is from nobody that the client knows."""
    return _NOT_VERIFIED in error
