"""Reads counters directly from the gateway and from each version's process: the source if no Prometheus runs."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Self

import httpx

from contract import loopback
from contract.http import METRICS_PATH
from contract.threads import begun_or_done
from rollout.errors import SourceUnreachable
from rollout.fleet import Backend
from rollout.signals.catalogue import catalogue
from rollout.signals.counters import Reading, Sample, Table, counters, own_counters, own_series, version_tables
from rollout.signals.custom import OwnCounter
from rollout.sources.page import LARGEST_PAGE, parsed
from rollout.sources.source import OBSERVER_AWAY, GatewayMetrics

_OBSERVER_TIMEOUT_S = 0.5  # a reading waits for the observer, and works without it


class ScrapeSource:
    """A MetricSource that needs no metric store.

    Args:
        gateway: the data plane's counters, and their page.
        observer: `host:port` of the observer, which counts for versions without counters; None: there is none.
            Readings work without it.
        timeout_s: longest wait for a page, seconds.
    """

    def __init__(self, gateway: GatewayMetrics, *, observer: str | None = None, timeout_s: float = 2.0) -> None:
        self._gateway, self._observer = gateway, observer
        self.trouble: str | None = None
        self.has_read = False
        self._http = loopback.client(timeout_s=timeout_s)
        self._gateway_http = loopback.client(timeout_s=timeout_s, unix_socket=gateway.socket)
        self._observer_http = loopback.client(timeout_s=min(timeout_s, _OBSERVER_TIMEOUT_S))

    def read(
        self, backends: tuple[Backend, ...], *, mirrored: str | None = None, own: Sequence[OwnCounter] = ()
    ) -> Reading:
        """See `MetricSource`. A version that does not answer is left out if an earlier reading had it."""
        gateway = self._gateway.address
        urls = {gateway: httpx.URL(self._gateway.url)}
        counting = {backend.address: backend for backend in backends if backend.has_metrics}
        of_versions = {
            address: httpx.URL(f"{backend.url}{backend.metrics_path}") for address, backend in counting.items()
        }
        urls |= of_versions
        clients = dict.fromkeys(urls, self._http) | {gateway: self._gateway_http}
        if self._observer is not None:
            urls[self._observer] = httpx.URL(f"http://{self._observer}{METRICS_PATH}")
            clients[self._observer] = self._observer_http
        at_s = time.time()
        with ThreadPoolExecutor(max_workers=len(urls)) as pool:
            read = partial(self._page, own=own_series(own))
            headers = {instance: counting[instance].headers if instance in counting else {} for instance in urls}
            coming = {
                instance: begun_or_done(pool, partial(read, url, clients[instance], headers[instance]))
                for instance, url in urls.items()
            }
            pages = {instance: page.result() for instance, page in coming.items()}
        samples = {instance: page for instance, page in pages.items() if isinstance(page, list)}
        missing = {instance: page for instance, page in pages.items() if not isinstance(page, list)}
        is_away = self._observer is not None and missing.pop(self._observer, None) is not None
        self.trouble = OBSERVER_AWAY if is_away else None
        if gateway in missing:
            raise SourceUnreachable(
                "the gateway gives no metrics",
                saw=f"{missing[gateway]!r} from {urls[gateway].copy_with(query=None)}",
                do="check whether the gateway runs: `kanaria status`",
            )
        # A version's counts before its first reading are not new events, so the first reading must have all versions.
        are_all = len(missing) == len(of_versions) == len(backends)  # a version without a page does not matter
        if missing and (are_all or not self.has_read):
            raise SourceUnreachable(
                "a version gives no metrics",
                saw="; ".join(f"{error!r} from {urls[instance]}" for instance, error in missing.items()),
                do="check whether it runs: `kanaria status`",
            )
        self.has_read = True
        tables = [*self._gateway.tables(samples.pop(gateway), mirrored=mirrored)]
        tables += [table for instance, page in samples.items() for table in _tables(instance, page, counting)]
        found = counters(tables)
        for backend in backends:
            instance = backend.address
            found |= own_counters(instance, backend.tag, samples.get(instance, ()), own)
        return Reading(at_s=at_s, counters=found)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        self._gateway_http.close()
        self._observer_http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _page(
        self, url: httpx.URL, http: loopback.Client, headers: Mapping[str, str], own: tuple[str, ...]
    ) -> list[Sample] | Exception:
        """The samples of one page that any signal needs, or the error."""
        series = (*self._gateway.series, *(name for name, _ in catalogue().of_versions))
        try:
            page = loopback.whole(http, url, most=LARGEST_PAGE, headers=headers).raise_for_status()
            text = page.content.decode(errors="replace")  # not by its `charset`, which could take minutes
            return parsed(text, series) + (parsed(text, own, is_foreign=True) if own else [])
        except (httpx.HTTPError, ValueError) as error:
            return error


def _tables(instance: str, page: list[Sample], counting: Mapping[str, Backend]) -> Iterator[Table]:
    """The counts of one process: only of its own version, except for the observer, which counts for all."""
    return version_tables(instance, page, own=counting[instance].tag if instance in counting else None)
