"""The judge reads from a real Envoy what its clients saw."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kanaria.stack.ports import free_port
from rollout.judge.types import Pair
from rollout.routers.envoy.metrics import EnvoyMetrics
from rollout.routers.envoy.settings import GatewaySettings
from rollout.routers.router import Split
from rollout.signals.options import LATENCY_STEPS_MS
from rollout.sources.scrape import ScrapeSource
from tests.support.gateway_rig import Gateway, StandIn, eventually

STABLE, CANARY = "digits:v1", "digits:v2.0-rc_1"
REQUESTS = 60


@pytest.fixture
def gateway(tmp_path: Path, require_program: Callable[[str], str]) -> Iterator[Gateway]:
    require_program("envoy")
    with Gateway(GatewaySettings(directory=tmp_path, port=free_port(), stats_port=free_port())) as running:
        yield running


@pytest.fixture
def source(gateway: Gateway) -> Iterator[ScrapeSource]:
    with ScrapeSource(EnvoyMetrics.of(gateway.settings)) as running:
        yield running


def test_errors_and_latency_of_each_version_are_those_that_clients_saw(gateway: Gateway, source: ScrapeSource) -> None:
    """Half of the traffic goes to a canary that fails slowly."""
    with StandIn(STABLE) as stable, StandIn(CANARY) as canary:
        canary.behave(status=500, delay_s=0.06)
        gateway.router.apply(Split(stable=stable.version, canary=canary.version, canary_percent=50))
        eventually(lambda: gateway.router.observed() is not None)
        failed = Counter(gateway.predict().status_code for _ in range(REQUESTS))[500]
        instance = f"{gateway.settings.stats_address}"
        expected = {
            (instance, STABLE, "errors"): Pair(0, REQUESTS - failed),
            (instance, CANARY, "errors"): Pair(failed, failed),
            (instance, STABLE, "latency:5000"): Pair(0, REQUESTS - failed),
            (instance, CANARY, "latency:50"): Pair(failed, failed),
        }
        steps = len(LATENCY_STEPS_MS)
        # Envoy merges histograms only twice a second.
        eventually(lambda: expected.items() <= dict(source.read(()).counters).items())
        total = source.read(()).counters[instance, CANARY, "typical_latency:sum"]
        assert total.total == steps * failed
        assert 60 <= LATENCY_STEPS_MS[round(total.bad / failed)] < 1000  # ms, on average


def test_copied_requests_are_counted_for_the_mirrored_version(gateway: Gateway, source: ScrapeSource) -> None:
    """Clients see only stable's answers; the failures of the copies are still counted."""
    with StandIn(STABLE) as stable, StandIn(CANARY) as canary:
        canary.behave(status=500)
        gateway.router.apply(Split(stable=stable.version, canary=canary.version, mirror=True))
        eventually(lambda: gateway.router.observed() is not None)
        assert {gateway.predict().status_code for _ in range(REQUESTS)} == {200}
        shadow = f"{gateway.settings.stats_address}/shadow"
        expected = {
            (shadow, CANARY, "errors"): Pair(REQUESTS, REQUESTS),
            (shadow, CANARY, "latency:5000"): Pair(0, REQUESTS),
        }
        eventually(lambda: expected.items() <= dict(source.read((), mirrored=CANARY).counters).items())
