"""A server of the standard library that answers in its own thread."""

from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import BaseServer
from threading import Thread
from typing import TypeVar

Server = TypeVar("Server", bound=BaseServer)


@contextmanager
def running_server(server: Server) -> Iterator[Server]:
    """Let it answer until the block ends, then close it."""
    # By default it checks every half second whether it should end, and each test would wait for that.
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    with server:
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
