"""A real Envoy shows a real observer the answers to a share of the requests."""

import asyncio
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from scipy.stats import binomtest

from contract.observation import CANARY, COPY, OWN_REQUEST, READ, RECORD, REPEAT, ROLE, STABLE, STABLE_COPY
from contract.own_answers import OwnAnswers
from kanaria.stack.ports import free_port
from kanaria.stack.shown_share import ShownShare
from observer.findings import Findings
from observer.messages import ATTRIBUTES
from observer.server import Observer, make_server
from rollout.fleet import Route, Service, Version
from rollout.observe import Observe
from rollout.routers.envoy import admin
from rollout.routers.envoy.observation import NOT_RECORDED_PERCENT
from rollout.routers.envoy.sampling import show
from rollout.routers.envoy.settings import GatewaySettings
from rollout.routers.router import Split
from tests.support.gateway_rig import Gateway, StandIn, load
from tests.support.waiting import eventually

OWN = Service((Route("/predict"),), 60)
MEANING = OwnAnswers.model_validate({"/predict": {"label": "version"}})
SHARE = 0.25
LEAST_P = 1e-4  # there are dozens of draws in each run


class Seen(Observer):
    """An observer that records the requests whose answers it was shown, by role and by the version to be read."""

    def __init__(self) -> None:
        findings = Findings()
        findings.expect(MEANING)
        super().__init__(findings)
        self.requests: dict[str, set[str]] = defaultdict(set)
        self.streams = self.told = self.recorded = 0

    async def observe(self, messages: AsyncIterator[Any], metadata: dict[str, str]) -> None:
        self.streams += 1
        self.recorded += metadata.get(ROLE) == RECORD

        async def noted() -> AsyncIterator[Any]:
            async for message in messages:
                attributes = message.attributes.get(ATTRIBUTES, {})
                if OWN_REQUEST in attributes:
                    for told in (metadata.get(ROLE), metadata.get(READ)):
                        self.requests[told or ""].add(str(attributes[OWN_REQUEST]))
                    self.told += 1
                yield message

        await super().observe(noted(), metadata)


@contextmanager
def listening(observer: Observer, address: str) -> Iterator[None]:
    """Run the observer at `address` in a thread."""
    loop = asyncio.new_event_loop()
    stopped = asyncio.Event()

    async def serve() -> None:
        server = make_server(observer, address)
        await server.start()
        await stopped.wait()
        await server.stop(None)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join()
        loop.close()


class Rig:
    """Two versions of a service behind a gateway, and an observer."""

    def __init__(self, gateway: Gateway, stable: StandIn, canary: StandIn, beside: ExitStack) -> None:
        self.gateway, self.observer = gateway, Seen()
        self.stable, self.canary = (Version((each.backend,), OWN) for each in (stable, canary))
        beside.enter_context(listening(self.observer, f"unix:{gateway.settings.observer_socket}"))
        self.end_observer = beside.close
        self.admin = admin.client(gateway.settings, timeout_s=5.0)

    def step(self) -> None:
        """Let both versions answer users, with all answers readable."""
        self.gateway.router.apply(Split(self.stable, self.canary, 50, answers=MEANING))

    def streams(self) -> int:
        """The answers that Envoy started to show."""
        return self.of_observer("envoy_cluster_upstream_rq_total")

    def copies(self) -> int:
        """The copies that count as evidence about the canary."""
        tags = self.stable.tag, self.canary.tag
        return self.gateway.errors(stable=tags[0], canary=tags[1], mirrored=tags[1])[1].total

    def of_observer(self, metric: str) -> int:
        found = (
            value
            for name, labels, value in self.gateway.samples()
            if name == metric and labels.get("envoy_cluster_name") == "observer" and "envoy_response_code" not in labels
        )
        return int(sum(found))


@pytest.fixture
def rig(tmp_path_factory: pytest.TempPathFactory, require_program: Callable[[str], str]) -> Iterator[Rig]:
    require_program("envoy")
    settings = GatewaySettings(
        directory=tmp_path_factory.mktemp("gateway"), port=free_port(), stats_port=free_port(), has_observer=True
    )
    with (
        StandIn("text:v1") as stable,
        StandIn("text:v2") as canary,
        Gateway(settings) as gateway,
        ExitStack() as beside,
    ):
        rig = Rig(gateway, stable, canary, beside)
        rig.step()
        eventually(lambda: is_shown(rig))  # the gateway's health check has found the observer
        yield rig


def is_shown(rig: Rig) -> bool:
    """Whether the observer is shown a new answer with its request; everything that a test counts comes later."""
    before = rig.observer.told
    rig.gateway.predict()
    eventually(lambda: rig.observer.told > before or rig.of_observer("envoy_cluster_upstream_rq_xx_total") > 0)
    return rig.observer.told > before


def test_both_versions_have_the_same_share_and_skipped_requests_cost_nothing(rig: Rig) -> None:
    show(rig.admin, SHARE)
    rig.observer.requests.clear()
    before, streams = rig.streams(), rig.observer.streams
    with load(rig.gateway.url) as clients:
        clients.wait_for(1500)
    eventually(lambda: rig.observer.streams - streams == rig.streams() - before)
    tags = ("text:v1", "text:v2")
    # A stream's first message says which request it is.
    eventually(lambda: sum(len(rig.observer.requests[tag]) for tag in tags) == rig.streams() - before)
    assert clients.failures == []
    for tag in tags:
        assert binomtest(len(rig.observer.requests[tag]), clients.answers[tag], SHARE).pvalue > LEAST_P


