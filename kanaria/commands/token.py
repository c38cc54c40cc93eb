"""`kanaria token`: personal tokens with a name and a role, for commands to the controller."""

from typing import Annotated

import typer

from contract.terminal import Terminal
from kanaria.settings import Settings
from kanaria.stack.named_tokens import NamedTokens
from rollout.explain.format import date
from rollout.ui.callers import Role

app = typer.Typer(
    no_args_is_help=True, help="Manage personal tokens: each has a name and a role, for commands to the controller."
)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Who gets it. The ledger records this name with each action.")],
    role: Annotated[
        Role,
        typer.Option(
            help="reader: read only. releaser: release, pause, resume, abort, roll back, restore. approver: also "
            "promote and retry."
        ),
    ] = "releaser",
) -> None:
    """Create a token and print it. It cannot be shown again: only its hash is stored."""
    token = NamedTokens(Settings().named_tokens).add(name, role)
    typer.echo(token)
    typer.secho(f"{name} sets KANARIA_MY_TOKEN to it; `kanaria token remove {name}` withdraws it", err=True)


@app.command(name="list")
def list_() -> None:
    """List the owners of tokens, with role and date."""
    tokens = NamedTokens(Settings().named_tokens).all()
    for token in tokens:
        Terminal().print(f"{token.name}: {token.role}, since {date(token.made_s)}")
    if not tokens:
        typer.echo("only the owner of the state folder has a token (the file `token` in it)")


@app.command()
def remove(name: Annotated[str, typer.Argument(help="Name of its owner.")]) -> None:
    """Withdraw a token: commands with it are refused from now on."""
    NamedTokens(Settings().named_tokens).remove(name)
    typer.echo(f"the token of {name} is withdrawn")
