"""`kanaria release --wait` by people with their own token, on a machine without the state folder."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from rollout.control import commands as c
from rollout.spec import RolloutSpec
from rollout.ui.callers import NamedToken, digest
from rollout.ui.cli import Access, following
from rollout.ui.cli.following import _wait, release, retry
from rollout.ui.client import ControllerClient
from rollout.ui.views import StatusView
from tests.support.site import serving
from tests.support.waiting import eventually
from tests.support.world import Version, World

ANN = NamedToken(name="ann", role="approver", sha256=digest("of-ann"), made_s=0)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path / "ledger.db", versions={"m:v1": Version(start_s=0), "m:v2": Version(start_s=0)})
    controller = made.controller()
    controller.execute(c.SetStable("m:v1", "ann"))
    controller.close()
    return made


@pytest.fixture
def client(world: World) -> Iterator[ControllerClient]:
    with serving(world, named=(ANN,)) as url:
        client = ControllerClient(url, token="of-ann", by="somebody")
        yield client
        client.close()


def typed(
    client: ControllerClient, folder: Path, *words: str, command: Callable[..., None] = release, tag: str = "m:v2"
) -> Result:
    access = Access(client=lambda: client, ledger=folder / "elsewhere" / "ledger.db", reports=folder)
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [tag, *words], obj=lambda: access)


def is_stepping(client: ControllerClient) -> bool:
    now = client.status().release
    return now is not None and now.phase == "stepping"


def give_later(client: ControllerClient, *commands: str) -> threading.Thread:
    """Gives the commands as soon as the release has traffic."""

    def act() -> None:
        eventually(lambda: is_stepping(client))
        for command in commands:
            client.command(command)

    thread = threading.Thread(target=act)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("command", "code", "words"), [("promote", 0, "promoted by ann"), ("rollback", 1, "rolled back by a person")]
)
def test_a_release_is_followed_without_its_ledger(
    client: ControllerClient, tmp_path: Path, command: str, code: int, words: str
) -> None:
    """Each decision is printed once, and the exit code gives the outcome."""
    other = give_later(client, "pause", command)
    done = typed(client, tmp_path, "--wait")
    other.join()
    assert done.exit_code == code, done.output
    for line in ("release of m:v2 against m:v1 (by ann)", "paused (by ann)", words):
        assert done.output.count(line) == 1, done.output


def test_waiting_ends_when_another_release_has_followed(client: ControllerClient) -> None:
    """The outcome was not seen, so the exit code is 3: could not decide."""
    assert client.release("m:v2", RolloutSpec()) == 1
    client.command("abort")
    eventually(lambda: (over := client.status().release) and over.phase == "ended")
    assert client.release("m:v2", RolloutSpec()) == 2
    with pytest.raises(typer.Exit) as left:
        _wait(client, 1)
    assert left.value.exit_code == 3


def leaving_canary(client: ControllerClient, world: World, command: str) -> None:
    """A canary that was rolled back or aborted and still has a request to answer."""
    client.release("m:v2", RolloutSpec())
    eventually(lambda: is_stepping(client))
    world.router.in_flight = {"m:v2": 1}
    client.command(command)


@pytest.mark.parametrize("command", [release, retry])
def test_the_next_release_waits_for_the_last_requests_of_the_previous_canary(
    client: ControllerClient,
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Callable[..., None],
) -> None:
    """`--wait` ends with the decision, and the next command was refused: only one release at a time."""
    look = ControllerClient.status

    def looked(self: ControllerClient) -> StatusView:
        seen = look(self)
        world.router.in_flight = {}  # after the command has seen the canary leaving
        return seen

    leaving_canary(client, world, "abort" if command is release else "rollback")
    monkeypatch.setattr(ControllerClient, "status", looked)
    done = typed(client, tmp_path, command=command)
    assert done.exit_code == 0, done.output
    assert "waiting for m:v2, which is answering its last requests" in done.output
    assert "release 2: m:v2 is on trial" in done.output


def test_a_watched_status_says_at_once_that_the_controller_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks each second anyway. While it waited for the controller, an old picture stayed."""

    def left(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(following.time, "sleep", left)  # at the first sleep, by any caller
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        client = ControllerClient(url, token="of-ann", by="ann", comes=lambda: True)
        access = Access(client=lambda: client, ledger=tmp_path / "ledger.db", reports=tmp_path)
        app = typer.Typer()
        app.command()(following.status)
        done = CliRunner().invoke(app, ["--watch"], obj=lambda: access)
    assert "does not answer" in done.output


def test_the_wait_for_a_leaving_canary_is_limited(
    client: ControllerClient, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal gives the reason."""
    monkeypatch.setattr(following, "_LEAVES_WITHIN_S", 0.1)
    leaving_canary(client, world, "abort")
    done = typed(client, tmp_path)
    assert done.exit_code == 2, done.output
    assert "one release at a time" in done.output
    assert "answering its last requests" in done.output.partition("one release at a time")[2]
