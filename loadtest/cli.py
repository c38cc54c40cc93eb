"""`kanaria loadtest`: runs one scenario in its own Locust process and ends with an exit code."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from contract.terminal import Terminal, print_error
from loadtest.errors import GeneratorError, LoadTestError
from loadtest.paths import REPORT, default_samples, new_out_dir
from loadtest.process import run
from loadtest.results import ExitCode, Live
from loadtest.scenario import known_scenarios, load_scenario
from loadtest.tables import print_summary
from loadtest.target import read_api_key

_HOST = "http://127.0.0.1:8080"
_SAID_EVERY_S = 10.0  # between lines of progress if no bar can be drawn

app = typer.Typer(add_completion=False)


@app.command()
def loadtest(
    scenario: Annotated[str, typer.Argument(help=f"One of {', '.join(known_scenarios())}, or a YAML file.")],
    *,
    host: Annotated[
        str | None, typer.Option(help="Base URL of the gateway or the service. Default: the running stack's gateway.")
    ] = None,
    samples: Annotated[
        Path | None,
        typer.Option(
            help="Rows with true labels, JSON lines. Default: $KANARIA_SAMPLES, else .kanaria/samples.jsonl, else "
            "those of the stable version's model."
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="File with the API key. Default: $KANARIA_API_KEY, else, without --host, the stack's own."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results. Default: a new one in .kanaria/loadtest.")
    ] = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Allow a host that is not this machine.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON on standard output.")] = False,
) -> None:
    """Send a scenario's traffic and check the measurements against its gates.

    Requests are sent at the scheduled times, however slow the server is, and latency is measured from those times.
    Exit code: 0 every gate holds, 1 a gate is broken, 2 bad input, 3 nothing was measured.
    """
    try:
        plan = load_scenario(scenario)
        out_dir = out or new_out_dir(plan.name)
        with _stopped_by_sigterm(), _progress() as bar:
            task = bar.add_task(plan.name, total=plan.duration_s, counts="starting")
            said_s = 0.0

            def show(live: Live) -> None:
                nonlocal said_s
                counts = (
                    f"{live.requests:,} requests, {live.failures:,} failed, {live.slipped:,} late, "
                    f"p99 {live.recent_p99_ms:.0f} ms"
                )
                bar.update(task, completed=min(live.elapsed_s, plan.duration_s), counts=counts)
                if not bar.console.is_terminal and live.elapsed_s >= said_s:
                    said_s = live.elapsed_s + _SAID_EVERY_S
                    why = f"; last failure: {live.last_failure.message}" if live.last_failure else ""
                    typer.echo(f"{plan.name}: {live.elapsed_s:.0f} of {plan.duration_s:.0f} s, {counts}{why}", err=True)

            summary = run(
                plan,
                host=host or _HOST,
                samples=samples or default_samples(),
                out_dir=out_dir,
                api_key=read_api_key(api_key_file),
                allow_remote=allow_remote,
                on_live=show,
            )
    except LoadTestError as error:
        print_error(f"loadtest: {error}")
        is_ours = isinstance(error, GeneratorError)
        raise typer.Exit(ExitCode.NOTHING_MEASURED if is_ours else ExitCode.BAD_INPUT) from error
    if json:
        typer.echo(summary.model_dump_json(indent=2))
    else:
        print_summary(summary, Terminal(), report=out_dir / REPORT)
    raise typer.Exit(summary.exit_code)


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C, so that the generator, a separate process, does not continue alone."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(
        *columns, TextColumn("{task.fields[counts]}", markup=False), console=Terminal(stderr=True), transient=True
    )
