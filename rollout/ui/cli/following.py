"""The commands that start a release and show its progress; those that control it are in `controlling`."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live

from contract.terminal import Terminal
from rollout.errors import ControllerUnreachable
from rollout.ui import terminal
from rollout.ui.cli.controlling import Reason
from rollout.ui.cli.conventions import EXIT_DONE, EXIT_FAIL, EXIT_UNDECIDED, Access, Json, access_of, explained
from rollout.ui.cli.plan import SpecOption, look_at_stable, read_spec, warn
from rollout.ui.client import ControllerClient
from rollout.ui.views import DecisionView, StatusView

_POLL_S = 0.5
_PATIENCE_S = 60.0  # a controller that was killed is back long before this time
_LEAVES_WITHIN_S = 120.0  # the canary's requests have 30 s, and then its process has 30 s to end

console = Terminal()

Wait = Annotated[bool, typer.Option("--wait", help="Wait for promotion or rollback; the exit code says which.")]


def release(
    context: typer.Context,
    tag: Annotated[str, typer.Argument(help="Bento to release, `name:version`.")],
    spec: SpecOption = None,
    wait: Wait = False,
) -> None:
    """Put a Bento on trial: it gets traffic step by step, or is rolled back."""
    with explained():
        _start(access_of(context), tag, spec, wait=wait, retry=False)


def retry(
    context: typer.Context,
    tag: Annotated[str, typer.Argument(help="Bento in quarantine, `name:version`.")],
    spec: SpecOption = None,
    wait: Wait = False,
) -> None:
    """Release a Bento again after it was rolled back."""
    with explained():
        _start(access_of(context), tag, spec, wait=wait, retry=True)


def restore(
    context: typer.Context,
    tag: Annotated[str, typer.Argument(help="A version that was promoted here before, `name:version`.")],
    *,
    quarantine: Annotated[
        bool,
        typer.Option("--quarantine", help="Put the replaced version into quarantine: it does not come back by itself."),
    ] = False,
    anyway: Annotated[
        bool,
        typer.Option(
            "--anyway",
            help="Restore it whatever its preflight finds, such as today's requests that it refuses; the ledger notes "
            "it.",
        ),
    ] = False,
    reason: Reason = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until it has all traffic or has failed; the exit code says which.")
    ] = False,
) -> None:
    """Give all traffic back to a version that was promoted before, as soon as it is ready."""
    with explained():
        access = access_of(context)
        client, tag = access.client(), access.full_tag(tag)
        _wait_for_last_requests(client)
        number = client.restore(tag, reason=reason, quarantine=quarantine, anyway=anyway)
        seen = client.status()
        for trouble in seen.troubles:
            console.print(f"but {trouble}")
        if _is_restored(seen, tag):
            console.print(f"{tag} has all traffic again; `kanaria why` says what was decided")
            return
        console.print(
            f"release {number}: {tag} takes all traffic as soon as it is ready; `kanaria status --watch` shows it"
        )
        if wait:
            over = _wait(client, number)
            raise typer.Exit(EXIT_DONE if _is_restored(over, tag) else EXIT_FAIL)


def _wait_for_last_requests(client: ControllerClient) -> None:
    """Wait while a canary is leaving: after `--wait` the next command may follow at once.

    If the canary does not leave, the controller refuses the command.
    """
    from rollout.ledger.state import Phase  # noqa: PLC0415 - slow, and a status does not need it

    said, end_s = False, time.monotonic() + _LEAVES_WITHIN_S
    while (now := client.status().release) and now.phase == Phase.LEAVING.value and time.monotonic() < end_s:
        if not said:
            console.print(f"waiting for {now.canary}, which is answering its last requests")
        said = True
        time.sleep(_POLL_S)


def _is_restored(status: StatusView, tag: str) -> bool:
    return status.stable is not None and status.stable.tag == tag


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


def _start(access: Access, tag: str, spec: Path | None, *, wait: bool, retry: bool) -> None:
    client, tag = access.client(), access.full_tag(tag)
    plan = read_spec(spec)
    warn(plan)
    look_at_stable(plan, lambda: client)
    _wait_for_last_requests(client)
    number = client.release(tag, plan, retry=retry)
    console.print(f"release {number}: {tag} is on trial; `kanaria status --watch` shows it, `kanaria why` explains it")
    if wait:
        over = _wait(client, number).release
        raise typer.Exit(EXIT_DONE if over and over.outcome == "promoted" else EXIT_FAIL)


def _wait(client: ControllerClient, number: int) -> StatusView:
    """Follow a release to its end, even across a restart of the controller and from a machine without its ledger.

    Raises: typer.Exit if another release began before the end of this one was seen.
    """
    shown: set[DecisionView] = set()
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
        release = status.release
        if release and release.number > number:
            console.print(
                f"release {release.number} began meanwhile; `kanaria history` shows how release {number} ended"
            )
            raise typer.Exit(EXIT_UNDECIDED)
        if release and release.number == number:
            for decision in release.decisions:
                if decision not in shown:
                    console.print(terminal.decision(decision))
                shown.add(decision)
            if release.outcome:
                return status
        time.sleep(_POLL_S)


def _watch(client: ControllerClient) -> None:
    """Show the status every second until Ctrl-C, or the error if the controller does not answer."""
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live, suppress(KeyboardInterrupt):
        while True:
            try:
                picture = terminal.status(client.status(waits=False))
            except ControllerUnreachable as error:
                picture = str(error)
            live.update(picture, refresh=True)
            time.sleep(1.0)
