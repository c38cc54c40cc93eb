"""Errors that a client may see, as RFC 9457 `application/problem+json`. A stack trace is never one of them."""

from collections.abc import Mapping
from http import HTTPStatus

import orjson

PROBLEM_JSON = "application/problem+json"


class Problem(Exception):
    """A request that is not answered as asked.

    Args:
        status: what kind of problem; its phrase becomes the title.
        detail: what happened, what was seen and what to do, in one sentence for the caller.
        pointer: the place in the request body, as a JSON pointer (RFC 6901) behind `#`.
        headers: sent with the problem.
    """

    def __init__(
        self, status: HTTPStatus, detail: str, *, pointer: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.pointer, self.headers = status, detail, pointer, headers or {}

    def body(self, request_id: str) -> bytes:
        """Return the problem as JSON. `type` is absent, which RFC 9457 reads as "the status says it all"."""
        members: dict[str, str | int] = {
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
            "request_id": request_id,
        }
        if self.pointer is not None:
            members["pointer"] = self.pointer
        return orjson.dumps(members)
