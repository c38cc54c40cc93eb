"""`kanaria notify`: checks that notifications about decisions arrive."""

from typing import Annotated

import typer

from contract.terminal import say
from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stack.notify_addresses import NotDelivered, read_addresses
from rollout.ui.cli import EXIT_DONE, EXIT_FAIL

app = typer.Typer(help="Check that notifications about decisions arrive.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Check that notifications about decisions arrive."""


@app.command("test")
def send_test(
    message: Annotated[str, typer.Option(help="Text of the message.")] = "This is only a test.",
) -> None:
    """Send a message to every address of KANARIA_NOTIFY. The exit code is 1 if one does not accept it."""
    settings = Settings()
    if settings.notify is None:
        raise SetupError(
            "nobody is notified about decisions",
            saw="KANARIA_NOTIFY is not set",
            do="write addresses into a file, one per line, and set KANARIA_NOTIFY to it: docs/notifications.md",
        )
    has_failed = False
    for address in read_addresses(settings.notify):
        try:
            address.send(f"{settings.deployment}: test", (message, f"{settings.people_url}/"))
        except NotDelivered as error:
            has_failed = True
            say(f"{address.name}: not delivered: {error}", colour="red", err=True)
        else:
            typer.echo(f"{address.name}: delivered; it gets {', '.join(sorted(address.kinds))}")
    raise typer.Exit(EXIT_FAIL if has_failed else EXIT_DONE)
