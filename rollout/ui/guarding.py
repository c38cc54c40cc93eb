"""Protects the controller's pages against other sites: headers of every answer, and a check of the host name.

A foreign page in the owner's browser can read from the controller once the page's own host name resolves to 127.0.0.1
(DNS rebinding). Such a request has the foreign name in `Host`, so it is refused. A numeric address is not a name.
"""

from collections.abc import Collection
from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rollout.ui.problems import problem

# Only our own files as scripts, styles and pictures; other sites cannot frame our pages.
OWN_FILES = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_READS = ("GET", "HEAD")  # all other methods need a token, which a foreign page does not have
_HEADERS = {
    "content-security-policy": OWN_FILES,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Guarding:
    """ASGI middleware around the whole application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        names: Collection[str] = (),
        who: str = "the controller",
        named_by: str = "KANARIA_PAGE_URL",
    ) -> None:
        """
        Args:
            app: the application to protect.
            names: accepted host names, besides `localhost` and addresses.
            who: the application, in words.
            named_by: the setting that adds a host name.
        """
        self._app, self._names = app, frozenset(name.lower() for name in names)
        self._who, self._named_by = who, named_by

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        host = Headers(scope=scope).get("host", "")
        if scope["method"] in _READS and not is_own(host, self._names):
            refusal = problem(
                421,
                f"{self._who} is not known by this name",
                f"Host: {host[:100]}",
                do=f"use its address, or name the page that people reach with {self._named_by}",
            )
            await refusal(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)


def is_own(host: str, names: Collection[str]) -> bool:
    """Whether a header `Host` names this machine: by an address, as localhost, or as one of `names`."""
    name = host.lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    if not name or name == "localhost" or name.endswith(".localhost") or name in names:
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
