"""The `kanaria` command: the commands of all packages, each imported only when it runs."""

import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from contract.terminal import print_error
from kanaria.lazy import LazyGroup, Source, load

if TYPE_CHECKING:
    from rollout.ui.cli import Access


_CRASHED = 2


class Commands(LazyGroup):
    """All commands, in the order of `kanaria --help`."""

    program: ClassVar[str] = "kanaria"
    sources: ClassVar[Mapping[str, Source]] = {
        "up": Source(
            "kanaria.commands.stack:up",
            "Start the local stack: gateway, controller, metrics, the stable version.",
            needs=("serve",),
        ),
        "down": Source(
            "kanaria.commands.stack:down", "Stop the local stack. A running release is aborted.", needs=("serve",)
        ),
        "upgrade": Source(
            "kanaria.commands.stack:upgrade",
            "Restart the controller and the keeper with the code that is installed now.",
            needs=("serve",),
        ),
        "service": Source(
            "kanaria.commands.service:app",
            "Manage a systemd unit that restarts the stack after a reboot.",
            needs=("serve",),
        ),
        "processes": Source(
            "kanaria.commands.processes:app", "Show the stack's processes, restart or stop one.", needs=("serve",)
        ),
        "demo": Source(
            "kanaria.commands.demo:demo",
            "Show a whole release on this machine: a better version is promoted, a bad one is rolled back.",
            needs=("serve", "loadtest", "monitoring"),
        ),
        "optimise": Source(
            "kanaria.commands.optimise:optimise",
            "Measure a model on every engine and save it as a new version on the fastest that keeps its accuracy.",
            needs=("serve",),
        ),
        "sign": Source(
            "kanaria.commands.sign:sign",
            "Sign a Bento's code and models, or a model. A server refuses them if a byte has changed.",
            needs=("serve",),
        ),
        "preflight": Source(
            "kanaria.commands.preflight:preflight",
            "Run a release's preflight on a version: start it on the side and check it before any traffic.",
            needs=("serve",),
        ),
        "record": Source(
            "kanaria.commands.record:record_requests",
            "Record some of users' requests with stable's answers, for the preflight of the next version.",
            needs=("serve",),
        ),
        "validate": Source(
            "kanaria.commands.validate:validate",
            "Check a plan, or whether a model keeps its contract, without doing anything.",
        ),
        "loadtest": Source(
            "kanaria.commands.loadtest:loadtest",
            "Send a scenario's traffic and check the measurements against its gates.",
            needs=("loadtest",),
        ),
        "release": Source(
            "rollout.ui.cli.following:release",
            "Put a Bento on trial: it gets traffic step by step, or is rolled back.",
        ),
        "retry": Source("rollout.ui.cli.following:retry", "Release a Bento again after it was rolled back."),
        "pause": Source(
            "rollout.ui.cli.controlling:pause", "Hold the canary's weight. Evidence against it still rolls it back."
        ),
        "resume": Source("rollout.ui.cli.controlling:resume", "Continue after a pause."),
        "promote": Source(
            "rollout.ui.cli.controlling:promote", "Skip the remaining steps; after promotion, end the watch."
        ),
        "abort": Source("rollout.ui.cli.controlling:abort", "Stop the release: weight 0, no quarantine."),
        "rollback": Source(
            "rollout.ui.cli.controlling:rollback",
            "Return to the previous version; after promotion, as long as it is still warm.",
        ),
        "restore": Source(
            "rollout.ui.cli.following:restore",
            "Give all traffic back to a version that was promoted before, as soon as it is ready.",
        ),
        "status": Source(
            "rollout.ui.cli.following:status", "Show what runs, who gets traffic and what the evidence says."
        ),
        "why": Source("rollout.ui.cli.reading:why", "Explain what was decided about a release, and on which evidence."),
        "history": Source("rollout.ui.cli.reading:history", "List every release with its outcome."),
        "report": Source(
            "rollout.ui.cli.reporting:report",
            "Write a release's report with pictures as one HTML file, and print its path.",
        ),
        "ledger": Source("rollout.ui.cli.ledger:app", "Copies of the ledger: make one, check one, restore one."),
        "judge": Source("kanaria.commands.judge:app", "Judge counts from anywhere: prints the verdict as JSON."),
        "kubernetes": Source("kanaria.commands.kubernetes:app", "Write manifests for Argo Rollouts and Flagger."),
        "simulate": Source(
            "rollout.simulate.cli:simulate",
            "Simulate releases with this plan and your traffic: how often a harmless canary is rolled back, how soon "
            "a harmful one is stopped, how much it harms, and how long a promotion takes.",
        ),
        "rules": Source("monitoring.slo.cli:app", "Prometheus rules of the service level objectives and alerts."),
        "sbom": Source(
            "kanaria.commands.sbom:sbom",
            "Write a bill of materials (CycloneDX 1.6, JSON): packages, models, and the hash of every file.",
            needs=("audit",),
        ),
        "token": Source(
            "kanaria.commands.token:app",
            "Manage personal tokens: each has a name and a role, for commands to the controller.",
            needs=("serve",),
        ),
        "key": Source(
            "kanaria.commands.key:app",
            "Manage keys of the gateway's callers: each has a name and scopes.",
            needs=("serve",),
        ),
        "notify": Source(
            "kanaria.commands.notify:app", "Check that notifications about decisions arrive.", needs=("serve",)
        ),
        "dashboards": Source(
            "kanaria.commands.dashboards:app", "Grafana's boards as code: generate, push, check.", needs=("monitoring",)
        ),
        "drift": Source(
            "kanaria.commands.drift:drift",
            "Compare the traffic with what a model was tested on, and a canary with stable.",
            needs=("monitoring",),
        ),
    }


app = typer.Typer(
    cls=Commands,
    name="kanaria",
    help="Release machine-learning models by evidence.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the `kanaria` command."""
    run(app)


def run(commands: typer.Typer) -> None:
    """Run a command line. Expected errors end with a message and their exit code, others with a traceback and 2.

    Python's exit code of a crash, 1, would be a result: rolled back, drift, a broken gate.
    """
    try:
        commands()
    except Exception as error:  # noqa: BLE001 - the exit code of any error must not be a result
        if not load("kanaria.failures:is_expected")(error):
            traceback.print_exc()
            print_error("this is a bug in Kanaria: report it with the lines above")
            sys.exit(_CRASHED)
        text = load("kanaria.failures:message")(error)
        print_error(text)
        sys.exit(load("kanaria.failures:code")(error))


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version  # noqa: PLC0415 - slow: it imports `email`

        typer.echo(f"kanaria {version('kanaria')}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    home: Annotated[Path | None, typer.Option(help="State folder. Default: $KANARIA_HOME or .kanaria")] = None,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Release machine-learning models by evidence."""
    if any(name.startswith("KANARIA_") and name != "KANARIA_HOME" for name in os.environ):
        for sentence in load("kanaria.variables:unknown")(os.environ):
            typer.secho(f"note: {sentence}", fg="yellow", err=True)
    if home is not None:
        os.environ["KANARIA_HOME"] = str(home)
    context.obj = _access


def _access() -> "Access":
    """How commands reach the deployment. Read only on demand: most commands do not need it."""
    found: Access = load("kanaria.access:access")()
    return found
