"""`kanaria preflight`: runs the preflight of a release on a version that is started on the side."""

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
    tag: Annotated[str, typer.Argument(help="Version to check, `name:version`.")],
    against: Annotated[
        str | None, typer.Option(help="Version whose callers it must not break. Default: stable, if there is one.")
    ] = None,
    recorded: Annotated[
        bool,
        typer.Option("--recorded", help="Replay the recorded requests to it and to stable, which is started too."),
    ] = False,
    leave_out: Annotated[
        list[str] | None, typer.Option(help="With --recorded: a route whose requests are not replayed.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a release's preflight on a version: start it on the side and check it before any traffic."""
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
