"""Reading from another party's server is given up if the server sends a byte only now and then."""

from collections.abc import Callable

import pytest

from rollout.errors import SourceUnreachable
from rollout.fleet import Backend
from rollout.routers.envoy.metrics import EnvoyMetrics
from rollout.sources.firing import FiringAlerts
from rollout.sources.observer import ObserverPage
from rollout.sources.own_page import look
from rollout.sources.prometheus import PrometheusSource
from rollout.sources.raw_samples import RawSamples, Wanted
from rollout.sources.scrape import ScrapeSource
from rollout.ui.channel import command
from tests.support.dribbling import Dribbling, dribbling

LIMIT_S = 0.3
WANTED = Wanted(("requests_total",), (("app", ("a",)),))


def backend(server: Dribbling) -> Backend:
    return Backend("digits:v2", "127.0.0.1", server.server_port)


def of_prometheus(server: Dribbling) -> object:
    gateway = EnvoyMetrics(f"127.0.0.1:{server.server_port}")
    return PrometheusSource(server.url, gateway, timeout_s=LIMIT_S).read((backend(server),))


def of_pages(server: Dribbling) -> object:
    gateway = EnvoyMetrics(f"127.0.0.1:{server.server_port}")
    return ScrapeSource(gateway, timeout_s=LIMIT_S).read((backend(server),))


def of_raw_samples(server: Dribbling) -> object:
    return RawSamples(server.url, timeout_s=LIMIT_S).between(WANTED, 0.0, 60.0)


def of_alerts(server: Dribbling) -> object:
    return FiringAlerts(server.url, timeout_s=LIMIT_S).now()


def of_own_signals(server: Dribbling) -> object:
    return look(backend(server), {}, timeout_s=LIMIT_S)


@pytest.mark.parametrize("part", ["head", "body"])
@pytest.mark.parametrize("read", [of_prometheus, of_pages, of_raw_samples, of_alerts, of_own_signals])
def test_a_reading_from_a_dribbling_server_is_given_up(part: str, read: Callable[[Dribbling], object]) -> None:
    """The control loop or a question waited for it as long as bytes came."""
    with dribbling("head" if part == "head" else "body") as server, pytest.raises(SourceUnreachable) as error:
        read(server)
    assert "ReadTimeout" in error.value.saw


def test_a_dribbling_observer_is_ignored() -> None:
    """Its findings are only information for people."""
    with dribbling() as server:
        page = ObserverPage(f"127.0.0.1:{server.server_port}", timeout_s=LIMIT_S)
        assert page.differences(stable="digits:v1", canary="digits:v2") == ""


@pytest.mark.parametrize("part", ["head", "body"])
@pytest.mark.parametrize("token", ["", "a-token"])
def test_a_command_does_not_wait_for_a_dribbling_server(part: str, token: str) -> None:
    """This includes an answer that announces the end of the connection."""
    with dribbling("head" if part == "head" else "body") as server, pytest.raises(TimeoutError):
        command(server.url, "/api/stable", token=token, body={}, headers={}, timeout_s=LIMIT_S)


def test_a_dribbling_store_counts_as_hanging() -> None:
    """The next question is refused at once, as after a store that sends nothing."""
    with dribbling() as server:
        samples = RawSamples(server.url)
        for saw in ("ReadTimeout", "a moment ago"):
            with pytest.raises(SourceUnreachable) as error:
                samples.now_s()
            assert saw in error.value.saw
