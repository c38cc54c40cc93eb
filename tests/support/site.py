"""The controller's pages as they are served: a real server in front of a controller in a simulated world."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.routing import Route

from kanaria.stack.ports import free_port
from rollout.control.metrics import ControllerMetrics
from rollout.ledger.ledger import Ledger
from rollout.ui.api import Surroundings, make_app
from rollout.ui.callers import Callers, NamedToken
from tests.support.waiting import eventually
from tests.support.world import World

TOKEN = "the-token-of-this-controller"  # noqa: S105 - of a test


@contextmanager
def serving(
    world: World,
    *,
    surroundings: Surroundings = Surroundings(),  # noqa: B008 - immutable
    named: tuple[NamedToken, ...] = (),
    more: tuple[Route, ...] = (),
) -> Iterator[str]:
    """The address of the pages, from a separate controller.

    Time stands still in its world; commands are carried out.
    """
    controller = world.unstarted_controller()
    app = make_app(
        controller,
        ControllerMetrics(),
        read_ledger=lambda: Ledger(world.path, read_only=True),
        callers=Callers(TOKEN, lambda: named),
        name="folder",
        surroundings=surroundings,
    )
    app.router.routes.extend(more)
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    loop, front = threading.Thread(target=controller.run), threading.Thread(target=server.run)
    loop.start()
    front.start()
    eventually(lambda: server.started and controller.is_beating(within_s=1e9))
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        controller.stop()
        front.join()
        loop.join()
