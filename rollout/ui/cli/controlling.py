"""The commands that talk to the controller: start a release, steer it, show its status."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live

from contract.terminal import Terminal
from rollout.errors import ControllerUnreachable
from rollout.ui import terminal
from rollout.ui.cli.conventions import EXIT_DONE, EXIT_FAIL, Access, Json, access_of, explained
from rollout.ui.cli.plan import SpecOption, read_spec, warn
from rollout.ui.cli.reading import find_release
from rollout.ui.client import ControllerClient

_POLL_S = 0.5
_PATIENCE_S = 60.0  # a controller that was killed is back long before that

console = Terminal()

Reason = Annotated[str | None, typer.Option(help="The reason; it is kept in the ledger.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for promotion or rollback; the exit code tells which.")]


def release(
    context: typer.Context,
    tag: Annotated[str, typer.Argument(help="Bento to release, `name:version`.")],
    spec: SpecOption = None,
    wait: Wait = False,
) -> None:
    """Put a Bento on trial: it earns traffic step by step, or is rolled back."""
    with explained():
        _start(access_of(context), tag, spec, wait=wait, retry=False)


def retry(
    context: typer.Context,
    tag: Annotated[str, typer.Argument(help="Bento in quarantine, `name:version`.")],
    spec: SpecOption = None,
    wait: Wait = False,
) -> None:
    """Release a Bento again that was rolled back."""
    with explained():
        _start(access_of(context), tag, spec, wait=wait, retry=True)


def pause(context: typer.Context, reason: Reason = None) -> None:
    """Hold the canary's weight. Evidence against it still rolls it back."""
    _command(context, "pause", reason)


def resume(context: typer.Context) -> None:
    """Continue after a pause."""
    _command(context, "resume")


def promote(context: typer.Context) -> None:
    """Skip the remaining steps; after promotion: end the watch."""
    _command(context, "promote")


def abort(context: typer.Context, reason: Reason = None) -> None:
    """Stop the release: weight 0, no quarantine."""
    _command(context, "abort", reason)


def rollback(context: typer.Context, reason: Reason = None) -> None:
    """Return to the previous version; also after promotion, while it is still warm."""
    _command(context, "rollback", reason)


def status(
    context: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep it on the screen until Ctrl-C.")] = False,
    as_json: Json = False,
) -> None:
    """Show what runs, who gets traffic and what the evidence says."""
    with explained():
        client = access_of(context).client()
        if as_json:
            typer.echo(client.status().model_dump_json(indent=2))
        elif watch:
            _watch(client)
        else:
            console.print(terminal.status(client.status()))


def _command(context: typer.Context, name: str, reason: str | None = None) -> None:
    with explained():
        troubles = access_of(context).client().command(name, reason=reason)
        console.print(f"{name}: done")
        for trouble in troubles:
            console.print(f"but {trouble}")


def _start(access: Access, tag: str, spec: Path | None, *, wait: bool, retry: bool) -> None:
    client, tag = access.client(), access.full_tag(tag)
    plan = read_spec(spec)
    warn(plan)
    number = client.release(tag, plan, retry=retry)
    console.print(f"release {number}: {tag} is on trial; `kanaria status --watch` shows it, `kanaria why` explains it")
    if wait:
        raise typer.Exit(_wait(client, access, number))


def _wait(client: ControllerClient, access: Access, number: int) -> int:
    """Follow a release to its end, also across a restart of the controller."""
    shown = 0
    last_answer_s = time.monotonic()
    while True:
        try:
            status = client.status()
            last_answer_s = time.monotonic()
        except ControllerUnreachable:
            if time.monotonic() - last_answer_s > _PATIENCE_S:
                raise
            time.sleep(_POLL_S)
            continue
        release = find_release(access.ledger, str(number))
        for decision in release.decisions[shown:]:
            console.print(terminal.decision(decision))
        shown = len(release.decisions)
        if status.release and status.release.number == number and status.release.outcome:
            return EXIT_DONE if status.release.outcome == "promoted" else EXIT_FAIL
        time.sleep(_POLL_S)


def _watch(client: ControllerClient) -> None:
    """Show the status again every second until Ctrl-C, or the error where the controller does not answer."""
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live, suppress(KeyboardInterrupt):
        while True:
            try:
                picture = terminal.status(client.status())
            except ControllerUnreachable as error:
                picture = str(error)
            live.update(picture, refresh=True)
            time.sleep(1.0)
