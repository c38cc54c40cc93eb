"""`kanaria up`, `kanaria down` and `kanaria upgrade`: the local stack."""

import signal
from typing import Annotated

import typer

from contract.http import API_KEY_HEADER
from contract.terminal import say
from kanaria.access import person
from kanaria.private_files import only_for_the_owner
from kanaria.settings import API_KEY_FILE, Settings
from kanaria.stack.stack import Stack
from rollout.ui.cli import explained


def up(
    tag: Annotated[str | None, typer.Argument(help="First stable version, `name:version`; not needed later.")] = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay until SIGTERM or Ctrl-C, then stop the stack.")
    ] = False,
) -> None:
    """Start the local stack: gateway, controller, metrics, the stable version."""
    with explained():
        stack = _stack()
        if not foreground:
            _start(stack, tag)
            return
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            _start(stack, tag)
            stack.stay(say=say)
        except KeyboardInterrupt:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            stack.down(say=say)


def down() -> None:
    """Stop the local stack. A running release is aborted."""
    with explained():
        _stack().down(say=say)


def upgrade() -> None:
    """Restart the controller and the keeper with the code that is installed now."""
    with explained():
        _stack().upgrade(say=say)


def _start(stack: Stack, tag: str | None) -> None:
    stack.up(stack.versions.full_tag(tag) if tag else None, say=say)
    settings = stack.settings
    routes = [route.path for route in stack.versions.service(stack.stable() or tag or "").routes]
    typer.echo(
        f"gateway:    {settings.gateway_url}{routes[0] if len(routes) == 1 else ''}"
        + (f"  ({API_KEY_HEADER}: see {API_KEY_FILE} in the state folder)" if settings.needs_api_key else "")
    )
    if len(routes) > 1:
        typer.echo(f"routes:     {', '.join(routes)}")
    typer.echo(f"controller: {settings.controller_url}")
    typer.echo(f"state:      {settings.root}")


def _stack() -> Stack:
    only_for_the_owner()  # another user's folder keeps its mode
    return Stack(Settings(), by=person())
