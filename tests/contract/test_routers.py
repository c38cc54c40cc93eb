"""The contract of every data plane: the same tests run against Envoy and against the router in memory."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from contract.files import write_whole
from kanaria.stack.ports import free_port
from rollout.errors import RouterRefused
from rollout.fleet import Backend, Version
from rollout.routers.envoy.settings import GatewaySettings
from rollout.routers.router import ObservedSplit, Refused, Split, TrafficRouter
from tests.support.gateway_rig import Gateway
from tests.support.memory_router import MemoryRouter
from tests.support.processes import until

V1, V2, V3 = (Version((Backend(f"digits:v{n}", "127.0.0.1", 1),)) for n in (1, 2, 3))

TWINS = Version(tuple(Backend("digits:v1", "127.0.0.1", port) for port in (1, 2)))  # one version, two processes


@dataclass(frozen=True, slots=True)
class DataPlane:
    router: TrafficRouter
    refused: Callable[[Split], Split]  # makes a split that this data plane will refuse
    disconnect: Callable[[], None]


@pytest.fixture(params=["memory", "envoy"])
def plane(request: pytest.FixtureRequest, tmp_path: Path, require_program: Callable[[str], str]) -> Iterator[DataPlane]:
    if request.param == "memory":
        memory = MemoryRouter()

        def refuse_next(split: Split) -> Split:
            memory.refusals.append("refuse the next one")
            return split

        yield DataPlane(memory, refuse_next, lambda: setattr(memory, "reachable", False))
    else:
        require_program("envoy")
        with Gateway(GatewaySettings(directory=tmp_path, port=free_port(), stats_port=free_port())) as envoy:
            yield DataPlane(
                envoy.router,
                lambda split: replace(split, stable=Version((Backend("digits:v1", "127.0.0.1", 99999),))),
                envoy.stop,
            )


def test_no_split_is_observed_before_the_first_one(plane: DataPlane) -> None:
    """A data plane serves no version until then."""
    assert plane.router.observed() is None


@pytest.mark.parametrize(
    ("split", "observed"),
    [
        (Split(V1), ObservedSplit("digits:v1", None, 0, mirror=False)),
        (Split(V1, V2, mirror=True), ObservedSplit("digits:v1", "digits:v2", 0, mirror=True)),
        (Split(V1, V2, 5), ObservedSplit("digits:v1", "digits:v2", 5, mirror=False)),
        (Split(V1, V2, 12.34), ObservedSplit("digits:v1", "digits:v2", 12.34, mirror=False)),
        (Split(V1, V2, 50, sticky="x-user-id"), ObservedSplit("digits:v1", "digits:v2", 50, mirror=False)),
        (Split(V1, V2, 100), ObservedSplit("digits:v1", "digits:v2", 100, mirror=False)),
        *(
            (
                Split(V1, V2, percent, compare_percent=compared, sticky=sticky),
                ObservedSplit("digits:v1", "digits:v2", percent, mirror=False, compare_percent=compared),
            )
            for percent, compared, sticky in (
                (1, 10, None),
                (12.34, 12.34, "x-user-id"),
                (50, 100, None),
                (95, 1, None),
            )
        ),
        (Split(V2, fallback=V1), ObservedSplit("digits:v2", None, 0, mirror=False, fallback="digits:v1")),
        (Split(TWINS, V2, 50), ObservedSplit("digits:v1", "digits:v2", 50, mirror=False)),
    ],
)
def test_an_applied_split_is_observed(plane: DataPlane, split: Split, observed: ObservedSplit) -> None:
    """Every kind of split in a release can be read back after it was applied."""
    plane.router.apply(split)
    assert plane.router.observed() == observed


def test_the_last_split_wins(plane: DataPlane) -> None:
    """A split replaces the previous one entirely."""
    for split in (Split(V1, V2, mirror=True), Split(V1, V2, 25), Split(V2), Split(V2, V3, 1)):
        plane.router.apply(split)
    assert plane.router.observed() == ObservedSplit("digits:v2", "digits:v3", 1, mirror=False)


def test_applying_twice_is_harmless(plane: DataPlane) -> None:
    """A controller that does not know whether its last write arrived writes again."""
    for _ in range(2):
        plane.router.apply(Split(V1, V2, 10))
    assert plane.router.observed() == ObservedSplit("digits:v1", "digits:v2", 10, mirror=False)


def test_a_refused_split_leaves_the_previous_one_in_force(plane: DataPlane) -> None:
    """A refusal is an error and changes nothing."""
    plane.router.apply(Split(V1))
    with pytest.raises(RouterRefused):
        plane.router.apply(plane.refused(Split(V1, V2, 50)))
    assert plane.router.observed() == ObservedSplit("digits:v1", None, 0, mirror=False)


def test_a_valid_split_is_applied_after_a_refused_one(plane: DataPlane) -> None:
    """A refusal has no lasting effect."""
    with pytest.raises(RouterRefused):
        plane.router.apply(plane.refused(Split(V1)))
    plane.router.apply(Split(V2))
    assert plane.router.observed() == ObservedSplit("digits:v2", None, 0, mirror=False)


@pytest.mark.parametrize(
    "split",
    [
        Split(V1, canary_percent=5),
        Split(V1, mirror=True),
        Split(V1, V1, 5),
        Split(V1, V2, 101),
        Split(V1, V2, -1),
        Split(V1, fallback=V1),
        Split(V1, V2, 5, fallback=V3),
        Split(V1, V2, mirror=True, compare_percent=10),
        Split(V1, V2, 100, compare_percent=10),
        Split(V1, compare_percent=10),
        Split(V1, V2, 5, compare_percent=101),
        Split(Version((*V1.backends, *V2.backends))),
    ],
    ids=[
        "weight without canary",
        "mirror without canary",
        "canary is stable",
        "over 100 %",
        "under 0 %",
        "fallback is stable",
        "canary and fallback",
        "comparison in the shadow step",
        "comparison at 100 %",
        "comparison without canary",
        "comparison over 100 %",
        "backends of two versions",
    ],
)
def test_a_contradictory_split_is_refused(plane: DataPlane, split: Split) -> None:
    """No data plane guesses the intention."""
    with pytest.raises(RouterRefused):
        plane.router.apply(split)


def test_requests_in_flight_are_known_only_for_served_versions(plane: DataPlane) -> None:
    """Zero and unknown are different answers: only zero means that a version may be stopped."""
    plane.router.apply(Split(V1, V2, 10))
    assert [plane.router.requests_in_flight(tag) for tag in ("digits:v1", "digits:v2", "digits:v3")] == [0, 0, None]


def test_no_request_is_counted_as_refused_before_the_first_one(plane: DataPlane) -> None:
    """The count is zero and not unknown, even before the first split."""
    assert plane.router.refused() == Refused()


def test_requests_in_flight_of_a_replaced_version_are_still_counted(plane: DataPlane) -> None:
    """After the promotion the old version can be drained."""
    plane.router.apply(Split(V1, V2, 100))
    plane.router.apply(Split(V2))
    assert plane.router.requests_in_flight("digits:v1") == 0


def test_a_fallback_and_a_version_of_several_processes_can_be_drained(plane: DataPlane) -> None:
    """Their requests in flight are known, also after the change that removes the fallback."""
    plane.router.apply(Split(TWINS, fallback=V2))
    assert [plane.router.requests_in_flight(tag) for tag in ("digits:v1", "digits:v2")] == [0, 0]
    plane.router.apply(Split(V1))
    assert plane.router.requests_in_flight("digits:v2") == 0


def test_a_version_may_gain_and_lose_processes(plane: DataPlane) -> None:
    """The same split with other addresses is a new split, and is in force when `apply` returns."""
    for version in (V1, TWINS, V1):
        plane.router.apply(Split(version, V2, 50))
        assert plane.router.observed() == ObservedSplit("digits:v1", "digits:v2", 50, mirror=False)


def test_an_unreachable_data_plane_reports_unknown(plane: DataPlane) -> None:
    """No split is observed, requests in flight and refused requests are unknown, and no split can be applied."""
    plane.router.apply(Split(V1))
    plane.disconnect()
    assert plane.router.observed() is None
    assert plane.router.requests_in_flight("digits:v1") is None
    assert plane.router.refused() is None
    with pytest.raises(RouterRefused):
        plane.router.apply(Split(V2))


def test_a_manually_edited_route_table_is_observed(tmp_path: Path, require_program: Callable[[str], str]) -> None:
    """This holds twice and under the version name of the previous table: Envoy is asked whenever it loads a table."""
    require_program("envoy")
    settings = GatewaySettings(directory=tmp_path, port=free_port(), stats_port=free_port())
    with Gateway(settings) as envoy:
        envoy.router.apply(Split(V1, V2, 5))
        for percent in (40, 20):
            assert envoy.router.observed() == envoy.router.observed()
            written = json.loads(settings.routes_path.read_text())
            for route in written["resources"][0]["virtual_hosts"][0]["routes"]:
                if (shared := route.get("route", {}).get("weighted_clusters")) is not None:
                    stable, canary = shared["clusters"]
                    whole = stable["weight"] + canary["weight"]
                    canary["weight"] = whole * percent // 100
                    stable["weight"] = whole - canary["weight"]
            write_whole(settings.routes_path, json.dumps(written))
            wanted = ObservedSplit("digits:v1", "digits:v2", percent, mirror=False)
            until(lambda: envoy.router.observed() == wanted)  # noqa: B023 - it is called at once