def test_a_share_of_zero_shows_nothing(rig: Rig) -> None:
    show(rig.admin, 0.0)
    before = rig.streams()
    with load(rig.gateway.url) as clients:
        clients.wait_for(200)
    assert (rig.streams() - before, clients.failures) == (0, [])


def test_in_the_shadow_step_either_all_answers_to_a_request_are_shown_or_none(rig: Rig) -> None:
    """These are stable's, the canary's to the copy, and stable's second one: otherwise they could not be compared."""
    rig.gateway.router.apply(Split(rig.stable, rig.canary, mirror=True))
    show(rig.admin, SHARE)
    rig.observer.requests.clear()
    before = rig.copies()  # the canary may have answered a user before
    with load(rig.gateway.url) as clients:
        clients.wait_for(800)
    seen = rig.observer.requests
    eventually(lambda: seen[STABLE] == seen[COPY] and seen[REPEAT] <= seen[STABLE])
    # Copies are counted independently of what is observed.
    eventually(lambda: rig.copies() - before == clients.total)
    assert binomtest(len(seen[STABLE]), clients.total, SHARE).pvalue > LEAST_P
    assert binomtest(len(seen[REPEAT]), len(seen[STABLE]), 0.2).pvalue > LEAST_P


def test_copies_in_rollout_steps_are_made_of_observed_requests(rig: Rig) -> None:
    """No copy is wasted: a tenth is observed, half would be compared, and each observed request is compared."""
    rig.gateway.router.apply(Split(rig.stable, rig.canary, 50, compare_percent=50))
    show(rig.admin, 0.1)
    rig.observer.requests.clear()
    with load(rig.gateway.url) as clients:
        clients.wait_for(1000)
    seen = rig.observer.requests
    eventually(lambda: seen[STABLE] == seen[COPY] and seen[CANARY] == seen[STABLE_COPY])
    assert clients.failures == []
    for tag, role in (("text:v1", STABLE), ("text:v2", CANARY)):
        assert binomtest(len(seen[role]), clients.answers[tag], 0.1).pvalue > LEAST_P


@pytest.mark.parametrize("has_canary", [True, False])
def test_the_recorded_share_is_independent_of_the_observed_share(rig: Rig, has_canary: bool) -> None:
    """A filter draws it from observed requests, and the route from all others with the same random number."""
    shadow = Split(rig.stable, rig.canary, mirror=True)
    rig.gateway.router.apply(shadow if has_canary else Split(rig.stable, answers=MEANING))
    show(rig.admin, SHARE)
    rig.observer.requests.clear()
    before = rig.copies()
    record(rig, percent=40)
    with load(rig.gateway.url) as clients:
        clients.wait_for(1000)
    eventually(lambda: rig.copies() - before == (clients.total if has_canary else 0))
    eventually(lambda: rig.streams() == rig.observer.streams)
    assert (clients.failures, clients.answers.keys()) == ([], {rig.stable.tag})
    assert binomtest(rig.observer.recorded, clients.total, 0.4).pvalue > LEAST_P
    seen = rig.observer.requests[STABLE if has_canary else rig.stable.tag]
    assert binomtest(len(seen), clients.total, SHARE).pvalue > LEAST_P
    record(rig, percent=0)
    recorded = rig.observer.recorded
    with load(rig.gateway.url) as clients:
        clients.wait_for(100)
    eventually(lambda: rig.streams() == rig.observer.streams)
    assert rig.observer.recorded == recorded


def record(rig: Rig, *, percent: int) -> None:
    """Record this share of the requests."""
    rig.admin.post("/runtime_modify", params={NOT_RECORDED_PERCENT: str(100 - percent)}).raise_for_status()


def test_a_caller_who_reuses_one_request_id_does_not_affect_the_share(rig: Rig) -> None:
    show(rig.admin, 0.5)
    before = rig.streams()
    for _ in range(100):
        rig.gateway.predict(headers={"x-request-id": "mine", "x-kanaria-request": "mine"})
    assert binomtest(rig.streams() - before, 100, 0.5).pvalue > LEAST_P


def test_the_share_follows_the_traffic_and_is_set_again_after_a_restart(rig: Rig) -> None:
    """Fifty of 200 requests a second; a burst counts for ten looks; a restarted gateway has lost its setting."""
    now_s = 0.0
    wanted = Observe(per_s=50)
    kept = ShownShare(rig.gateway.settings, wanted=lambda: wanted, clock=lambda: now_s)

    def look(requests: int) -> float | None:
        nonlocal now_s
        for _ in range(requests):
            rig.gateway.predict()
        now_s += 1
        kept.look()
        return kept.share

    assert look(5) is None
    assert look(20) == 1.0
    assert look(200) == pytest.approx(0.25)
    in_force = rig.admin.get("/runtime").json()["entries"]["kanaria.shown"]["final_value"]
    assert "250000" in in_force
    assert [look(1) for _ in range(10)] == [*[pytest.approx(0.25)] * 9, 1.0]
    wanted = Observe(share=0.1, per_s=300)
    assert look(1) == pytest.approx(0.1)
    rig.gateway.stop()
    assert look(0) is None
    rig.gateway.start()
    assert look(1) is None
    assert look(1) == pytest.approx(0.1)
    assert "100000" in rig.admin.get("/runtime").json()["entries"]["kanaria.shown"]["final_value"]


def test_answers_that_the_observer_did_not_receive_are_counted(rig: Rig) -> None:
    missed: list[float] = []
    kept = ShownShare(rig.gateway.settings, wanted=Observe.all_that_can_be, missed=missed.append)
    kept.look()
    missed.clear()
    rig.end_observer()
    answers = [rig.gateway.predict() for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200}
    eventually(lambda: (kept.look(), sum(missed))[1] == 20)
    kept.look()
    assert missed[-1] == 0
