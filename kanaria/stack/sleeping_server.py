"""A uvicorn server that sleeps until there is something to do.

uvicorn wakes up ten times a second to check whether it should end, and to update the date header of answers. Imports
nothing of ours: see `model_server`.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate

import uvicorn
from uvicorn.server import ServerState

Header = tuple[bytes, bytes]


class SleepingServer(uvicorn.Server):
    """Like its base class, without `limit_max_requests` and `callback_notify`. Any thread may end it.

    Args:
        on_start: called once the application has started and the server accepts connections.
    """

    def __init__(self, config: uvicorn.Config, *, on_start: Callable[[], None] = lambda: None) -> None:
        self._is_to_end, self._on_start = False, on_start
        self._loop: asyncio.AbstractEventLoop | None = None
        super().__init__(config)
        self.server_state = _State(config)

    @property
    def should_exit(self) -> bool:
        """Whether it should end."""
        return self._is_to_end

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        self._is_to_end = value
        if value and self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._asked.set)

    async def main_loop(self) -> None:
        """Wait until it should end."""
        self._on_start()
        self._asked, self._loop = asyncio.Event(), asyncio.get_running_loop()
        if not self._is_to_end:  # it may have been set before the loop existed
            await self._asked.wait()


class _State(ServerState):
    """Computes the date header when it is read."""

    def __init__(self, config: uvicorn.Config) -> None:
        self._config, self._second = config, 0
        self._headers: list[Header] = []
        super().__init__()

    @property
    def default_headers(self) -> list[Header]:
        second = int(time.time())
        if second != self._second:
            date = [(b"date", formatdate(second, usegmt=True).encode())] if self._config.date_header else []
            self._second, self._headers = second, date + self._config.encoded_headers
        return self._headers

    @default_headers.setter
    def default_headers(self, _: list[Header]) -> None:
        """Ignored: the base class sets an empty list once."""
