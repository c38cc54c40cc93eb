"""`kanaria key`: keys of the gateway's callers, with a name and scopes."""

from typing import Annotated, Literal

import typer

from contract.http import API_KEY_HEADER, OWN_CALLER
from contract.terminal import Terminal
from kanaria.settings import API_KEY_FILE, Settings
from kanaria.stack.caller_keys import CallerKeys, put_in_force, unlisted
from kanaria.stack.stack import gateway_settings
from rollout.explain.format import date
from rollout.routers.envoy.settings import SCOPES, GatewaySettings

app = typer.Typer(no_args_is_help=True, help="Manage keys of the gateway's callers: each has a name and scopes.")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Name of the caller. Versions get it in x-kanaria-caller.")],
    scope: Annotated[
        Literal["predictions", "feedback", "both"],
        typer.Option(help="Allowed paths. feedback: only /feedback. predictions: all others."),
    ] = "predictions",
    of: Annotated[
        str | None,
        typer.Option(
            help="Key whose answers it labels. Default: itself; with `--scope feedback` the owner's, `default`.",
        ),
    ] = None,
) -> None:
    """Create a key, put it in force and print it."""
    settings = Settings()
    scopes = SCOPES if scope == "both" else (scope,)
    of = of or (OWN_CALLER if scope == "feedback" else None)
    keys = CallerKeys(settings.caller_keys)
    with keys.changing():
        typer.echo(keys.add(name, scopes, labels=of))
        put_in_force(settings, _gateway(settings), change="kept", say=_say)
    typer.secho(f"{name} sends it as {API_KEY_HEADER}; `kanaria key remove {name}` withdraws it", err=True)


@app.command(name="list")
def list_() -> None:
    """Show the keys that the gateway accepts, and their scopes."""
    settings = Settings()
    if not settings.needs_api_key:
        typer.secho("the gateway requires no key (KANARIA_NEEDS_API_KEY=false)", err=True)
    Terminal().print(f"{OWN_CALLER}: {', '.join(SCOPES)}, the owner's, in the file {API_KEY_FILE}")
    for key in CallerKeys(settings.caller_keys).all():
        labelled = f" (answers of {key.labels})" if key.labels else ""
        Terminal().print(f"{key.name}: {', '.join(key.scopes)}{labelled}, since {date(key.made_s)}")
    if names := unlisted(settings, _gateway(settings)):
        _say(
            f"the running gateway also accepts keys that are not listed, under the name {', '.join(names)}; the next "
            "`kanaria key add` or `kanaria up` withdraws them",
        )


@app.command()
def remove(name: Annotated[str, typer.Argument(help="Name of the caller.")]) -> None:
    """Withdraw a key: requests with it are refused from now on."""
    settings = Settings()
    keys = CallerKeys(settings.caller_keys)
    with keys.changing():
        keys.remove(name)
        put_in_force(settings, _gateway(settings), change="removed", say=_say)
    typer.echo(f"the key of {name} is withdrawn")


def _gateway(settings: Settings) -> GatewaySettings:
    return gateway_settings(settings, stats_port=0, with_keys=False)


def _say(text: str) -> None:
    typer.secho(text, err=True)
