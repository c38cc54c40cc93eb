"""The commands that control a release. They show no status: importing its types takes longer than the commands."""

from typing import Annotated

import typer

from contract.terminal import Terminal
from rollout.ui.cli.conventions import access_of, explained

console = Terminal()

Reason = Annotated[str | None, typer.Option(help="The reason; it is stored in the ledger.")]


def pause(context: typer.Context, reason: Reason = None) -> None:
    """Hold the canary's weight. Evidence against it still rolls it back."""
    _command(context, "pause", reason)


def resume(context: typer.Context) -> None:
    """Continue after a pause."""
    _command(context, "resume")


def promote(context: typer.Context) -> None:
    """Skip the remaining steps; after promotion, end the watch."""
    _command(context, "promote")


def abort(context: typer.Context, reason: Reason = None) -> None:
    """Stop the release: weight 0, no quarantine."""
    _command(context, "abort", reason)


def rollback(context: typer.Context, reason: Reason = None) -> None:
    """Return to the previous version; after promotion, as long as it is still warm."""
    _command(context, "rollback", reason)


def _command(context: typer.Context, name: str, reason: str | None = None) -> None:
    with explained():
        troubles = access_of(context).client().command(name, reason=reason)
        console.print(f"{name}: done")
        for trouble in troubles:
            console.print(f"but {trouble}")
