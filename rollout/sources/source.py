"""The interfaces to sources of raw counters. One contract test runs against every implementation."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from rollout.fleet import Backend
from rollout.signals.counters import Reading, Sample, Table
from rollout.signals.custom import OwnCounter

OBSERVER_AWAY = "the observer gives no counts: answers are not compared"  # a source's trouble


class MetricSource(Protocol):
    """A source of raw counters. Never rates, never averages."""

    @property
    def trouble(self) -> str | None:
        """What is wrong although readings arrive, in words; None: nothing."""

    def read(
        self, backends: tuple[Backend, ...], *, mirrored: str | None = None, own: Sequence[OwnCounter] = ()
    ) -> Reading:
        """Read every counter of `backends`.

        Args:
            backends: the versions to read.
            mirrored: the tag whose errors and latency come from mirrored requests.
            own: the user's own counters, which are also read.

        Raises: SourceUnreachable if there is no trustworthy reading.
        """


class Observer(Protocol):
    """Compares the answers of versions that do not count themselves."""

    def differences(self, *, stable: str, canary: str) -> str:
        """The fields in which the canary's answers differ from stable's, in words; empty: in none, or unknown."""


class GatewayMetrics(Protocol):
    """What a source needs to know about the data plane's metrics."""

    address: str  # `host:port`, the label of its samples
    url: str  # of its metrics page, in Prometheus's format
    socket: Path | None  # the Unix socket of that page; None: the page is at its URL
    series: tuple[str, ...]  # the names of the needed series

    def tables(self, samples: Iterable[Sample], *, mirrored: str | None = None) -> Iterable[Table]:
        """The data plane's counts of each version, under the names of `signals.counting`.

        Args:
            mirrored: the tag whose copied requests count. Its users' requests are also counted: it gets none while it
                is mirrored, and those of an earlier attempt must not look new when it gets traffic again.
        """
