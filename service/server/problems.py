"""The errors that a client sees, as RFC 9457 `application/problem+json`. None contains a stack trace."""

from collections.abc import Mapping
from http import HTTPStatus

import orjson

RETRY_LATER = {"retry-after": "1"}  # seconds


class Problem(Exception):
    """The reason why a request is refused.

    Args:
        status: the HTTP status; its phrase becomes the title.
        detail: what happened, what was seen and what to do, in one sentence for the client.
        pointer: the place in the request body, as a JSON pointer (RFC 6901) after `#`.
        headers: sent with the problem.
    """

    def __init__(
        self, status: HTTPStatus, detail: str, *, pointer: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.pointer, self.headers = status, detail, pointer, headers or {}

    def body(self, request_id: str) -> bytes:
        """Return the problem as JSON. It has no `type`: by RFC 9457 the status then says what kind of problem it is."""
        members: dict[str, str | int] = {
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
            "request_id": request_id,
        }
        if self.pointer is not None:
            members["pointer"] = self.pointer
        return orjson.dumps(members)


def pointer_to(place: tuple[int | str, ...]) -> str:
    """A place in a body as a JSON pointer."""
    return "#" + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in place)
