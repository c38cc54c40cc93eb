"""A client of Prometheus's HTTP API: queries, label values, the scrape interval."""

import math
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import httpx
import yaml

from contract import loopback
from contract.login import Login
from contract.prometheus_refusals import NAME_A_TENANT, asks_for_tenant, has_unknown_authority
from monitoring.errors import PrometheusUnreachable

_TIMEOUT_S = 30.0

Samples = list[float]


class QueryRefused(Exception):
    """Prometheus cannot run this query; the message is Prometheus's own."""


@dataclass(frozen=True, slots=True)
class Span:
    """A period, Unix seconds."""

    start_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        return self.end_s - self.start_s


class PrometheusApi:
    """Prometheus's HTTP API at `url`. Every method raises PrometheusUnreachable if nothing answers."""

    def __init__(
        self,
        url: str,
        *,
        login: Login | None = None,
        trust: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        at = f"{self.url}/api/v1"
        self._http = loopback.client(at, timeout_s=_TIMEOUT_S, login=login, trust=trust, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def query(self, expr: str, at_s: float) -> dict[str, Samples]:
        """Numbers by series at one moment; NaN is left out. Raises QueryRefused."""
        data = self._ask("/query", query=expr, time=at_s)
        if data["resultType"] == "scalar":
            return _numbers([{"metric": {}, "values": [data["result"]]}])
        return _numbers([{**series, "values": [series["value"]]} for series in data["result"]])

    def query_range(self, expr: str, span: Span, step_s: float) -> dict[str, Samples]:
        """Numbers by series over time; NaN is left out. Raises QueryRefused."""
        answer = self._ask("/query_range", query=expr, start=span.start_s, end=span.end_s, step=step_s)
        return _numbers(answer["result"])

    def label_values(self, label: str, span: Span, *, selector: str | None = None) -> list[str]:
        """Every value of `label` among the series of `selector` in `span`. Raises QueryRefused."""
        among: dict[str, Any] = {"match[]": selector} if selector else {}
        values: list[str] = self._ask(f"/label/{label}/values", start=span.start_s, end=span.end_s, **among)
        return values

    def scrape_interval(self) -> str | None:
        """The default scrape interval, as Prometheus writes durations; None: the store does not scrape."""
        answer = self._ask("/status/config", may_lack=True)
        return None if answer is None else str(yaml.safe_load(answer["yaml"])["global"]["scrape_interval"])

    def _ask(self, path: str, *, may_lack: bool = False, **parameters: Any) -> Any:
        """The answer's data; None if the server `may_lack` this path and does."""
        try:
            answer = self._http.get(path, params=parameters)
            if asks_for_tenant(answer.status_code, answer.text):
                raise PrometheusUnreachable(
                    "Prometheus needs the name of a tenant",
                    saw=f"HTTP {answer.status_code} from {self.url}: {answer.text:.80}",
                    do=NAME_A_TENANT,
                )
            if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
                raise PrometheusUnreachable(
                    "Prometheus requires a login",
                    saw=f"HTTP {answer.status_code} from {self.url}",
                    do="give a file with `user:password` or a bearer token: --prometheus-login FILE",
                )
            if may_lack and answer.status_code == httpx.codes.NOT_FOUND:
                return None
            body = answer.json()
            if body["status"] == "success":
                return body["data"]
            refusal: str = body["error"]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise PrometheusUnreachable(
                "Prometheus does not answer",
                saw=f"{error!r} from {self.url}",
                do="give a file with the authority of its certificate: --prometheus-ca FILE"
                if has_unknown_authority(str(error))
                else "start the stack with KANARIA_METRICS=prometheus, or name another Prometheus: --prometheus URL",
            ) from error
        raise QueryRefused(refusal)


def _numbers(result: list[dict[str, Any]]) -> dict[str, Samples]:
    found = {}
    for series in result:
        values = [float(value) for _, value in series["values"]]
        if numbers := [value for value in values if not math.isnan(value)]:
            found[str(series["metric"])] = numbers
    return found
