"""The `kanaria` command: mounts every folder's commands and the local stack's own."""

import getpass
import os
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from kanaria.bench_drift import drift as bench_drift
from kanaria.bench_service import service
from kanaria.dashboards import app as dashboards
from kanaria.demo import Fault, run_demo
from kanaria.drift import drift
from kanaria.errors import SetupError, StackError
from kanaria.optimise import bench_optimise, optimise
from kanaria.safety import preflight, sign
from kanaria.same import same
from kanaria.settings import Settings
from kanaria.stack import Stack
from kanaria.validate import validate
from loadtest.cli import loadtest
from loadtest.errors import LoadTestError
from monitoring.drift.errors import DriftError
from monitoring.errors import MonitoringError, RulesError
from monitoring.rules_cli import app as rules
from rollout.benchmarks.cli import bench
from rollout.cli import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAIL, EXIT_UNDECIDED, Access, explained
from rollout.cli import app as releases
from rollout.simulation.cli import app as simulation

app = typer.Typer(
    name="kanaria",
    help="Release machine-learning models by evidence.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_errors = Console(stderr=True)


def main() -> None:
    """Run the command line; errors on purpose end with a message and their exit code."""
    try:
        app()
    except (StackError, LoadTestError, MonitoringError, OSError, ValidationError) as error:
        if isinstance(error, ValidationError) and error.title != Settings.__name__:
            raise  # no slip of whoever typed the command
        _errors.print(_told(error), style="red", markup=False, highlight=False, soft_wrap=True)
        is_bad_input = isinstance(error, SetupError | RulesError | DriftError | ValidationError)
        raise SystemExit(EXIT_BAD_INPUT if is_bad_input else EXIT_UNDECIDED) from error


def _told(error: Exception) -> str:
    """What happened, what was seen, what to do; our own errors say so themselves."""
    match error:
        case OSError():
            return (
                "the operating system refused\n"
                f"  saw: {error}\n  do:  see to the disk's space and the rights of that path"
            )
        case ValidationError():
            places = "; ".join(
                f"KANARIA_{str(e['loc'][0]).upper()}: {e['msg']}, not {e['input']!r}" for e in error.errors()
            )
            return f"a setting cannot be used\n  saw: {places}\n  do:  correct it in the environment"
    return str(error)


@app.callback()
def _root(
    context: typer.Context,
    home: Annotated[Path | None, typer.Option(help="Folder of all state. Default: $KANARIA_HOME or .kanaria")] = None,
) -> None:
    """Release machine-learning models by evidence."""
    if home is not None:
        os.environ["KANARIA_HOME"] = str(home)
    settings = Settings()
    context.obj = Access(client=lambda: _stack().client, ledger=settings.ledger, reports=settings.reports)


def _stack() -> Stack:
    return Stack(Settings(), by=getpass.getuser())


@app.command()
def up(
    tag: Annotated[str | None, typer.Argument(help="First stable Bento, `name:version`; not needed later.")] = None,
) -> None:
    """Start the local stack: gateway, controller, metrics, the stable version."""
    with explained():
        stack = _stack()
        stack.up(tag, say=typer.echo)
        settings = stack.settings
        typer.echo(
            f"gateway:    {settings.gateway_url}/predict"
            + ("  (x-api-key: see api-key in the state folder)" if settings.needs_api_key else "")
        )
        typer.echo(f"controller: {settings.controller_url}")
        typer.echo(f"state:      {settings.root}")


@app.command()
def down() -> None:
    """Stop the local stack. A running release is aborted first."""
    with explained():
        _stack().down(say=typer.echo)


@app.command()
def demo(
    fault: Annotated[Fault, typer.Option(help="How the bad version fails.")] = "wrong",
) -> None:
    """Tell the whole story on this machine: a better version is promoted, a bad one is rolled back."""
    with explained():
        result = run_demo(fault, Console())
    raise typer.Exit(EXIT_DONE if result.is_as_promised else EXIT_FAIL)


app.add_typer(releases)
app.add_typer(simulation)
app.add_typer(rules, name="rules")
bench.command()(same)
bench.command()(service)
bench.command("drift")(bench_drift)
bench.command("optimise")(bench_optimise)
app.add_typer(bench, name="bench")
app.add_typer(dashboards, name="dashboards")
app.add_typer(drift, name="drift")
app.command()(optimise)
app.command()(sign)
app.command()(preflight)
app.command()(validate)
app.command()(loadtest)
