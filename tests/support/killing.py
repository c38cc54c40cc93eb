"""Simulates SIGKILL in a test, at a call that the test counts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


class Killed(BaseException):
    """Simulated SIGKILL: no later code runs."""


@dataclass
class Killer:
    """Raises `Killed` at the n-th call of the counted methods, before or after the call took effect."""

    calls_left: int
    before: bool

    @contextmanager
    def counting(self, *acts: tuple[object, str]) -> Iterator[None]:
        """While the block runs, count each call of these methods, given by owner and name."""
        whole = [(owner, name, getattr(owner, name)) for owner, name in acts]
        try:
            for owner, name, work in whole:
                setattr(owner, name, self._around(work))
            yield
        finally:
            for owner, name, work in whole:
                setattr(owner, name, work)

    def _around(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls_left -= 1
            if self.calls_left == 0 and self.before:
                raise Killed
            result = work(*args, **kwargs)
            if self.calls_left == 0:
                raise Killed
            return result

        return call
