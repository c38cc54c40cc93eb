"""Recognises why Prometheus, or a server with the same API, refuses a client."""

from http import HTTPStatus

NAME_A_TENANT = "name a tenant that you may read: --prometheus-header 'X-Scope-OrgID: shop'"
_NOT_VERIFIED = "CERTIFICATE_VERIFY_FAILED"
_NO_TENANT = "no org id"  # as Mimir and Cortex say it
_LONGEST = 300  # characters of an error that are searched


def asks_for_tenant(status: int, text: str) -> bool:
    """Whether the server refused because the request names no tenant."""
    is_client_error = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    return is_client_error and _NO_TENANT in text[:_LONGEST]


def has_unknown_authority(error: str) -> bool:
    """Whether the client does not know the authority that signed the server's certificate."""
    return _NOT_VERIFIED in error
