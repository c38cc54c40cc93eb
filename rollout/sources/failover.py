"""Reads counters from a metric store, or directly from the processes while the store gives none.

Both give the same counters under the same keys, so a difference across the switch counts each request once.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Protocol, Self

import structlog

from contract.threads import begun
from rollout.errors import SourceUnreachable
from rollout.fleet import Backend
from rollout.signals.counters import Reading
from rollout.signals.custom import OwnCounter

log = structlog.get_logger()

_ASK_AGAIN_S = 5.0  # between two tries of a store that gave no reading
_STARTS_IN_S = 30.0  # for so long, a store that has given nothing yet counts as starting


class Source(Protocol):
    """A MetricSource whose first reading need not be complete if `has_read` is set."""

    has_read: bool  # whether a reading may leave a version out, because an earlier reading had it

    @property
    def trouble(self) -> str | None: ...

    def read(
        self, backends: tuple[Backend, ...], *, mirrored: str | None = None, own: Sequence[OwnCounter] = ()
    ) -> Reading: ...

    def close(self) -> None: ...


class FailoverSource:
    """A MetricSource that reads directly whenever the store gives no trustworthy reading.

    Args:
        store: asked first; this object closes it, and `direct`.
        direct: reads the processes themselves.
        silent_s: how long the store may give nothing newer than its last reading, seconds; three scrape intervals.
        steady_clock: seconds on a monotonic clock.
    """

    def __init__(
        self,
        store: Source,
        direct: Source,
        *,
        silent_s: float = 3.0,
        steady_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._direct, self._clock, self._silent_s = store, direct, steady_clock, silent_s
        self._newest_s = float("-inf")  # time of the last reading, Unix seconds
        self._newer_at_s = steady_clock()  # when a reading was last newer than the one before it
        self._error: SourceUnreachable | None = None  # why the store is not asked; None: it is asked
        self._began_s = self._asked_s = steady_clock()
        self._had_store = False
        self._probe: Future[Reading] | None = None
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="metric-store")

    @property
    def trouble(self) -> str | None:
        """Why counters are read directly, in words; if the store gives them, what it lacks."""
        is_starting = not self._had_store and self._clock() - self._began_s < _STARTS_IN_S
        if self._error is None:
            return self._store.trouble
        if is_starting:
            return self._direct.trouble
        return f"{self._error.what}; the counters are read directly ({self._error.saw})"

    def read(
        self, backends: tuple[Backend, ...], *, mirrored: str | None = None, own: Sequence[OwnCounter] = ()
    ) -> Reading:
        """See `MetricSource`. Raises SourceUnreachable if neither gives a reading."""
        reading = self._from_store(backends, mirrored, own)
        if reading is None or self._stands_still(reading):
            reading = self._direct.read(backends, mirrored=mirrored, own=own)
        elif reading.at_s <= self._newest_s:
            return reading
        self._store.has_read = self._direct.has_read = True
        self._newest_s, self._newer_at_s = reading.at_s, self._clock()
        return reading

    def close(self) -> None:
        """Close the connections."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._store.close()
        self._direct.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _stands_still(self, reading: Reading) -> bool:
        """Whether the store has scraped nothing for too long: with a full disk it answers, but stores no samples."""
        return reading.at_s <= self._newest_s and self._clock() - self._newer_at_s > self._silent_s

    def _from_store(
        self, backends: tuple[Backend, ...], mirrored: str | None, own: Sequence[OwnCounter]
    ) -> Reading | None:
        """The store's reading; None if it has none that may follow the last one."""
        try:
            reading = (
                self._probed(backends, mirrored, own)
                if self._error
                else self._store.read(backends, mirrored=mirrored, own=own)
            )
        except SourceUnreachable as error:
            self._error, self._asked_s = error, self._clock()
            return None
        if reading is None:
            return None
        # After direct readings, the store first returns older samples. They are nothing new, but its next scrape will
        # be newer. If a reading had to be newer than the last tick's direct one, the store might never be used again.
        if self._error and reading.at_s <= self._newest_s - self._silent_s:
            return None
        self._error, self._had_store = None, True
        return reading

    def _probed(self, backends: tuple[Backend, ...], mirrored: str | None, own: Sequence[OwnCounter]) -> Reading | None:
        """Ask a store that gave no reading, in a thread: its timeout must not delay the control loop at every tick.

        Raises: SourceUnreachable.
        """
        if self._probe is None:
            if self._clock() - self._asked_s >= _ASK_AGAIN_S:  # without a free thread, the next reading tries again
                self._probe = begun(self._pool, partial(self._store.read, backends, mirrored=mirrored, own=own))
            return None
        if not self._probe.done():
            return None
        probe, self._probe = self._probe, None
        probe.result()
        # The store answers. The probe's reading may be minutes old or of other versions, so take a new one.
        return self._store.read(backends, mirrored=mirrored, own=own)
