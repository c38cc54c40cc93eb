"""Keeps the share of the requests whose answers the observer is shown at what the plan asks for, as traffic changes.

While this process is away the share stays as it is. A gateway that was started again shows all answers until it is set.
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
_LOOKS = 10  # the busiest of them counts: a burst that ended may come again
_NOT_TAKEN = "envoy_cluster_upstream_rq_xx_total"  # as the parser names Envoy's counter
_FILTER = rf"^(kanaria\.predict_total\..*|cluster\.{OBSERVER}\.upstream_rq_5xx)$"


class ShownShare(threading.Thread):
    """Looks at the traffic until `stop`.

    Args:
        wanted: what the plan asks for now.
        end_left_behind: ends what nobody needs any more of what the observer is shown.
        missed: told how many answers the observer did not take since the last look.
        clock: seconds on a clock that is never set.
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
        self._before: tuple[float, float] | None = None  # requests, and when
        self._missed = 0.0
        self.share: float | None = None  # in force; None: not known

    def run(self) -> None:
        while not self._stopped.wait(_EVERY_S):
            for do in (self._end_left_behind, self.look):
                try:
                    do()
                except Exception:
                    log.exception("shown_share_failed")

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        if self.is_alive():
            self.join()

    def look(self) -> None:
        """See how many requests came, and change the share where it does not fit any more."""
        try:
            requests, missed = self._counted()
            self._count_missed(missed)
            now_s = self._clock()
            before, self._before = self._before, (requests, now_s)
            if before is None or requests < before[0]:  # a gateway that was started again has forgotten the share
                self._rates.clear()
                self.share = None
                return
            self._rates.append((requests - before[0]) / (now_s - before[1]))
            self._show(self._wanted().share_at(max(self._rates)))
        except httpx.HTTPError:  # it is away; what shows that is elsewhere
            self.share = self._before = None

    def _show(self, share: float) -> None:
        if share != self.share:
            show(self._admin, share)
            self.share = share

    def _counted(self) -> tuple[float, float]:
        """Users' requests whose answers come as a whole, and answers that the observer did not take, so far."""
        page = self._admin.get(STATS_PATH, params={"filter": _FILTER}).raise_for_status().text
        samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
        requests = sum(each.value for each in samples if each.name == REQUESTS and each.labels.get("kind") == WHOLE)
        return requests, sum(each.value for each in samples if each.name == _NOT_TAKEN)

    def _count_missed(self, missed: float) -> None:
        """Its counter begins anew with the gateway, and whenever a split needs no observer for a while."""
        self._tell_missed(missed - self._missed if missed >= self._missed else missed)
        self._missed = missed
