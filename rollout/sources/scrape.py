"""Counters read straight from the gateway and from each version's process: the source where no Prometheus runs.

The controller reads it once per window. It keeps no history and concludes nothing.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import httpx
from prometheus_client.parser import text_string_to_metric_families

from rollout.errors import SourceUnreachable
from rollout.interfaces import Backend, Reading
from rollout.signals import KEY_LABELS, Sample, counters

# Of some 1,500 lines of Envoy's page, those about versions. It matches Envoy's own names, not Prometheus's.
GATEWAY_FILTER = r"^kanaria\.|^cluster\.shadow[^.]*\.upstream_rq_(\dxx|time)$"


class ScrapeSource:
    """A MetricSource that needs no metric store.

    Args:
        gateway: `host:port` of Envoy's admin listener.
        timeout_s: longest wait for a page to go on, seconds.
    """

    def __init__(self, gateway: str, *, timeout_s: float = 2.0) -> None:
        self._gateway = gateway
        self._has_read = False
        self._http = httpx.Client(timeout=timeout_s, trust_env=False)  # neighbours: no proxy

    def read(self, backends: tuple[Backend, ...], *, mirrored: str | None = None) -> Reading:
        """See `MetricSource`. A version that does not answer is left out of the reading, once it was in one."""
        urls = {self._gateway: httpx.URL(f"http://{self._gateway}/stats/prometheus", params={"filter": GATEWAY_FILTER})}
        urls |= {f"{backend.host}:{backend.port}": httpx.URL(f"{backend.url}/metrics") for backend in backends}
        at_s = time.time()
        with ThreadPoolExecutor(max_workers=len(urls)) as pool:
            pages = dict(zip(urls, pool.map(self._page, urls.values()), strict=True))
        samples = {instance: page for instance, page in pages.items() if isinstance(page, list)}
        missing = {instance: page for instance, page in pages.items() if not isinstance(page, list)}
        if self._gateway in missing:
            raise SourceUnreachable(
                "the gateway gives no metrics",
                saw=f"{missing[self._gateway]!r} from {urls[self._gateway].copy_with(query=None)}",
                do="see whether the gateway runs: `kanaria status`",
            )
        # What a version counted before its first reading is no news, so the first one must have them all.
        if missing and (len(missing) == len(backends) or not self._has_read):
            raise SourceUnreachable(
                "a version gives no metrics",
                saw="; ".join(f"{error!r} from {urls[instance]}" for instance, error in missing.items()),
                do="see whether it runs: `kanaria status`",
            )
        self._has_read = True
        return Reading(at_s=at_s, counters=counters(samples, mirrored=mirrored))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _page(self, url: httpx.URL) -> list[Sample] | Exception:
        """The samples of one page that any signal needs, or why there are none."""
        try:
            lines = self._http.get(url).raise_for_status().text.splitlines()
            wanted = "\n".join(line for line in lines if line.startswith(tuple(KEY_LABELS)))
            families = text_string_to_metric_families(wanted)
            return [Sample(s.name, s.labels, s.value) for family in families for s in family.samples]
        except (httpx.HTTPError, ValueError) as error:
            return error
