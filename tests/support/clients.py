"""Clients of any service behind the gateway: plain HTTP, in threads."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.support.stack import Kanaria


def is_over(status: dict[str, Any]) -> bool:
    """Whether no release runs according to `status --json`, so that the next one may start."""
    return status["release"] is None or status["release"]["phase"] == "ended"


@contextmanager
def in_threads(
    kanaria: Kanaria, work: Callable[[httpx.Client, str], None], *, at_once: int = 4, pause_s: float = 0.05
) -> Iterator[None]:
    """Run several clients that do `work` repeatedly, each time with another text.

    Args:
        at_once: how many clients.
        pause_s: pause of each client between two requests, in seconds. In total, 70 requests/s are enough to judge a
            quick plan.
    """
    stop = threading.Event()

    def one(name: int) -> None:
        with httpx.Client(base_url=kanaria.gateway, headers={"x-api-key": kanaria.api_key}, timeout=60) as client:
            number = 0
            while not stop.wait(pause_s):
                number += 1
                work(client, f"{name} {number}")

    threads = [threading.Thread(target=one, args=(name,)) for name in range(at_once)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
