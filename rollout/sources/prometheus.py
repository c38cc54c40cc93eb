"""Reads the last scraped counters from Prometheus: the source if a Prometheus runs anyway.

It asks for raw counters, never for a `rate()`: a range longer than the window would count a request several times.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Self

import httpx
from pydantic import BaseModel, ValidationError

from contract import loopback
from contract.login import Login
from rollout.errors import SourceUnreachable
from rollout.fleet import Backend
from rollout.signals.catalogue import catalogue
from rollout.signals.counters import Reading, Sample, counters, own_counters, own_series, version_tables
from rollout.signals.custom import OwnCounter
from rollout.sources.login import check_login
from rollout.sources.source import OBSERVER_AWAY, GatewayMetrics


class PrometheusSource:
    """A MetricSource on Prometheus's HTTP API.

    Args:
        url: where Prometheus listens.
        gateway: the data plane's counters, and its target in Prometheus.
        observer: the target that counts for versions without counters; None: there is none. Readings work without it.
        max_age_s: older samples are not used, seconds; three scrape intervals or more.
        timeout_s: longest wait for Prometheus, seconds.
        login: used if Prometheus requires one.
    """

    def __init__(
        self,
        url: str,
        gateway: GatewayMetrics,
        *,
        observer: str | None = None,
        max_age_s: float = 10.0,
        timeout_s: float = 2.0,
        login: Login | None = None,
    ) -> None:
        self._gateway, self._observers = gateway, (observer,) if observer else ()
        self.trouble: str | None = None
        self._max_age_s = max_age_s
        self._newest_s = 0.0  # time of the newest reading, Unix seconds
        self.has_read = False
        # Prometheus allocates a megabyte for each answer that it compresses, which it then has to collect.
        self._http = loopback.client(url, timeout_s=timeout_s, headers={"accept-encoding": "identity"}, login=login)

    def read(
        self, backends: tuple[Backend, ...], *, mirrored: str | None = None, own: Sequence[OwnCounter] = ()
    ) -> Reading:
        """See `MetricSource`. A version that Prometheus cannot scrape is left out if an earlier reading had it."""
        wanted = {backend.address: backend.tag for backend in backends if backend.has_metrics}
        gateway = self._gateway.address
        scraped_s, samples = self._latest((gateway, *wanted, *self._observers), _scraped_as(own))
        self.trouble = OBSERVER_AWAY if set(self._observers) - scraped_s.keys() else None
        missing = sorted({gateway, *wanted} - set(scraped_s))
        are_all = len(missing) == len(wanted) == len(backends)  # a version without a page does not matter
        if missing and (gateway in missing or are_all or not self.has_read):
            raise SourceUnreachable(
                "Prometheus has no fresh samples of the versions or of the gateway",
                saw=f"no successful scrape of {', '.join(missing)} in the last {self._max_age_s:g} s",
                do=f"check why these targets fail: {self._http.base_url}targets",
            )
        # Prometheus scrapes one page after another. A reading is as old as its oldest page, so a page from before a
        # change of the weight is never mistaken for one from after it.
        at_s = min(scraped_s.values())
        if at_s < self._newest_s - self._max_age_s:
            # Prometheus stores no samples older than those it has, and answers with those scraped earlier at this clock
            # time. Such old counters would look like restarted processes.
            raise SourceUnreachable(
                "Prometheus has only samples from before the clock was set back",
                saw=f"its newest scrape now is {self._newest_s - at_s:.0f} s older than an earlier one",
                do="wait until the clock has caught up, or restart Prometheus with an empty data folder",
            )
        self._newest_s = max(self._newest_s, at_s)
        self.has_read = True
        tables = [*self._gateway.tables(samples[gateway], mirrored=mirrored)]
        tables += [
            table
            for instance in (*wanted, *self._observers)
            if instance in scraped_s
            for table in version_tables(instance, samples[instance], own=wanted.get(instance))
        ]
        read = counters(tables)
        for instance in wanted.keys() & scraped_s.keys():
            read |= own_counters(instance, wanted[instance], samples[instance], own)
        return Reading(at_s=at_s, counters=read)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _latest(
        self, instances: tuple[str, ...], own: Mapping[str, str]
    ) -> tuple[dict[str, float], dict[str, list[Sample]]]:
        """When each instance was last scraped (only if recently and successfully), and its samples.

        Args:
            own: the names of further series, by their names in Prometheus.
        """
        # One query, so that all samples are from one moment. A sample in an answer has the time of the query.
        # `timestamp()` gives the time of the scrape and drops the name, so it cannot be mistaken for a metric.
        among = f"instance=~`{'|'.join(re.escape(instance) for instance in instances)}`"
        names = "|".join((*self._gateway.series, *(name for name, _ in catalogue().of_versions), *own))
        answer = self._ask(f"{{__name__=~`{names}`,{among}}} or (timestamp(up{{{among}}}) and up{{{among}}} == 1)")
        scraped_s: dict[str, float] = {}
        samples: defaultdict[str, list[Sample]] = defaultdict(list)
        for series in answer.data.result:
            asked_s, value = series.value
            instance, name = series.metric["instance"], series.metric.get("__name__")
            if name is not None:
                samples[instance].append(Sample(own.get(name, name), series.metric, value))
            elif asked_s - value <= self._max_age_s:
                scraped_s[instance] = value
        return scraped_s, samples

    def _ask(self, query: str) -> "_Answer":
        try:
            response = self._http.post("/api/v1/query", data={"query": query})
            check_login(response)
            answer = _Answer.model_validate_json(response.content)
        except (httpx.HTTPError, ValidationError) as error:
            raise SourceUnreachable(
                "Prometheus does not answer",
                saw=f"{error!r} from {self._http.base_url}",
                do="check whether it runs: `kanaria status`",
            ) from error
        # A warning means that the answer may be incomplete.
        if answer.status != "success" or answer.warnings:
            raise SourceUnreachable(
                "Prometheus's answer is incomplete",
                saw=f"HTTP {response.status_code}, {'; '.join((answer.error, *answer.warnings))}",
                do=f"read its log; the query was {query}",
            )
        return answer


def _scraped_as(own: Sequence[OwnCounter]) -> dict[str, str]:
    """The names of the series of these counters, by the names that they may have in Prometheus.

    vLLM's names have a colon. prometheus_client writes it as `_` if asked for OpenMetrics, as by Prometheus before 3.0.
    """
    names = own_series(own)
    return {name.replace(":", "_"): name for name in names} | {name: name for name in names}


class _Series(BaseModel):
    metric: dict[str, str]
    value: tuple[float, float]  # time of the query, Unix seconds; value


class _Result(BaseModel):
    result: tuple[_Series, ...] = ()


class _Answer(BaseModel):
    """An answer of `/api/v1/query`. Fields that are not read here may change."""

    status: str
    data: _Result = _Result()
    error: str = ""
    warnings: tuple[str, ...] = ()
