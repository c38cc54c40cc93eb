"""`kanaria notify`: whether people can be told of decisions."""

from typing import Annotated

import typer

from contract.terminal import say
from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stack.notify_addresses import NotDelivered, read_addresses
from rollout.ui.cli import EXIT_DONE, EXIT_FAIL

app = typer.Typer(help="Try out who is told of decisions.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Try out who is told of decisions."""


@app.command("test")
def send_test(
    message: Annotated[str, typer.Option(help="What the message says.")] = "This is only a test.",
) -> None:
    """Send a message to every address of KANARIA_NOTIFY; the exit code is 1 where one does not take it."""
    settings = Settings()
    if settings.notify is None:
        raise SetupError(
            "nobody is told of decisions",
            saw="KANARIA_NOTIFY is not set",
            do="write addresses into a file, one a line, and name it: docs/notifications.md",
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
