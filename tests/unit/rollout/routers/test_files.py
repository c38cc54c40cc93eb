"""The gateway's two files: what cannot be used counts as absent, and Envoy never starts with it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rollout import room
from rollout.errors import RouterRefused
from rollout.fleet import Backend, Version
from rollout.routers.envoy import launch
from rollout.routers.envoy.files import are_usable, read_resources, saved_resources, write_resources
from rollout.routers.envoy.resources import clusters_for
from rollout.routers.envoy.router import EnvoyRouter
from rollout.routers.envoy.routes import routes_for, split_of
from rollout.routers.envoy.settings import GatewaySettings
from rollout.routers.router import Split
from tests.support.small_disk import SmallDisk

STABLE, CANARY = (Version((Backend(f"m:v{n}", "127.0.0.1", 20_000 + n),)) for n in (1, 2))
SPLIT = Split(STABLE, CANARY, 25, mirror=True)


def cut(path: Path) -> None:
    """Half of it."""
    path.write_bytes(path.read_bytes()[:700])


def empty(path: Path) -> None:
    """Nothing in it."""
    path.write_bytes(b"")


def no_json(path: Path) -> None:
    """Bytes that are no text."""
    path.write_bytes(b"\xff\x00" * 100)


def another_shape(path: Path) -> None:
    """JSON, but not ours."""
    path.write_text('{"version_info": "1", "resources": [7]}')


def a_list(path: Path) -> None:
    """JSON, but no object."""
    path.write_text("[]")


def a_folder(path: Path) -> None:
    """A folder has its name."""
    path.unlink()
    path.mkdir()


def gone(path: Path) -> None:
    """It was deleted."""
    path.unlink()


DAMAGES = [cut, empty, no_json, another_shape, a_list, a_folder, gone]


@pytest.fixture
def settings(tmp_path: Path) -> GatewaySettings:
    """A gateway that was set up and serves SPLIT; its Envoy does not run."""
    made = GatewaySettings(tmp_path / "gateway", stats_port=1)
    set_up(made)
    return made


def set_up(settings: GatewaySettings) -> None:
    settings.directory.mkdir()
    settings.bootstrap_path.touch()
    write_resources(settings.without_version_path, [routes_for(None, settings)])
    write_resources(settings.clusters_path, list(clusters_for(SPLIT, settings).values()))
    write_resources(settings.routes_path, [routes_for(SPLIT, settings)])


def start(settings: GatewaySettings) -> subprocess.CompletedProcess[str]:
    """What the gateway's command does, with a program in Envoy's place that says it was reached."""
    paths = (settings.clusters_path, settings.routes_path, settings.without_version_path)
    return subprocess.run(
        [sys.executable, "-IS", launch.__file__, *map(str, paths), "/bin/echo", "serving"],
        capture_output=True,
        text=True,
        check=True,
    )


def served(settings: GatewaySettings) -> Split | None:
    """The split that Envoy would start with; its clusters are known."""
    clusters, routes = read_resources(settings.clusters_path), read_resources(settings.routes_path)
    assert clusters
    assert routes
    assert are_usable(routes[1], {cluster["name"] for cluster in clusters[1]})
    observed = split_of(routes[1][0])
    return observed and Split(STABLE, CANARY if observed.canary else None, observed.canary_percent, observed.mirror)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_counts_as_absent(settings: GatewaySettings, damage: Callable[[Path], None]) -> None:
    """It is never half a split; its spare says what it was."""
    before = saved_resources(settings.routes_path)
    damage(settings.routes_path)
    assert read_resources(settings.routes_path) is None
    assert saved_resources(settings.routes_path) == before


@pytest.mark.parametrize("damage", DAMAGES)
def test_envoy_starts_with_the_split_of_the_spare(settings: GatewaySettings, damage: Callable[[Path], None]) -> None:
    """Cut routes would be a 404 to everybody until the next change."""
    damage(settings.routes_path)
    damage(settings.clusters_path)
    assert start(settings).stdout == "serving\n"
    assert served(settings) == SPLIT


@pytest.mark.parametrize("damage", DAMAGES)
def test_without_any_usable_file_every_request_is_answered_503(
    settings: GatewaySettings, damage: Callable[[Path], None]
) -> None:
    """The controller writes the split again as soon as it beats."""
    for path in (settings.routes_path, settings.clusters_path):
        damage(path)
        damage(room.spare_of(path))
    assert start(settings).stdout == "serving\n"
    assert served(settings) is None
    assert '"status": 503' in settings.routes_path.read_text()


def test_routes_to_an_unknown_version_are_not_served(settings: GatewaySettings) -> None:
    """Clusters and routes that do not fit together are as bad as cut ones."""
    write_resources(settings.clusters_path, [])
    start(settings)
    assert served(settings) is None


def test_files_that_are_right_are_left_alone(settings: GatewaySettings) -> None:
    """A restart changes nothing."""
    before = [path.stat().st_ino for path in (settings.clusters_path, settings.routes_path)]
    assert start(settings).stderr == ""
    assert [path.stat().st_ino for path in (settings.clusters_path, settings.routes_path)] == before


def test_envoy_starts_although_nothing_can_be_written(small_disk: SmallDisk) -> None:
    """The check never keeps the gateway from serving."""
    settings = GatewaySettings(small_disk.folder / "gateway")
    set_up(settings)
    cut(settings.routes_path)
    small_disk.remount("ro")
    done = start(settings)
    assert (done.stdout, "could not be checked" in done.stderr) == ("serving\n", True)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_written_anew_from_the_split_that_is_wanted(
    settings: GatewaySettings, damage: Callable[[Path], None]
) -> None:
    """Also when its spare is damaged; the controller does not stumble over it."""
    for path in (settings.routes_path, settings.clusters_path):
        damage(path)
        damage(room.spare_of(path))
    router = EnvoyRouter(settings)
    with pytest.raises(RouterRefused, match="it will start with it"):
        router.apply(Split(STABLE))
    assert served(settings) == Split(STABLE)


def test_the_way_back_to_stable_needs_no_room(small_disk: SmallDisk) -> None:
    """A full disk takes the split away from a bad canary like any other."""
    settings = GatewaySettings(small_disk.folder / "gateway", stats_port=1)
    set_up(settings)
    small_disk.fill()
    with pytest.raises(RouterRefused, match="it will start with it"):
        EnvoyRouter(settings).apply(Split(STABLE))
    assert served(settings) == Split(STABLE)


def test_a_split_that_cannot_be_written_is_refused_in_words(small_disk: SmallDisk) -> None:
    """No error of the system reaches the control loop."""
    settings = GatewaySettings(small_disk.folder / "gateway", stats_port=1)
    set_up(settings)
    small_disk.remount("ro")
    with pytest.raises(RouterRefused, match="Read-only"):
        EnvoyRouter(settings).apply(Split(STABLE))


def test_whatever_is_usable_can_be_read_back(settings: GatewaySettings) -> None:
    """Every way to leave out a part of the route table is refused, or still a split."""
    table = routes_for(SPLIT, settings)
    names = set(clusters_for(SPLIT, settings))
    whole = json.dumps(table)
    for length in range(len(whole)):
        try:
            part = json.loads(whole[:length] + "]}]}")
        except ValueError:
            continue
        if are_usable([part], names):
            split_of(part)


def test_a_gateway_that_was_never_set_up_is_named(tmp_path: Path) -> None:
    """Its folder is missing: nothing is written anywhere."""
    with pytest.raises(RouterRefused, match="never set up"):
        EnvoyRouter(GatewaySettings(tmp_path / "none", stats_port=1)).apply(Split(STABLE))
