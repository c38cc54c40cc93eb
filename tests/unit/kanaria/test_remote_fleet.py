"""Versions that others keep running: their state comes from their probe and from a note in the state folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kanaria.errors import SetupError
from kanaria.stack.any_fleet import AnyFleet
from kanaria.stack.fleet import LocalFleet
from kanaria.stack.ports import free_port
from kanaria.stack.remote_fleet import RemoteFleet
from kanaria.stack.supervision import Supervisor
from kanaria.stack.versions import Versions
from rollout.fleet import Backend, Health, Route
from tests.support.running_server import running_server
from tests.support.waiting import eventually

TAG = "chat:v1"


@contextmanager
def serving(port: int) -> Iterator[dict[str, int]]:
    """A server that others run; the test sets the status of its probe."""
    status = {"/health": 200}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status.get(self.path, 404))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with running_server(ThreadingHTTPServer(("127.0.0.1", port), Handler)):
        yield status


class World:
    """A list of versions, and controllers that come and go."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.file, self.changes = folder / "versions.yaml", list[tuple[Backend, ...]]()
        self.write(f"chat:v1: {{url: 'http://127.0.0.1:{self.port}', ready: /health, routes: [/chat]}}")

    def write(self, text: str) -> None:
        self.file.write_text(text)

    def controller(self) -> RemoteFleet:
        """The fleet as a newly started controller has it."""
        return RemoteFleet(self.folder / "remote", Versions(self.file), on_change=self.changes.append)

    def all_fleets(self) -> AnyFleet:
        supervisor = Supervisor(self.folder, self.folder / "logs")
        versions = Versions(self.file)
        local = LocalFleet(
            supervisor,
            self.folder / "versions",
            command=lambda _, port: ["serve", str(port)],
            environment=lambda _: {},
            on_change=self.changes.append,
            on_refusal=lambda: None,
            versions=versions,
        )
        return AnyFleet(local, self.controller(), versions)

    @property
    def backend(self) -> Backend:
        return Backend(TAG, "127.0.0.1", self.port, has_metrics=False)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    return World(tmp_path)


def test_the_health_of_a_remote_version_is_that_of_its_probe(world: World) -> None:
    """It is starting until its first success, also for a new controller.

    After that, a failed probe makes it unready.
    """
    fleet = world.controller()
    assert fleet.status(TAG).health is Health.ABSENT
    fleet.start(TAG)
    fleet.start(TAG)
    assert (fleet.running(), world.changes) == ((TAG,), [(world.backend,)])
    seen = fleet.status(TAG)
    assert (seen.health, seen.backends, seen.has_crashed) == (Health.STARTING, (world.backend,), False)
    assert f"http://127.0.0.1:{world.port}/health gives no answer" in seen.detail
    with serving(world.port) as status:
        eventually(lambda: fleet.status(TAG).health is Health.READY)
        status["/health"] = 503
        eventually(lambda: fleet.status(TAG).health is Health.UNREADY)
        assert fleet.status(TAG).detail.endswith("/health answers 503")
    later = world.controller()
    eventually(lambda: later.status(TAG).health is Health.UNREADY)


def test_a_version_in_use_does_not_need_the_list_any_more(world: World) -> None:
    """The list may change or disappear: a new controller finds what was started and can stop it."""
    world.controller().start(TAG)
    world.write("chat:v1: {url: 'http://127.0.0.1:1'}")
    assert world.controller().status(TAG).backends == (world.backend,)
    world.file.unlink()
    fleet = world.controller()
    fleet.start(TAG)
    assert (fleet.status(TAG).backends, fleet.service(TAG).routes) == ((world.backend,), (Route("/chat"),))
    fleet.stop(TAG)
    fleet.stop(TAG)
    assert (fleet.status(TAG).health, fleet.running(), world.changes[1:]) == (Health.ABSENT, (), [()])


def test_a_name_that_cannot_be_looked_up_is_reported(world: World) -> None:
    """The control loop does not wait long for it."""
    world.write("chat:v1: {url: 'http://no-such-host.invalid:8000'}")
    fleet = world.controller()
    fleet.start(TAG)
    eventually(lambda: "http://no-such-host.invalid:8000/ gives no answer" in fleet.status(TAG).detail, within_s=120)


def test_an_impossible_host_name_is_reported(world: World) -> None:
    """An earlier version of Kanaria accepted such a name, which made every tick fail."""
    fleet = world.controller()
    fleet.start(TAG)
    note = next((world.folder / "remote").glob("*.json"))
    note.write_text(note.read_text().replace("127.0.0.1", "a..b"))
    assert "http://a..b:" in world.controller().status(TAG).detail


def test_each_kind_of_version_uses_its_own_fleet(world: World) -> None:
    """Kanaria runs a command but not a URL. A version in use keeps its kind when the list changes."""
    world.write(f"chat:v1: {{url: 'http://127.0.0.1:{world.port}'}}\nchat:v2: {{command: 'serve {{port}}'}}")
    fleet = world.all_fleets()
    assert fleet.known_tags() == ("chat:v1", "chat:v2")
    for tag in fleet.known_tags():
        fleet.start(tag)
    assert fleet.running() == ("chat:v1", "chat:v2")
    names = Supervisor(world.folder, world.folder / "logs").names
    assert names() == ("chat@v2",)
    world.write(f"chat:v2: {{url: 'http://127.0.0.1:{world.port}'}}\nchat:v1: {{command: 'serve {{port}}'}}")
    later = world.all_fleets()
    for tag in later.known_tags():
        later.start(tag)
    assert (later.running(), names()) == (("chat:v1", "chat:v2"), ("chat@v2",))
    later.stop("chat:v2")
    assert names() == ()


def test_an_unknown_tag_is_reported(world: World) -> None:
    """Every fleet reports it."""
    with pytest.raises(SetupError, match="no version chat:v9"):
        Versions(world.file).require("chat:v9")
    with pytest.raises(SetupError, match=r"chat:v9 has no URL"):
        world.controller().start("chat:v9")
