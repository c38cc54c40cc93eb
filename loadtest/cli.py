"""`kanaria loadtest`: one scenario, from the terminal to an exit code.

Mounted by the composition root. Knows no Locust: the run happens in a process of its own.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from loadtest.errors import GeneratorError, LoadTestError
from loadtest.paths import REPORT, default_samples, new_out_dir
from loadtest.process import run
from loadtest.results import ExitCode, Live
from loadtest.scenario import known_scenarios, load_scenario
from loadtest.tables import print_summary
from loadtest.target import read_api_key

app = typer.Typer(add_completion=False)


@app.command()
def loadtest(
    scenario: Annotated[str, typer.Argument(help=f"One of {', '.join(known_scenarios())}, or a YAML file.")],
    *,
    host: Annotated[str, typer.Option(help="Base URL of the gateway or the service.")] = "http://127.0.0.1:8080",
    samples: Annotated[
        Path | None,
        typer.Option(help="Rows with true labels, JSON lines. Default: $KANARIA_SAMPLES, else .kanaria/samples.jsonl."),
    ] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="File with the API key. Default: $KANARIA_API_KEY.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results. Default: a new one in .kanaria/loadtest.")
    ] = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Allow a host that is not this machine.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON on standard output.")] = False,
) -> None:
    """Send a scenario's traffic and hold its gates against what was measured.

    Requests leave when the scenario says so, however slow the server is, and latency is measured from then.
    Exit code: 0 every gate holds, 1 a gate is broken, 2 bad input, 3 nothing was measured.
    """
    errors = Console(stderr=True)
    try:
        plan = load_scenario(scenario)
        out_dir = out or new_out_dir(plan.name)
        with _progress(errors) as bar:
            task = bar.add_task(plan.name, total=plan.duration_s, counts="starting")

            def show(live: Live) -> None:
                counts = (
                    f"{live.requests:,} requests, {live.failures:,} failed, {live.slipped:,} late, "
                    f"p99 {live.recent_p99_ms:.0f} ms"
                )
                bar.update(task, completed=min(live.elapsed_s, plan.duration_s), counts=counts)

            summary = run(
                plan,
                host=host,
                samples=samples or default_samples(),
                out_dir=out_dir,
                api_key=read_api_key(api_key_file),
                allow_remote=allow_remote,
                on_live=show,
            )
    except LoadTestError as error:
        errors.print(f"loadtest: {error}", markup=False, highlight=False, soft_wrap=True)
        is_ours = isinstance(error, GeneratorError)
        raise typer.Exit(ExitCode.NOTHING_MEASURED if is_ours else ExitCode.BAD_INPUT) from error
    if json:
        typer.echo(summary.model_dump_json(indent=2))
    else:
        print_summary(summary, Console(), report=out_dir / REPORT)
    raise typer.Exit(summary.exit_code)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.fields[counts]}"), console=console, transient=True)
