"""From raw counters to the windows of new events, one reading after another.

The controller's part between a metric source and `signals`, which does the differencing. Knows when counting may begin
under a new weight, and nothing of what the counts mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rollout.interfaces import Backend, MetricSource, Reading
from rollout.judge import Window
from rollout.signals import SignalSelection, merge, windows
from rollout.state import Release


@dataclass(frozen=True, slots=True)
class Seen:
    """What one reading brought."""

    at_s: float  # Unix seconds
    window_s: float  # since the reading before, seconds
    windows: Sequence[Window] | None  # None: counting only begins with this reading


class Readings:
    """All that is known of the counters."""

    def __init__(self, source: MetricSource) -> None:
        self._source = source
        self.latest: Reading | None = None

    def read(
        self, release: Release | None, backends: tuple[Backend, ...], *, stable: str, split_s: float
    ) -> Seen | None:
        """Read again; None when the source has nothing newer.

        Args:
            stable: the version that has all traffic where there is no release.
            split_s: since when the present split is in force, Unix seconds.

        Raises: SourceUnreachable.
        """
        mirrored = release.canary if release and release.mirror else None
        current = self._source.read(backends, mirrored=mirrored)
        previous = self.latest
        if previous is not None and current.at_s <= previous.at_s:
            return None
        self.latest = merge(previous, current)
        if previous is None or previous.at_s < split_s:
            # A window that straddles a weight change is evidence about neither weight: count from here on.
            return Seen(current.at_s, 0.0, None)
        new = windows(
            previous,
            current,
            stable=release.stable if release else stable,
            canary=release.canary if release else "",
            selection=release.spec.signals.selection() if release else SignalSelection(),
            is_mirrored=mirrored is not None,
        )
        return Seen(current.at_s, current.at_s - previous.at_s, new)
