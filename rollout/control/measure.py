"""Turns raw counters into windows of new events, one reading after another. A new weight starts a new count."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rollout.control.clock import Instant
from rollout.control.timing import window_length_s
from rollout.fleet import Backend
from rollout.judge import Window
from rollout.ledger.state import Release
from rollout.signals.counters import Reading, merge, windows
from rollout.signals.custom import OwnCounter
from rollout.sources.source import MetricSource

# Every reading is younger than this, whatever the source's clock says: its samples are at most three scrapes old.
OLDEST_READING_S = 200.0


@dataclass(frozen=True, slots=True)
class Measurement:
    """The result of one reading."""

    at_s: float  # Unix seconds, by the clock of the source
    window_s: float  # since the previous reading, seconds
    windows: Sequence[Window] | None  # of every counter; None: counting only begins with this reading
    jumped_s: float = 0.0  # by how much the source's clock was set since the previous reading, seconds; 0: it was not


class Measure:
    """Reads the counters, and remembers their newest values."""

    def __init__(self, source: MetricSource) -> None:
        self._source = source
        self._taken_s: float | None = None  # when `latest` was taken, on the steady clock; None: by another controller
        self._is_count_broken = False
        self._own: Sequence[OwnCounter] = ()
        self._ahead_s = 0.0  # how far the source's clock is ahead of the controller's, by the jumps seen
        self.latest: Reading | None = None

    @property
    def trouble(self) -> str | None:
        """See `MetricSource`."""
        return self._source.trouble

    def restart_counting(self) -> None:
        """Restart counting: the next reading only starts a count, because the time since the last one is not known."""
        self._is_count_broken, self._ahead_s = True, 0.0

    def read(self, release: Release | None, backends: tuple[Backend, ...], own: Sequence[OwnCounter] = ()) -> Reading:
        """Read the source, including the user's `own` counters. Raises SourceUnreachable."""
        mirrored = release.canary if release and release.mirror else None
        self._own = own
        return self._source.read(backends, mirrored=mirrored, own=own)

    def take(
        self, current: Reading, release: Release | None, *, stable: str, split: Instant, now: Instant
    ) -> Measurement | None:
        """The new events in a reading; None if the reading is not newer than the last one.

        Args:
            current: the reading.
            release: the present release.
            stable: the version that has all traffic where there is no release.
            split: when the present split came into force.
            now: the present moment.
        """
        previous, taken_s = self.latest, self._taken_s
        jumped_s = 0.0
        if previous is not None and not self._is_count_broken:
            jumped_s = self._jumped_s(current.at_s - previous.at_s, now)
            if current.at_s <= previous.at_s and not jumped_s:
                return None
        self.latest, self._taken_s = merge(previous, current), now.steady_s
        is_known = previous is not None and not self._is_count_broken and not jumped_s
        self._is_count_broken = False
        self._ahead_s += jumped_s
        if previous is None or not is_known or not _is_after(split, previous.at_s - self._ahead_s, taken_s):
            # A window that spans a change of weight is evidence for neither weight: count from here on.
            return Measurement(current.at_s, 0.0, None, jumped_s)
        window_s = current.at_s - previous.at_s
        if taken_s is None:
            # Counted while no controller ran: this is evidence, but the time that it took is unknown.
            window_s = min(window_s, window_length_s(release))
        new = windows(
            replace(previous, at_s=current.at_s - window_s),
            current,
            stable=release.stable if release else stable,
            canary=release.canary if release else "",
            has_pairs=release is not None and release.has_pairs,
            own=self._own,
        )
        return Measurement(current.at_s, window_s, new)

    def _jumped_s(self, went_on_s: float, now: Instant) -> float:
        """By how much the source's clock was set since the previous reading, seconds; 0: it was not.

        Args:
            went_on_s: from the previous reading to this one, by the source's clock.
        """
        if self._taken_s is None:  # how long the controller was away is not known
            return min(0.0, went_on_s)
        off_s = went_on_s - (now.steady_s - self._taken_s)
        is_late = went_on_s <= 0 and off_s < -OLDEST_READING_S
        return off_s if is_late or abs(off_s) > OLDEST_READING_S else 0.0


def _is_after(split: Instant, at_s: float, taken_s: float | None) -> bool:
    """Whether a reading of the time `at_s`, taken at `taken_s` on the steady clock, is from after the split."""
    return at_s >= split.wall_s or (taken_s is not None and taken_s - split.steady_s > OLDEST_READING_S)
