"""The controller's API with an unreadable ledger: a problem with advice, and no internal error."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from rollout.control.commands import SetStable, StartRelease
from rollout.control.metrics import ControllerMetrics
from rollout.ledger.ledger import Ledger
from rollout.spec import RolloutSpec
from rollout.ui import site
from rollout.ui.api import make_app
from rollout.ui.callers import Callers
from tests.support.unreadable_ledgers import OF_A_NEWER_VERSION, UNREADABLE, whole
from tests.support.world import Version, World


@pytest.fixture
def api(tmp_path: Path) -> Iterator[tuple[Starlette, Path]]:
    """The API of a controller with a release, and the ledger that it reads."""
    (tmp_path / "live").mkdir()
    world = World(tmp_path / "live" / "ledger.db", versions={"m:v1": Version(), "m:v2": Version()})
    controller = world.controller()
    controller.execute(SetStable("m:v1", "ann"))
    controller.execute(StartRelease("m:v2", RolloutSpec(steps=(5, 100)), "ann"))
    world.live(controller, 5)
    path = tmp_path / "ledger.db"
    whole(path)
    app = make_app(
        controller,
        ControllerMetrics(),
        read_ledger=lambda: Ledger(path, read_only=True),
        callers=Callers("secret"),
        name="test",
    )
    yield app, path
    controller.close()


async def get(app: Starlette, page: str) -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        return await client.get(page)


@pytest.mark.parametrize("how", UNREADABLE)
def test_a_report_from_an_unreadable_ledger_is_a_problem(api: tuple[Starlette, Path], how: str) -> None:
    """The status is 503, as the ledger may be restored; for a newer schema the title says so."""
    app, path = api
    UNREADABLE[how](path)
    for page in ("/releases/5", "/api/status", "/"):
        answer = asyncio.run(get(app, page))
        if page == "/releases/5" or answer.status_code != 200:
            assert answer.status_code == 503, (page, answer.text)
            problem = answer.json()
            assert str(path) in problem["detail"]
            assert "\n" not in problem["detail"]
            assert problem["do"]
        if page == "/releases/5" and how in OF_A_NEWER_VERSION:
            assert "newer version" in answer.json()["title"]


def test_an_internal_error_in_a_report_is_not_answered_as_a_missing_release(
    api: tuple[Starlette, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A KeyError of our own is an internal error."""
    app, _ = api

    def fail(*_: object, **__: object) -> str:
        raise KeyError("trace")

    monkeypatch.setattr(site, "render_report", fail)
    assert asyncio.run(get(app, "/releases/1")).status_code == 500
