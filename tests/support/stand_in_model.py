"""A small model server, run as its own process: it answers with its tag, and fails or is slow on request.

Run as `python stand_in_model.py TAG --fd FD`, where FD is a listening socket that it inherits.
"""

import asyncio
import json
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

Message = MutableMapping[str, Any]


class StandInModel:
    """ASGI application. `PUT /behaviour` sets the fields of `behaviour`; `GET /seen` counts requests by path."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.behaviour = {"status": 200, "delay_s": 0.0, "ready": True, "fails_user": None}
        self.seen: Counter[str] = Counter()
        self.last_headers: dict[str, str] = {}

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        message: Message = {"more_body": True}
        body = b""
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        status, answer = await self._answer(scope, body)
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-type", b"application/json"), (b"server", b"stand-in/1.0")],
            }
        )
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    async def _answer(self, scope: Message, body: bytes) -> tuple[int, object]:
        match scope["path"]:
            case "/readyz":
                return (200 if self.behaviour["ready"] else 503), {}
            case "/metrics":
                return 200, {}
            case "/seen":
                return 200, {"requests": self.seen, "last_headers": self.last_headers}
            case "/behaviour":
                self.behaviour |= json.loads(body)
                return 200, self.behaviour
        self.seen[scope["path"]] += 1
        self.last_headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        await asyncio.sleep(self.behaviour["delay_s"])
        user = self.last_headers.get("x-user-id")
        status = 500 if user is not None and user == self.behaviour["fails_user"] else int(self.behaviour["status"])
        return status, {"version": self.tag, "bytes": len(body)}


if __name__ == "__main__":
    tag, listener = sys.argv[1], socket.socket(fileno=int(sys.argv[3]))
    config = uvicorn.Config(StandInModel(tag), lifespan="off", access_log=False, log_level="error", server_header=False)
    uvicorn.Server(config).run(sockets=[listener])
