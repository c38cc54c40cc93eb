"""A real Envoy sends versions the secret of their ports, and a client's value is ignored."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import httpx
import pytest

from contract.http import SECRET_HEADER
from kanaria.stack.ports import free_port
from rollout.fleet import Version
from rollout.routers.envoy.settings import GatewaySettings
from rollout.routers.router import Split
from tests.support.gateway_rig import Gateway, StandIn, eventually

STABLE, CANARY, SECRET = "digits:v1", "digits:v2", "of these versions alone"
OF_A_CLIENT = {SECRET_HEADER: "of a client"}


@pytest.fixture
def gateway(tmp_path_factory: pytest.TempPathFactory, require_program: Callable[[str], str]) -> Iterator[Gateway]:
    require_program("envoy")
    settings = GatewaySettings(directory=tmp_path_factory.mktemp("gateway"), port=free_port(), stats_port=free_port())
    with Gateway(settings) as running:
        yield running


@pytest.fixture(scope="module")
def closed() -> Iterator[tuple[StandIn, StandIn]]:
    """Two versions that require the secret."""
    with StandIn(STABLE, secret=SECRET) as stable, StandIn(CANARY, secret=SECRET) as canary:
        yield stable, canary


@pytest.fixture(scope="module")
def open_one() -> Iterator[StandIn]:
    """A version that requires none: started by an earlier Kanaria, or not a Bento."""
    with StandIn("digits:v0") as version:
        yield version


def test_requests_copies_and_health_checks_carry_the_secret(gateway: Gateway, closed: tuple[StandIn, StandIn]) -> None:
    """A client's value is replaced; without the secret a version refuses everything."""
    stable, canary = closed
    gateway.router.apply(Split(stable.version, canary.version, mirror=True))
    eventually(lambda: gateway.predict().status_code == 200)
    assert gateway.predict(headers=OF_A_CLIENT).status_code == 200
    eventually(lambda: canary.seen("/predict") > 0)
    gateway.router.apply(Split(stable.version, canary.version, canary_percent=100))
    eventually(lambda: gateway.predict(headers=OF_A_CLIENT).json()["version"] == CANARY)
    for headers in ({}, OF_A_CLIENT):
        refused = httpx.post(f"{stable.backend.url}/predict", json={}, headers=headers, timeout=60)
        assert (refused.status_code, refused.json()["title"]) == (403, "Forbidden")
    assert SECRET_HEADER not in canary.last_headers()


def test_a_version_with_a_secret_takes_over_from_one_without(
    gateway: Gateway, closed: tuple[StandIn, StandIn], open_one: StandIn
) -> None:
    """After an upgrade, stable is from an earlier Kanaria and the canary is not; each can answer for the other."""
    stable, (canary, _) = open_one, closed
    gateway.router.apply(Split(stable.version, canary.version, canary_percent=50))
    answered = set()
    eventually(lambda: answered.add(gateway.predict().json()["version"]) or answered == {stable.tag, canary.tag})


def test_a_clients_secret_reaches_no_version(gateway: Gateway, open_one: StandIn) -> None:
    """This also holds if no version requires one."""
    gateway.router.apply(Split(open_one.version))
    eventually(lambda: gateway.predict(headers=OF_A_CLIENT).status_code == 200)
    assert SECRET_HEADER not in open_one.last_headers()


def test_processes_of_one_version_may_differ_in_the_secret(
    gateway: Gateway, closed: tuple[StandIn, StandIn], open_one: StandIn
) -> None:
    """One of them was started before the upgrade."""
    (asking, _), silent = closed, open_one
    version = Version((silent.backend, replace(asking.backend, tag=silent.tag)))
    before = silent.seen("/predict"), asking.seen("/predict")
    gateway.router.apply(Split(version))
    eventually(
        lambda: (
            gateway.predict().status_code == 200
            and silent.seen("/predict") > before[0]
            and asking.seen("/predict") > before[1]
        )
    )


def test_only_the_owner_can_read_files_with_the_secret(gateway: Gateway, closed: tuple[StandIn, StandIn]) -> None:
    """These are Envoy's files; its metrics page, which all users of the machine can read, does not contain it."""
    gateway.router.apply(Split(closed[0].version))
    folder = gateway.settings.directory
    files = [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert files
    assert [path.name for path in files if path.stat().st_mode & 0o077] == []
    assert SECRET not in httpx.get(f"http://127.0.0.1:{gateway.settings.stats_port}/stats/prometheus", timeout=60).text
