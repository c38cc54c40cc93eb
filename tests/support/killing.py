"""kill -9 of whatever works in a test, at a call that the test counts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


class Killed(BaseException):
    """kill -9: nothing after it runs."""


@dataclass
class Killer:
    """Dies at the n-th call of anything that writes or acts, before or after it took effect."""

    calls_left: int
    before: bool

    @contextmanager
    def counting(self, *acts: tuple[object, str]) -> Iterator[None]:
        """While the block runs, each call of these methods, by their owner and name, may be the last."""
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
