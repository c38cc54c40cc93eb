"""Requests that the data plane refused while no version got any: then callers do reach the gateway."""

from collections.abc import Callable

from rollout.format import count, span
from rollout.routers.router import Refused

_SILENT_WINDOWS = 2  # fewer windows without requests mean nothing


class Refusals:
    """What was refused since the first of the latest consecutive readings that counted no request."""

    def __init__(self) -> None:
        self._before: Refused | None = None  # the totals at that reading; None: the newest reading counted requests
        self._refused = Refused()  # since that reading
        self._since_s = self._seen_s = 0.0  # on the steady clock
        self.is_noted = False  # noted in the ledger for this time without requests

    def saw(self, now_s: float, *, is_counted: bool, refused: Callable[[], Refused | None]) -> None:
        """Remember a reading.

        Args:
            is_counted: whether it counted a request of either version.
            refused: reads the totals from the data plane; only called if no request was counted.
        """
        if is_counted:
            self._before, self._refused, self.is_noted = None, Refused(), False
            return
        if (every := refused()) is None:
            return
        if self._before is None:
            self._before, self._since_s = every, now_s
        self._refused, self._seen_s = every.since(self._before), now_s

    def words(self, window_s: float) -> str:
        """How many were refused, why, and what to do; empty: none, or requests were counted moments ago."""
        lasted_s, refused = self._seen_s - self._since_s, self._refused
        if not refused or lasted_s <= _SILENT_WINDOWS * window_s:
            return ""
        said = []
        if refused.for_key:
            requests = "request" if refused.for_key == 1 else "requests"
            of_key = f"refused {count(refused.for_key)} {requests} for a missing or wrong key"
            said.append(f"{of_key} (`kanaria key list` shows the keys that it accepts)")
        if refused.otherwise:
            status = "another 4xx status" if refused.for_key else "a 4xx status"
            said.append(
                f"answered {count(refused.otherwise)} with {status}, such as 404 for a path that no version has"
            )
        return f"in {span(lasted_s)} the gateway {' and '.join(said)}"
