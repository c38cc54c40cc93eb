"""The metrics of the judge server, for `/metrics`."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from contract import metrics as m
from rollout.errors import LedgerError
from rollout.judge import Verdict
from rollout.server.releases import Known

log = structlog.get_logger()

REFUSALS = {"question": (401, 404, 413, 422, 500, 503), "route": (404, 405), "page": (503,)}


class _Seen(Protocol):
    """What the metrics need from `Releases`."""

    def all(self) -> Sequence[Known]: ...

    def quarantined(self) -> int: ...


class JudgeMetrics:
    """The judge's own metrics; the series of all verdicts and refusals exist at 0 from the start."""

    def __init__(self, releases: _Seen) -> None:
        self.registry = CollectorRegistry()
        self.answers = _made(Counter, m.JUDGE_ANSWERS, self.registry)
        self.refused = _made(Counter, m.JUDGE_REFUSED, self.registry)
        self.asked = _made(Gauge, m.JUDGE_ASKED, self.registry)
        self.took = Histogram(
            m.JUDGE_SECONDS.name, m.JUDGE_SECONDS.meaning, buckets=m.JUDGE_SECONDS.bounds, registry=self.registry
        )
        self.asked.set_to_current_time()
        for verdict in Verdict:
            self.answers.labels(verdict.value)
        for reason, statuses in REFUSALS.items():
            for status in statuses:
                self.refused.labels(str(status), reason)
        self.registry.register(_OfReleases(releases))
        ProcessCollector(registry=self.registry)


class _OfReleases(Collector):
    """Collects the state of the releases when the page is read."""

    def __init__(self, releases: _Seen) -> None:
        self._releases = releases

    def describe(self) -> Iterator[GaugeMetricFamily]:
        yield from (_family(metric) for metric in (m.JUDGE_RELEASES, m.JUDGE_QUARANTINED, m.JUDGE_VERDICT))

    def collect(self) -> Iterator[GaugeMetricFamily]:
        known = self._releases.all()
        yield _family(m.JUDGE_RELEASES, len({each.attempt.key for each in known}))
        verdicts = _family(m.JUDGE_VERDICT)
        said = {
            (f"{each.attempt.namespace}/{each.attempt.rollout}", each.attempt.canary): each.answer.verdict.value
            for each in reversed(known)  # the newest last, so that it counts
            if each.answer
        }
        for names, verdict in said.items():
            verdicts.add_metric([*names, verdict], 1)
        yield verdicts
        try:
            yield _family(m.JUDGE_QUARANTINED, self._releases.quarantined())
        except LedgerError as error:  # the other metrics are still shown
            log.critical("failures_not_read", error=error.what, saw=error.saw, do=error.do)


def _family(metric: m.Metric, value: float | None = None) -> GaugeMetricFamily:
    return GaugeMetricFamily(
        metric.name, metric.meaning, value=value, labels=None if value is not None else metric.labels
    )


def _made(kind: Callable[..., Any], metric: m.Metric, registry: CollectorRegistry) -> Any:
    return kind(metric.name.removesuffix("_total"), metric.meaning, metric.labels, registry=registry)
