"""A client of Prometheus's HTTP API, or of a server with the same API: sends a form, returns an answer or an error."""

import ssl
import zlib
from collections.abc import Mapping
from http import HTTPStatus
from http.client import HTTPMessage, HTTPResponse
from http.cookiejar import CookieJar
from types import MappingProxyType
from typing import cast
from urllib.parse import urlsplit
from urllib.request import Request

from contract.login import Login
from contract.polled import FAILURES, Answer, Polled
from contract.prometheus_refusals import NAME_A_TENANT, asks_for_tenant, has_unknown_authority
from rollout.errors import SourceUnreachable

_OWN_HEADERS = {"accept": "*/*", "user-agent": "kanaria"}
_UNKNOWN_AUTHORITY = (
    "give a file with the authority of its certificate (--prometheus-ca), and its host name in --prometheus"
)
_NO_ANSWER = "check whether it runs, and whether --prometheus names it"
_SHOWN = 80  # characters
_LOOKED_AT = 1200  # bytes
_WITH_HEAD, _BARE = zlib.MAX_WBITS + 32, -zlib.MAX_WBITS  # gzip's or zlib's header; none, as some send for "deflate"


class PrometheusApi:
    """The Prometheus at `url`. Thread-safe.

    Args:
        timeout_s: longest wait for a whole answer, seconds.
        login: used if it requires one.
        trust: the certificates to accept; None: those of the public authorities.
        headers: further headers of each request, such as the name of a tenant.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        login: Login | None = None,
        trust: ssl.SSLContext | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.url, self._login, self._cookies = url.rstrip("/"), login, CookieJar()
        given = {name.lower() for name in headers}
        self._headers = {name: value for name, value in _OWN_HEADERS.items() if name not in given} | dict(headers)
        # Compressing a large answer takes longer than sending it within a cluster.
        self._headers["accept-encoding"] = "identity"
        parts = urlsplit(url)
        if trust is None and parts.scheme == "https":
            from contract.loopback import public_authorities  # noqa: PLC0415 - imports httpx, which only this needs

            trust = public_authorities()
        self._root, self._polled = parts.path.rstrip("/"), Polled(url, timeout_s=timeout_s, trust=trust)

    def ask(self, path: str, form: Mapping[str, str], *, timeout_s: float | None = None) -> Answer:
        """Send a form. Returns the answer, decompressed.

        Args:
            timeout_s: longest wait for this answer, seconds; None: the client's limit.

        Raises: SourceUnreachable, also if a login or a tenant is required; its cause is a TimeoutError if the whole
            answer did not arrive in time.
        """
        question = Request(f"{self.url}{path}")  # noqa: S310 - it is not opened, only used for cookies
        self._cookies.add_cookie_header(question)
        sent = {**dict(question.header_items()), **self._headers, **self._logged_in()}
        try:
            answer = self._polled.post(f"{self._root}{path}", form, headers=sent, timeout_s=timeout_s)
            said = Answer(answer.status, _unpacked(answer), answer.content_type, answer.headers)
        except (*FAILURES, zlib.error) as error:
            raise self.no_answer(repr(error)) from error
        # A load balancer in front of several different stores may mark by a cookie which store answered before.
        self._cookies.extract_cookies(cast("HTTPResponse", _Said(answer.headers)), question)
        self._check_refusal(said)
        return said

    def no_answer(self, saw: str) -> SourceUnreachable:
        """The error for an answer that is not Prometheus's."""
        do = _UNKNOWN_AUTHORITY if has_unknown_authority(saw) else _NO_ANSWER
        return SourceUnreachable("Prometheus does not answer", saw=f"{saw:.200} from {self.url}", do=do)

    def close(self) -> None:
        """Close the connections."""
        self._polled.close()

    def _logged_in(self) -> dict[str, str]:
        if self._login is None:
            return {}
        try:
            return {"authorization": self._login.header()}
        except (OSError, ValueError) as error:
            raise SourceUnreachable(
                "the login of Prometheus cannot be read",
                saw=str(error),
                do="write `user:password` or a bearer token into that file",
            ) from error

    def _check_refusal(self, answer: Answer) -> None:
        """Raise SourceUnreachable if a store requires a login or a tenant."""
        if asks_for_tenant(answer.status, _text(answer)):
            raise SourceUnreachable(
                "Prometheus needs the name of a tenant",
                saw=seen(answer),
                do=NAME_A_TENANT,
            )
        if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise SourceUnreachable(
                "Prometheus does not let Kanaria read",
                saw=f"{seen(answer)} from {self.url}",
                do="give a file with a login that may read: --prometheus-login FILE",
            )


def seen(answer: Answer) -> str:
    """A short description of an unexpected answer, such as a login page."""
    place = f" to {answer.headers['location']}" if "location" in answer.headers else ""
    return " ".join(filter(None, (f"HTTP {answer.status}{place}", answer.content_type, repr(_text(answer)[:_SHOWN]))))


def _text(answer: Answer) -> str:
    """The beginning of an answer."""
    return answer.body[:_LOOKED_AT].decode(errors="replace")


def _unpacked(answer: Answer) -> bytes:
    """The body, decompressed: some proxies compress it regardless of the request. Raises zlib.error."""
    body = answer.body
    for packing in reversed(answer.headers.get("content-encoding", "").lower().split(",")):
        match packing.strip():
            case "gzip":
                body = zlib.decompress(body, _WITH_HEAD)
            case "deflate":
                body = zlib.decompress(body, _WITH_HEAD if body[:1] == b"\x78" else _BARE)
    return body


class _Said:
    """Headers in the form that a cookie jar takes."""

    def __init__(self, headers: HTTPMessage) -> None:
        self._headers = headers

    def info(self) -> HTTPMessage:
        return self._headers
