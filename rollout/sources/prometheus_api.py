"""The HTTP API of a Prometheus, or of what speaks it: a form goes there, and an answer comes back, or an error."""

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
    "give a file with the authority that its certificate is from (--prometheus-ca), and its name in --prometheus"
)
_NO_ANSWER = "see whether it runs, and whether --prometheus names it"
_SHOWN = 80  # letters
_LOOKED_AT = 1200  # bytes
_WITH_HEAD, _BARE = zlib.MAX_WBITS + 32, -zlib.MAX_WBITS  # gzip's or zlib's head, or none, which some take for deflate


class PrometheusApi:
    """The one at `url`. Used from any thread.

    Args:
        timeout_s: longest wait for a whole answer, seconds.
        login: where it asks for one.
        trust: whose certificates count; None: those of the public authorities.
        headers: that each question carries besides, such as the name of a tenant.
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
        # Compressed, a large answer takes both sides longer than the network within a cluster does.
        self._headers["accept-encoding"] = "identity"
        parts = urlsplit(url)
        if trust is None and parts.scheme == "https":
            from contract.loopback import public_authorities  # noqa: PLC0415 - it takes httpx, and no other needs that

            trust = public_authorities()
        self._root, self._polled = parts.path.rstrip("/"), Polled(url, timeout_s=timeout_s, trust=trust)

    def ask(self, path: str, form: Mapping[str, str], *, timeout_s: float | None = None) -> Answer:
        """What it answers, unpacked.

        Args:
            timeout_s: longest wait for it, seconds; None: as long as for all.

        Raises: SourceUnreachable, also where it asks who reads or whose samples are meant; caused by a TimeoutError
            where no whole answer came in time.
        """
        question = Request(f"{self.url}{path}")  # noqa: S310 - nobody opens it: it is what cookies are for
        self._cookies.add_cookie_header(question)
        sent = {**dict(question.header_items()), **self._headers, **self._logged_in()}
        try:
            answer = self._polled.post(f"{self._root}{path}", form, headers=sent, timeout_s=timeout_s)
            said = Answer(answer.status, _unpacked(answer), answer.content_type, answer.headers)
        except (*FAILURES, zlib.error) as error:
            raise self.no_answer(repr(error)) from error
        # Who spreads questions over several stores that differ may tell by a cookie which one answered before.
        self._cookies.extract_cookies(cast("HTTPResponse", _Said(answer.headers)), question)
        self._check_refusal(said)
        return said

    def no_answer(self, saw: str) -> SourceUnreachable:
        """The error for what is no answer of Prometheus's."""
        do = _UNKNOWN_AUTHORITY if has_unknown_authority(saw) else _NO_ANSWER
        return SourceUnreachable("Prometheus gives no answer", saw=f"{saw:.200} from {self.url}", do=do)

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
        """Raises SourceUnreachable where a store asks who reads, or whose samples are meant."""
        if asks_for_tenant(answer.status, _text(answer)):
            raise SourceUnreachable(
                "Prometheus does not know whose samples are meant",
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
    """What came in the place of an answer, such as the page of a login."""
    place = f" to {answer.headers['location']}" if "location" in answer.headers else ""
    return " ".join(filter(None, (f"HTTP {answer.status}{place}", answer.content_type, repr(_text(answer)[:_SHOWN]))))


def _text(answer: Answer) -> str:
    """Its beginning."""
    return answer.body[:_LOOKED_AT].decode(errors="replace")


def _unpacked(answer: Answer) -> bytes:
    """The body, which some proxies pack whatever they are asked. Raises zlib.error."""
    body = answer.body
    for packing in reversed(answer.headers.get("content-encoding", "").lower().split(",")):
        match packing.strip():
            case "gzip":
                body = zlib.decompress(body, _WITH_HEAD)
            case "deflate":
                body = zlib.decompress(body, _WITH_HEAD if body[:1] == b"\x78" else _BARE)
    return body


class _Said:
    """Headers as a jar of cookies takes them."""

    def __init__(self, headers: HTTPMessage) -> None:
        self._headers = headers

    def info(self) -> HTTPMessage:
        return self._headers
