"""Counters from a metric store, and directly from the processes while it gives none.

Both give the same counters under the same keys, so that a difference across the switch counts each request once.
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
_STARTS_IN_S = 30.0  # until then a store that has given nothing yet is still being started


class Source(Protocol):
    """A MetricSource that can be told that its first reading need not be complete."""

    has_read: bool  # a version may be left out of a reading, because it was in one before

    @property
    def trouble(self) -> str | None: ...

    def read(
        self, backends: tuple[Backend, ...], *, mirrored: str | None = None, own: Sequence[OwnCounter] = ()
    ) -> Reading: ...

    def close(self) -> None: ...


class FailoverSource:
    """A MetricSource that reads directly whenever the store gives no trustworthy reading.

    Args:
        store: asked first; owned, as `direct` is.
        direct: reads the processes themselves.
        silent_s: how long the store may give nothing newer than its last reading, seconds; three scrape intervals.
        steady_clock: seconds on a clock that is never set.
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
        self._newer_at_s = steady_clock()  # when a reading was newer than the one before
        self._error: SourceUnreachable | None = None  # why the store is not asked; None: it is
        self._began_s = self._asked_s = steady_clock()
        self._had_store = False
        self._probe: Future[Reading] | None = None
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="metric-store")

    @property
    def trouble(self) -> str | None:
        """Why counters are read directly, in words; while the store gives them, what it lacks."""
        is_starting = not self._had_store and self._clock() - self._began_s < _STARTS_IN_S
        if self._error is None:
            return self._store.trouble
        if is_starting:
            return self._direct.trouble
        return f"{self._error.what}; the counters are read directly ({self._error.saw})"

    def read(
        self, backends: tuple[Backend, ...], *, mirrored: str | None = None, own: Sequence[OwnCounter] = ()
    ) -> Reading:
        """See `MetricSource`. Raises SourceUnreachable when neither gives a reading."""
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
        """Whether the store has scraped nothing for too long: with a full disk it answers, and takes no samples."""
        return reading.at_s <= self._newest_s and self._clock() - self._newer_at_s > self._silent_s

    def _from_store(
        self, backends: tuple[Backend, ...], mirrored: str | None, own: Sequence[OwnCounter]
    ) -> Reading | None:
        """The store's reading; None where it has none that may follow the last one."""
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
        # After direct readings the store first gives what it scraped before them. That is nothing new to anybody, and
        # its next scrape will be: asked for one newer than a direct reading of the last beat, it might never come back.
        if self._error and reading.at_s <= self._newest_s - self._silent_s:
            return None
        self._error, self._had_store = None, True
        return reading

    def _probed(self, backends: tuple[Backend, ...], mirrored: str | None, own: Sequence[OwnCounter]) -> Reading | None:
        """Ask a store that gave no reading, in a thread: its timeout must not hold up the control loop at each beat.

        Raises: SourceUnreachable.
        """
        if self._probe is None:
            if self._clock() - self._asked_s >= _ASK_AGAIN_S:  # where there is no thread for it, with the next reading
                self._probe = begun(self._pool, partial(self._store.read, backends, mirrored=mirrored, own=own))
            return None
        if not self._probe.done():
            return None
        probe, self._probe = self._probe, None
        probe.result()
        # It answers. Its reading may be minutes old by now, or of other versions: take a new one.
        return self._store.read(backends, mirrored=mirrored, own=own)
