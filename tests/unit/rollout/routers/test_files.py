"""The gateway's two files: an unusable file counts as absent, and Envoy never starts with it."""

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
    """The file has only its first half."""
    path.write_bytes(path.read_bytes()[:700])


def empty(path: Path) -> None:
    """The file is empty."""
    path.write_bytes(b"")


def no_json(path: Path) -> None:
    """Bytes that are not text."""
    path.write_bytes(b"\xff\x00" * 100)


def another_shape(path: Path) -> None:
    """JSON of another shape."""
    path.write_text('{"version_info": "1", "resources": [7]}')


def a_list(path: Path) -> None:
    """JSON that is not an object."""
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
    """A gateway that is set up and serves SPLIT; its Envoy does not run."""
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
    """Runs the gateway's command with a program in place of Envoy that reports that it was started."""
    paths = (settings.clusters_path, settings.routes_path, settings.without_version_path)
    return subprocess.run(
        [sys.executable, "-IS", launch.__file__, *map(str, paths), "/bin/echo", "serving"],
        capture_output=True,
        text=True,
        check=True,
    )


def served(settings: GatewaySettings) -> Split | None:
    """The split with which Envoy would start; its clusters are known."""
    clusters, routes = read_resources(settings.clusters_path), read_resources(settings.routes_path)
    assert clusters
    assert routes
    assert are_usable(routes[1], {cluster["name"] for cluster in clusters[1]})
    observed = split_of(routes[1][0])
    return observed and Split(STABLE, CANARY if observed.canary else None, observed.canary_percent, observed.mirror)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_counts_as_absent(settings: GatewaySettings, damage: Callable[[Path], None]) -> None:
    """It is never read as half a split; its spare copy has the split."""
    before = saved_resources(settings.routes_path)
    damage(settings.routes_path)
    assert read_resources(settings.routes_path) is None
    assert saved_resources(settings.routes_path) == before


@pytest.mark.parametrize("damage", DAMAGES)
def test_envoy_starts_with_the_split_of_the_spare_copy(
    settings: GatewaySettings, damage: Callable[[Path], None]
) -> None:
    """With truncated routes every request would be a 404 until the next change."""
    damage(settings.routes_path)
    damage(settings.clusters_path)
    assert start(settings).stdout == "serving\n"
    assert served(settings) == SPLIT


@pytest.mark.parametrize("damage", DAMAGES)
def test_without_any_usable_file_every_request_is_answered_503(
    settings: GatewaySettings, damage: Callable[[Path], None]
) -> None:
    """The controller writes the split again at its first beat."""
    for path in (settings.routes_path, settings.clusters_path):
        damage(path)
        damage(room.spare_of(path))
    assert start(settings).stdout == "serving\n"
    assert served(settings) is None
    assert '"status": 503' in settings.routes_path.read_text()


def test_routes_to_an_unknown_version_are_not_served(settings: GatewaySettings) -> None:
    """Clusters and routes that do not match are as bad as truncated ones."""
    write_resources(settings.clusters_path, [])
    start(settings)
    assert served(settings) is None


def test_valid_files_are_not_rewritten(settings: GatewaySettings) -> None:
    """A restart changes nothing."""
    before = [path.stat().st_ino for path in (settings.clusters_path, settings.routes_path)]
    assert start(settings).stderr == ""
    assert [path.stat().st_ino for path in (settings.clusters_path, settings.routes_path)] == before


def test_envoy_starts_although_nothing_can_be_written(small_disk: SmallDisk) -> None:
    """The check never stops the gateway from serving."""
    settings = GatewaySettings(small_disk.folder / "gateway")
    set_up(settings)
    cut(settings.routes_path)
    small_disk.remount("ro")
    done = start(settings)
    assert (done.stdout, "could not be checked" in done.stderr) == ("serving\n", True)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_rewritten_from_the_wanted_split(
    settings: GatewaySettings, damage: Callable[[Path], None]
) -> None:
    """This also works if the spare copy is damaged, and raises no error in the controller."""
    for path in (settings.routes_path, settings.clusters_path):
        damage(path)
        damage(room.spare_of(path))
    router = EnvoyRouter(settings)
    with pytest.raises(RouterRefused, match="the gateway will start with it"):
        router.apply(Split(STABLE))
    assert served(settings) == Split(STABLE)


def test_a_rollback_to_stable_needs_no_disk_space(small_disk: SmallDisk) -> None:
    """On a full disk, too, a bad canary loses its traffic."""
    settings = GatewaySettings(small_disk.folder / "gateway", stats_port=1)
    set_up(settings)
    small_disk.fill()
    with pytest.raises(RouterRefused, match="the gateway will start with it"):
        EnvoyRouter(settings).apply(Split(STABLE))
    assert served(settings) == Split(STABLE)


def test_a_split_that_cannot_be_written_is_refused_with_an_explanation(small_disk: SmallDisk) -> None:
    """No system error reaches the control loop."""
    settings = GatewaySettings(small_disk.folder / "gateway", stats_port=1)
    set_up(settings)
    small_disk.remount("ro")
    with pytest.raises(RouterRefused, match="Read-only"):
        EnvoyRouter(settings).apply(Split(STABLE))


def test_every_usable_route_table_can_be_read_back(settings: GatewaySettings) -> None:
    """Whatever part of the table is removed, it is either refused or still a split."""
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


def test_a_gateway_that_was_never_set_up_is_reported(tmp_path: Path) -> None:
    """Its folder is missing, and nothing is written."""
    with pytest.raises(RouterRefused, match="never set up"):
        EnvoyRouter(GatewaySettings(tmp_path / "none", stats_port=1)).apply(Split(STABLE))
