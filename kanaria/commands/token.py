"""`kanaria token`: tokens with a name and a role, for people who command the controller."""

from typing import Annotated

import typer

from contract.terminal import Terminal
from kanaria.settings import Settings
from kanaria.stack.named_tokens import NamedTokens
from rollout.explain.format import date
from rollout.ui.callers import Role

app = typer.Typer(no_args_is_help=True, help="Tokens with a name and a role, for people who command the controller.")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Who gets it: the ledger calls what is done with it by this name.")],
    role: Annotated[
        Role,
        typer.Option(
            help="reader: nothing but to read. releaser: release, pause, resume, abort, roll back, restore. approver: "
            "promote and retry, too."
        ),
    ] = "releaser",
) -> None:
    """Make a token and print it, this once: what is kept does not tell it."""
    token = NamedTokens(Settings().named_tokens).add(name, role)
    typer.echo(token)
    typer.secho(f"{name} sets KANARIA_MY_TOKEN to it; `kanaria token remove {name}` withdraws it", err=True)


@app.command(name="list")
def list_() -> None:
    """Show who has a token."""
    tokens = NamedTokens(Settings().named_tokens).all()
    for token in tokens:
        Terminal().print(f"{token.name}: {token.role}, since {date(token.made_s)}")
    if not tokens:
        typer.echo("nobody has a token but the owner of the state folder (`token` in it)")


@app.command()
def remove(name: Annotated[str, typer.Argument(help="Who has it.")]) -> None:
    """Withdraw a token: commands with it are refused from now on."""
    NamedTokens(Settings().named_tokens).remove(name)
    typer.echo(f"the token of {name} is withdrawn")
