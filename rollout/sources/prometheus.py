"""Counters read from Prometheus, as it last scraped them: the source where a Prometheus runs anyway.

The controller reads it once per window. It asks for raw counters, never for a `rate()`: a range that is longer than
the window would count a request several times. It concludes nothing.
"""

import re
from collections import defaultdict
from typing import Self

import httpx
from pydantic import BaseModel, ValidationError

from rollout.errors import SourceUnreachable
from rollout.interfaces import Backend, Reading
from rollout.signals import KEY_LABELS, Sample, counters


class PrometheusSource:
    """A MetricSource on Prometheus's HTTP API.

    Args:
        url: where Prometheus listens.
        gateway: `host:port` of Envoy's admin listener, as Prometheus scrapes it.
        max_age_s: samples older than this are no longer believed; three scrape intervals or more.
        timeout_s: longest wait for Prometheus, seconds.
    """

    def __init__(self, url: str, gateway: str, *, max_age_s: float = 10.0, timeout_s: float = 2.0) -> None:
        self._gateway = gateway
        self._max_age_s = max_age_s
        self._has_read = False
        self._http = httpx.Client(base_url=url, timeout=timeout_s, trust_env=False)  # a neighbour: no proxy

    def read(self, backends: tuple[Backend, ...], *, mirrored: str | None = None) -> Reading:
        """See `MetricSource`. A version that Prometheus cannot scrape is left out, once it was in a reading."""
        wanted = [f"{backend.host}:{backend.port}" for backend in backends]
        scraped_s, samples = self._latest((self._gateway, *wanted))
        missing = sorted({self._gateway, *wanted} - set(scraped_s))
        if missing and (self._gateway in missing or len(missing) == len(wanted) or not self._has_read):
            raise SourceUnreachable(
                "Prometheus has no fresh samples of what must be judged",
                saw=f"no successful scrape of {', '.join(missing)} in the last {self._max_age_s:g} s",
                do=f"see what it says of these targets: {self._http.base_url}targets",
            )
        self._has_read = True
        fresh = {instance: samples[instance] for instance in scraped_s}
        # Prometheus scrapes one page after another. The newest of them must not vouch for one from before a change of
        # the weight, so a reading is as old as its oldest page.
        return Reading(at_s=min(scraped_s.values()), counters=counters(fresh, mirrored=mirrored))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _latest(self, instances: tuple[str, ...]) -> tuple[dict[str, float], dict[str, list[Sample]]]:
        """When each instance was last scraped (only if lately and with success), and its samples."""
        # One query, so that all samples are of one moment. A sample in an answer carries the time of the question;
        # `timestamp()` tells when it was scraped, and as it drops the name, no metric can be mistaken for it.
        among = f"instance=~`{'|'.join(re.escape(instance) for instance in instances)}`"
        names = "|".join(KEY_LABELS)
        answer = self._ask(f"{{__name__=~`{names}`,{among}}} or (timestamp(up{{{among}}}) and up{{{among}}} == 1)")
        scraped_s: dict[str, float] = {}
        samples: defaultdict[str, list[Sample]] = defaultdict(list)
        for series in answer.data.result:
            asked_s, value = series.value
            instance, name = series.metric["instance"], series.metric.get("__name__")
            if name is not None:
                samples[instance].append(Sample(name, series.metric, value))
            elif asked_s - value <= self._max_age_s:
                scraped_s[instance] = value
        return scraped_s, samples

    def _ask(self, query: str) -> "_Answer":
        try:
            response = self._http.post("/api/v1/query", data={"query": query})
            answer = _Answer.model_validate_json(response.content)
        except (httpx.HTTPError, ValidationError) as error:
            raise SourceUnreachable(
                "Prometheus gives no answer",
                saw=f"{error!r} from {self._http.base_url}",
                do="see whether it runs: `kanaria status`",
            ) from error
        # A warning means that the answer may lack something.
        if answer.status != "success" or answer.warnings:
            raise SourceUnreachable(
                "Prometheus did not answer in full",
                saw=f"HTTP {response.status_code}, {'; '.join((answer.error, *answer.warnings))}",
                do=f"see its log; the query was {query}",
            )
        return answer


class _Series(BaseModel):
    metric: dict[str, str]
    value: tuple[float, float]  # time of the question, Unix seconds; value


class _Result(BaseModel):
    result: tuple[_Series, ...] = ()


class _Answer(BaseModel):
    """An answer of `/api/v1/query`. Fields that are not read here may change."""

    status: str
    data: _Result = _Result()
    error: str = ""
    warnings: tuple[str, ...] = ()
