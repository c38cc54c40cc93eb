"""Adjusts the share of answers that the gateway copies to the observer, so that it follows the plan as traffic changes.

While this process is down the share stays as it is. A restarted gateway copies all answers until the share is set.
"""

import threading
import time
from collections import deque
from collections.abc import Callable

import httpx
import structlog
from prometheus_client.parser import text_string_to_metric_families

from rollout.observe import Observe
from rollout.routers.envoy import admin
from rollout.routers.envoy.metrics import REQUESTS, STATS_PATH
from rollout.routers.envoy.observation import OBSERVER
from rollout.routers.envoy.routes import WHOLE
from rollout.routers.envoy.sampling import show
from rollout.routers.envoy.settings import GatewaySettings

log = structlog.get_logger()

_EVERY_S = 1.0
_LOOKS = 10  # the busiest of them counts: a burst may return
_NOT_TAKEN = "envoy_cluster_upstream_rq_xx_total"  # the parser's name of Envoy's counter
_FILTER = rf"^(kanaria\.predict_total\..*|cluster\.{OBSERVER}\.upstream_rq_5xx)$"


class ShownShare(threading.Thread):
    """A thread that reads the traffic and sets the share until `stop`.

    Args:
        wanted: returns what the current plan asks for.
        end_left_behind: ends leftovers of earlier copies to the observer.
        missed: called with the number of answers that the observer did not take since the last look.
        clock: a monotonic clock, seconds.
    """

    def __init__(
        self,
        gateway: GatewaySettings,
        *,
        wanted: Callable[[], Observe],
        end_left_behind: Callable[[], None] = lambda: None,
        missed: Callable[[float], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name="shown-share", daemon=True)
        self._admin = admin.client(gateway, timeout_s=2.0)
        self._wanted, self._tell_missed, self._clock = wanted, missed, clock
        self._end_left_behind = end_left_behind
        self._stopped = threading.Event()
        self._rates: deque[float] = deque(maxlen=_LOOKS)  # requests a second
        self._before: tuple[float, float] | None = None  # number of requests, and time
        self._missed = 0.0
        self.share: float | None = None  # the share in force; None: unknown

    def run(self) -> None:
        while not self._stopped.wait(_EVERY_S):
            for do in (self._end_left_behind, self.look):
                try:
                    do()
                except Exception:
                    log.exception("shown_share_failed")

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        if self.is_alive():
            self.join()

    def look(self) -> None:
        """Count the requests, and change the share if it no longer fits."""
        try:
            requests, missed = self._counted()
            self._count_missed(missed)
            now_s = self._clock()
            before, self._before = self._before, (requests, now_s)
            if before is None or requests < before[0]:  # a restarted gateway has forgotten the share
                self._rates.clear()
                self.share = None
                return
            self._rates.append((requests - before[0]) / (now_s - before[1]))
            self._show(self._wanted().share_at(max(self._rates)))
        except httpx.HTTPError:  # the gateway is down, which other code reports
            self.share = self._before = None

    def _show(self, share: float) -> None:
        if share != self.share:
            show(self._admin, share)
            self.share = share

    def _counted(self) -> tuple[float, float]:
        """The totals of users' requests with whole answers, and of answers that the observer did not take."""
        page = self._admin.get(STATS_PATH, params={"filter": _FILTER}).raise_for_status().text
        samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
        requests = sum(each.value for each in samples if each.name == REQUESTS and each.labels.get("kind") == WHOLE)
        return requests, sum(each.value for each in samples if each.name == _NOT_TAKEN)

    def _count_missed(self, missed: float) -> None:
        """Report the increase. The counter restarts with the gateway, and after a split without an observer."""
        self._tell_missed(missed - self._missed if missed >= self._missed else missed)
        self._missed = missed
