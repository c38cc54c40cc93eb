"""`kanaria preflight`: try a version out on the side, as a release does before any traffic."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from contract.terminal import say
from kanaria.lazy import load
from rollout.ui.cli import EXIT_DONE, EXIT_FAIL, Json, explained

if TYPE_CHECKING:
    from kanaria.stack.tried_out import TriedOut


def preflight(
    tag: Annotated[str, typer.Argument(help="Version to try out, `name:version`.")],
    against: Annotated[
        str | None, typer.Option(help="Version whose callers it must not break. Default: stable, where there is one.")
    ] = None,
    recorded: Annotated[
        bool,
        typer.Option("--recorded", help="Ask it and stable, started on the side too, the recorded requests again."),
    ] = False,
    leave_out: Annotated[
        list[str] | None, typer.Option(help="With --recorded: a route whose requests are not asked again.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Try a version out on the side, as a release does before any traffic."""
    with explained():
        tried: TriedOut = load("kanaria.stack.tried_out:try_out")(
            tag, against=against, is_recorded=recorded, leave_out=leave_out or ()
        )
        if as_json:
            typer.echo(json.dumps({"tag": tried.tag, "stable": tried.stable, **asdict(tried.result)}, indent=2))
        else:
            typer.echo(f"{tried.tag} {'failed' if tried.result.differences else 'passed'} its preflight")
            for line in load("rollout.explain.why:preflight_lines")(tried.result, tried.stable):
                say(f"  {line}")
        raise typer.Exit(EXIT_FAIL if tried.result.differences else EXIT_DONE)
