"""Where raw counters come from. One contract test runs against every implementation."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from rollout.fleet import Backend
from rollout.signals.counters import Reading, Sample, Table
from rollout.signals.custom import OwnCounter

OBSERVER_AWAY = "the observer gives no counts: answers are not compared"  # a source's trouble


class MetricSource(Protocol):
    """Where raw counters come from. Never rates, never averages."""

    @property
    def trouble(self) -> str | None:
        """What is not as it should be although readings come, in words; None: nothing."""

    def read(
        self, backends: tuple[Backend, ...], *, mirrored: str | None = None, own: Sequence[OwnCounter] = ()
    ) -> Reading:
        """Read every counter of `backends`.

        Args:
            backends: the versions to read.
            mirrored: the tag whose errors and latency are those of mirrored requests.
            own: counters of the user's own that are wanted, too.

        Raises: SourceUnreachable when no trustworthy reading can be had.
        """


class Observer(Protocol):
    """Compares the answers of versions that do not count them themselves."""

    def differences(self, *, stable: str, canary: str) -> str:
        """In which fields the canary's answers differ from stable's, in words; empty: in none, or it is not known."""


class GatewayMetrics(Protocol):
    """What a source has to know about the data plane whose metrics it reads."""

    address: str  # `host:port`, the label of its samples
    url: str  # of the page with its metrics, in Prometheus's format
    socket: Path | None  # the Unix socket at which that page is; None: where its URL says
    series: tuple[str, ...]  # the names of the series that are needed

    def tables(self, samples: Iterable[Sample], *, mirrored: str | None = None) -> Iterable[Table]:
        """The data plane's counts of each version, under the names of `signals.counting`.

        Args:
            mirrored: the tag whose copied requests count. Its users' requests are counted as well: it gets none while
                it is mirrored, and those of an earlier attempt must not look new when it gets traffic again.
        """
