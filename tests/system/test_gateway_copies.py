"""Copies of requests in rollout steps, in both directions, by a real Envoy: which requests, and at what cost."""

from collections.abc import Callable, Iterator

import pytest
from scipy.stats import binomtest

from kanaria.stack.ports import free_port
from rollout.compare import copied
from rollout.judge import Pair
from rollout.routers.envoy.settings import GatewaySettings
from rollout.routers.router import Split
from tests.support.gateway_rig import Gateway, Load, StandIn, eventually, load

STABLE, CANARY = "digits:v1", "digits:v2.0-rc_1"
BODY = {"features": [[0.0]]}
LEAST_P = 1e-4  # there are dozens of draws in each run


class Rig:
    """A gateway with two versions, and what they have answered since the last change of the split."""

    def __init__(self, gateway: Gateway, stable: StandIn, canary: StandIn) -> None:
        self.gateway, self.stable, self.canary = gateway, stable, canary
        self._before = self._seen()

    def split(self, percent: float, compared: float, *, sticky: str | None = None) -> None:
        both = self.stable.version, self.canary.version
        self.gateway.router.apply(Split(*both, percent, compare_percent=compared, sticky=sticky))
        self._before = self._seen()

    def copies(self, clients: Load) -> tuple[int, int]:
        """Copies that stable and the canary have answered; waits until all have arrived."""
        answers = clients.answers[STABLE], clients.answers[CANARY]

        def arrived() -> tuple[int, int]:
            seen = self._seen()
            stable, canary = (now - before - own for now, before, own in zip(seen, self._before, answers, strict=True))
            return stable, canary

        found = arrived()
        eventually(lambda: self.is_idle() and arrived() >= found)
        return arrived()

    def is_idle(self) -> bool:
        return all(self.gateway.router.requests_in_flight(tag) == 0 for tag in (STABLE, CANARY))

    def _seen(self) -> tuple[int, int]:
        return self.stable.seen("/predict"), self.canary.seen("/predict")


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    settings = GatewaySettings(directory=tmp_path_factory.mktemp("gateway"), port=free_port(), stats_port=free_port())
    with StandIn(STABLE) as stable, StandIn(CANARY) as canary, Gateway(settings) as gateway:
        yield Rig(gateway, stable, canary)


@pytest.fixture(autouse=True)
def envoy(require_program: Callable[[str], str]) -> None:
    require_program("envoy")


@pytest.mark.parametrize("sticky", [None, "x-user-id"], ids=["any caller", "sticky callers"])
@pytest.mark.parametrize(("percent", "compared"), [(1, 10), (10, 10), (50, 20), (95, 10)])
def test_a_share_of_each_versions_requests_is_copied_to_the_other(
    rig: Rig, percent: float, compared: float, sticky: str | None
) -> None:
    """The draw is independent of the version: with one draw for both, all of one and none of the other were copied.

    Callers without an id, as these, are drawn as if none were sticky.
    """
    rig.split(percent, compared, sticky=sticky)
    with load(rig.gateway.url) as clients:
        clients.wait_for(800)
    to_stable, to_canary = rig.copies(clients)
    shares = copied(compared / 100, percent / 100)
    assert clients.failures == []
    assert binomtest(clients.answers[CANARY], clients.total, percent / 100).pvalue > LEAST_P
    assert binomtest(to_canary, clients.answers[STABLE], shares.of_stable).pvalue > LEAST_P
    if clients.answers[CANARY]:
        assert binomtest(to_stable, clients.answers[CANARY], shares.of_canary).pvalue > LEAST_P


def test_each_request_of_a_sticky_caller_is_drawn_separately(rig: Rig) -> None:
    """Copies are not limited to a few callers: some of each caller's 40 requests are copied."""
    rig.split(50, 50, sticky="x-user-id")
    for user in range(6):
        headers = {"x-user-id": f"user-{user}"}
        before = rig.stable.seen("/predict") + rig.canary.seen("/predict")
        versions = {rig.gateway.predict(headers=headers).json()["version"] for _ in range(40)}
        eventually(rig.is_idle)
        answered = rig.stable.seen("/predict") + rig.canary.seen("/predict") - before
        assert len(versions) == 1
        assert binomtest(answered - 40, 40, 0.5).pvalue > LEAST_P


def test_a_raised_weight_moves_no_caller_off_the_canary(rig: Rig) -> None:
    on_canary: list[set[int]] = []
    for percent in (10, 50, 95):
        rig.split(percent, 10, sticky="x-user-id")
        answers = [rig.gateway.predict(headers={"x-user-id": f"user-{user}"}).json() for user in range(60)]
        on_canary.append({user for user, answer in enumerate(answers) if answer["version"] == CANARY})
    assert on_canary[0] < on_canary[1] < on_canary[2]


def test_copies_are_marked_and_not_counted_as_users_requests(rig: Rig) -> None:
    """Only copies have the header, even if a client sends it; errors of copies count for no version."""
    rig.split(50, 100)
    rig.canary.behave(status=500)
    before = rig.gateway.errors(stable=STABLE, canary=CANARY)
    rig.gateway.client.headers.update({"x-kanaria-copy": "mine", "x-kanaria-copy-of-stable": "shadow/none"})
    statuses = [rig.gateway.predict().status_code for _ in range(40)]
    after = rig.gateway.errors(stable=STABLE, canary=CANARY)
    rig.canary.behave()
    (failed,) = [now.bad - then.bad for now, then in zip(after[1:], before[1:], strict=True)]
    assert failed == statuses.count(500)
    assert sum((pair for pair in after), Pair(0, 0)).total - sum((pair for pair in before), Pair(0, 0)).total == 40
    marks = set()
    for _ in range(30):
        rig.gateway.predict()
        eventually(rig.is_idle)
        for version in (rig.stable, rig.canary):
            headers = version.last_headers()
            marks.add((headers["host"].count("-shadow"), headers.get("x-kanaria-copy")))
    assert marks == {(0, None), (1, "compare")}


def test_a_rollback_stops_the_copies_at_once(rig: Rig) -> None:
    rig.split(50, 50)
    with load(rig.gateway.url) as clients:
        clients.wait_for(50)
        rig.gateway.router.apply(Split(rig.stable.version))
        eventually(lambda: rig.gateway.router.requests_in_flight(CANARY) == 0)
        before = rig.canary.seen("/predict")
        clients.wait_for(100)
    assert rig.canary.seen("/predict") == before
    assert clients.failures == []


@pytest.mark.parametrize("fault", ["kill", "hang"])
def test_a_version_that_accepts_no_copies_fails_no_users_request(rig: Rig, fault: str) -> None:
    """No user waits for a copy; the other version answers the requests of the version's own share."""
    with StandIn(CANARY) as other:
        both = rig.stable.version, other.version
        rig.gateway.router.apply(Split(*both, 1, compare_percent=100))
        with load(rig.gateway.url) as clients:
            clients.wait_for(100)
            getattr(other, fault)()
            clients.wait_for(300)
            rig.gateway.router.apply(Split(rig.stable.version))
    assert clients.failures == []
