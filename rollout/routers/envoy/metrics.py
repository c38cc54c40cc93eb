"""Envoy's counts for the signals: the names of its metrics, where they are read, and which version each is about.

The names follow from the statistics that `bootstrap` sets up and the clusters that `resources` builds. A user's request
counts once, as evidence about the version that the split chose, whichever version answered:

* the chosen version answered, at the first or a later try: its answer counts;
* another version answered after the chosen one had failed a try: a failure, whatever the user got. If it was not a
  failure for the user, it has a separate code, so that the number of such requests can be shown;
* another version answered because the chosen one was known to be down: evidence about neither. How long a canary is
  down is counted separately (`control.release_run`).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote, unquote

from contract.http import PREDICT_PATH
from rollout.routers.envoy import admin
from rollout.routers.envoy.resources import SHADOW
from rollout.routers.envoy.routes import STREAMED
from rollout.routers.envoy.settings import GatewaySettings
from rollout.signals.counters import Sample, Table, add
from rollout.signals.counting import GATEWAY_DURATION_MS, GATEWAY_REQUESTS, SAVED
from rollout.signals.segments import OTHER

REQUESTS = "envoy_kanaria_predict_total"
SEGMENT_REQUESTS = "envoy_kanaria_segment_total"  # the same by segment, if a plan tells segments apart
DURATION = "envoy_kanaria_predict_duration_ms"
SHADOW_REQUESTS = "envoy_cluster_upstream_rq"
SHADOW_CLASSES = "envoy_cluster_upstream_rq_xx"  # the same by class; a Prometheus set up earlier keeps only these
SHADOW_DURATION = "envoy_cluster_upstream_rq_time"

STATS_PATH = "/stats/prometheus"
# Selects the lines about versions from about 1,000 on Envoy's page. It matches Envoy's own names, not Prometheus's.
PAGE_FILTER = r"^kanaria\.|^cluster\.shadow[^.]*\.upstream_rq_(\d+|time)$"

FAILED = "5xx"  # the code of a request that the chosen version did not answer, or not completely
_HUNG_UP = "0"  # Envoy's code for a request whose client left before the answer


@dataclass(frozen=True, slots=True)
class _Read:
    """One series of Envoy's, and the signals' name for it."""

    by: str  # the label that distinguishes samples of one version
    series: str
    label: str
    is_of_copies: bool = False


_SERIES = {
    REQUESTS: _Read("code", GATEWAY_REQUESTS, "code"),
    SEGMENT_REQUESTS: _Read("code", GATEWAY_REQUESTS, "segment,code"),
    f"{DURATION}_bucket": _Read("le", f"{GATEWAY_DURATION_MS}_bucket", "le"),
    SHADOW_REQUESTS: _Read("envoy_response_code", GATEWAY_REQUESTS, "code", is_of_copies=True),
    SHADOW_CLASSES: _Read("envoy_response_code_class", GATEWAY_REQUESTS, "code", is_of_copies=True),
    f"{SHADOW_DURATION}_bucket": _Read("le", f"{GATEWAY_DURATION_MS}_bucket", "le", is_of_copies=True),
}


_BY_ROUTE = _Read("code", GATEWAY_REQUESTS, "route,code")


class EnvoyMetrics:
    """The GatewayMetrics of Envoy.

    Args:
        address: `host:port` of its metrics page, as a metric store reads it.
        socket: a second place of the page; None: none. Another program may use the port while the gateway is down.
    """

    series = tuple(_SERIES)

    def __init__(self, address: str, *, socket: Path | None = None) -> None:
        self.address, self.socket = address, socket
        self.url = f"http://{address}{STATS_PATH}?filter={quote(PAGE_FILTER)}"

    @classmethod
    def of(cls, settings: GatewaySettings) -> Self:
        """The metrics of a gateway that was started with `settings`."""
        return cls(settings.stats_address, socket=admin.socket_of(settings))

    def tables(self, samples: Iterable[Sample], *, mirrored: str | None = None) -> Iterator[Table]:
        """See `GatewayMetrics`."""
        counts: defaultdict[tuple[str, str, _Read], dict[str, int]] = defaultdict(dict)
        for sample in samples:
            read = _SERIES.get(sample.name)
            event = _event(sample, read) if read else None
            if read is None or event is None or (read.is_of_copies and event.version != mirrored):
                continue
            if mirrored is not None and sample.labels.get("kind") == STREAMED:
                continue  # these requests have no copies to compare with
            instance = self.address + event.place
            value = event.value
            if sample.name == SEGMENT_REQUESTS:  # Prometheus drops labels without a value
                value = f"{sample.labels.get('segment') or OTHER},{value}"
            add(counts[instance, event.version, read], value, sample.value)
            route = sample.labels.get("route")
            if sample.name == REQUESTS and route and route != PREDICT_PATH:  # the contract has no other
                add(counts[instance, event.version, _BY_ROUTE], f"{route},{event.value}", sample.value)
        for (instance, version, read), table in counts.items():
            if read is _SERIES[SHADOW_CLASSES] and (instance, version, _SERIES[SHADOW_REQUESTS]) in counts:
                continue  # these requests are already counted
            yield Table(instance, version, read.series, read.label, table)


@dataclass(frozen=True, slots=True)
class _Event:
    """What a sample counts."""

    version: str  # the version about which it is evidence
    value: str  # the value of the label `by`
    place: str = ""  # appended to the address in the instance's name


def _event(sample: Sample, read: _Read) -> _Event | None:
    """The event that a sample counts; None if it is not about a version."""
    value = sample.labels.get(read.by)
    if value is None or value == _HUNG_UP:
        return None
    if read.is_of_copies:
        cluster = unquote(sample.labels.get("envoy_cluster_name", ""))
        of_class = f"{value}xx" if read is _SERIES[SHADOW_CLASSES] else value
        return _Event(cluster.removeprefix(SHADOW), of_class, "/shadow") if cluster.startswith(SHADOW) else None
    answered = sample.labels.get("version")
    chosen = sample.labels.get("routed", answered)
    place = "/streams" if sample.labels.get("kind") == STREAMED else ""
    if answered and answered == chosen:
        return _Event(answered, value, place)
    if sample.name not in (REQUESTS, SEGMENT_REQUESTS) or not chosen:
        return None  # the time of a fallback says nothing about the version that it replaced
    if not answered:
        return _Event(chosen, value, place) if value.startswith("5") else None  # above its limit, or no version is up
    has_failed_a_try = sample.labels.get("attempts", "1") != "1"  # gateways of earlier versions lack this label
    return _Event(chosen, FAILED if value.startswith("5") else SAVED, place) if has_failed_a_try else None
