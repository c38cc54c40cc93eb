"""`kanaria release --wait` as people with a token of their own type it: on a machine without the state folder."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from rollout.control import commands as c
from rollout.spec import RolloutSpec
from rollout.ui.callers import NamedToken, digest
from rollout.ui.cli import Access
from rollout.ui.cli.following import _wait, release
from rollout.ui.client import ControllerClient
from tests.support.site import serving
from tests.support.waiting import eventually
from tests.support.world import Version, World

ANN = NamedToken(name="ann", role="approver", sha256=digest("of-ann"), made_s=0)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[ControllerClient]:
    world = World(tmp_path / "ledger.db", versions={"m:v1": Version(start_s=0), "m:v2": Version(start_s=0)})
    controller = world.controller()
    controller.execute(c.SetStable("m:v1", "ann"))
    controller.close()
    with serving(world, named=(ANN,)) as url:
        client = ControllerClient(url, token="of-ann", by="somebody")
        yield client
        client.close()


def released(client: ControllerClient, folder: Path) -> Result:
    access = Access(client=lambda: client, ledger=folder / "elsewhere" / "ledger.db", reports=folder)
    app = typer.Typer()
    app.command()(release)
    return CliRunner().invoke(app, ["m:v2", "--wait"], obj=lambda: access)


def then(client: ControllerClient, *commands: str) -> threading.Thread:
    """Gives commands as soon as the release has traffic."""

    def act() -> None:
        def is_stepping() -> bool:
            now = client.status().release
            return now is not None and now.phase == "stepping"

        eventually(is_stepping)
        for command in commands:
            client.command(command)

    thread = threading.Thread(target=act)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("command", "code", "words"), [("promote", 0, "promoted by ann"), ("rollback", 1, "rolled back by a person")]
)
def test_a_release_is_followed_where_its_ledger_is_not(
    client: ControllerClient, tmp_path: Path, command: str, code: int, words: str
) -> None:
    """Each decision is printed once; the exit code tells the outcome."""
    other = then(client, "pause", command)
    done = released(client, tmp_path)
    other.join()
    assert done.exit_code == code, done.output
    for line in ("release of m:v2 against m:v1 (by ann)", "paused (by ann)", words):
        assert done.output.count(line) == 1, done.output


def test_a_release_that_another_one_followed_is_not_waited_for(client: ControllerClient) -> None:
    """How it ended was not seen: 3, could not decide."""
    assert client.release("m:v2", RolloutSpec()) == 1
    client.command("abort")
    eventually(lambda: (over := client.status().release) and over.phase == "ended")
    assert client.release("m:v2", RolloutSpec()) == 2
    with pytest.raises(typer.Exit) as left:
        _wait(client, 1)
    assert left.value.exit_code == 3
