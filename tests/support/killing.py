"""kill -9 of whatever works in a test, at a call that the test counts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class Killed(BaseException):
    """kill -9: nothing after it runs."""


@dataclass
class Killer:
    """Dies at the n-th call of anything that writes or acts, before or after it took effect."""

    calls_left: int
    before: bool

    def around(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls_left -= 1
            if self.calls_left == 0 and self.before:
                raise Killed
            result = work(*args, **kwargs)
            if self.calls_left == 0:
                raise Killed
            return result

        return call
