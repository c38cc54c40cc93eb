"""`kanaria drift`: compares the prediction log with a model's test data, and a canary with stable.

A comparison takes memory and seconds, so the drift schedule runs these commands in separate processes.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import TypeAdapter, ValidationError
from rich.table import Table

from contract.errors import KanariaError
from contract.terminal import Terminal, print_error, say
from kanaria.errors import SetupError
from kanaria.failures import message
from kanaria.lazy import load
from kanaria.settings import Settings
from kanaria.stack.bentos import model_folder
from kanaria.stack.drift_results import result_path
from monitoring.drift.result import DriftResult, State, read_result, write_result
from rollout.format import sentence
from rollout.ui.cli import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAIL, EXIT_UNDECIDED, Json, explained
from rollout.ui.cli.reading import find_release, stable_version
from rollout.units import Seconds

if TYPE_CHECKING:
    from monitoring.drift.compare import Comparison, Logs
    from monitoring.drift.evidently_report import Written

drift = typer.Typer(help="Compare the traffic with what a model was tested on, and a canary with stable.")
_EXITS = {State.NO_DRIFT: EXIT_DONE, State.DRIFT: EXIT_FAIL, State.TOO_FEW_ROWS: EXIT_UNDECIDED}
_SHOWN_COLUMNS = 12
_ARROWS = {"up": "↑", "down": "↓", "shape": ""}

Last = Annotated[str, typer.Option(help="How far back to look, such as 15m, 1h, 3d.")]
Version = Annotated[str | None, typer.Option(help="Version whose traffic is compared. Default: stable.")]
Quick = Annotated[bool, typer.Option("--quick", help="Leave out Evidently's pages, which take most of the time.")]


@drift.command()
def report(
    last: Last = "1h",
    version: Version = None,
    release: Annotated[
        str | None, typer.Option(help="Compare the canary of this release (number or tag) with stable instead.")
    ] = None,
    quick: Quick = False,
    as_json: Json = False,
) -> None:
    """Report drift once. Exit code 0: none, 1: drift, 2: bad input or an error, 3: too few rows to tell."""
    with _never_a_result():
        settings = Settings()
        if version is not None and release is not None:
            raise SetupError(
                "a report compares either the traffic of a version or the canary of a release",
                saw=f"--version {version} and --release {release}",
                do="leave one of them out",
            )
        comparison = _data(settings, seconds(last), version) if release is None else _release(settings, release)
        result = comparison.result
        path = result_path(settings, result.kind, version)
        write_result(result, path)
        pages = () if quick or result.state is State.TOO_FEW_ROWS else _pages(comparison, settings, path)
    if as_json:
        typer.echo(result.model_dump_json(indent=2))
    else:
        _show(result, (*pages, path))
    raise typer.Exit(_EXITS[result.state])


@drift.command()
def watch(
    every: Annotated[str, typer.Option(help="How often to look, such as 30s, 5m.")] = "1m",
    last: Last = "15m",
    version: Version = None,
) -> None:
    """Print the drift of the traffic repeatedly until Ctrl-C. Writes no pages."""
    with explained(), suppress(KeyboardInterrupt):
        settings, every_s, last_s = Settings(), seconds(every), seconds(last)
        while True:
            result = _data(settings, last_s, version).result
            write_result(result, result_path(settings, "data", version))
            say(f"{time.strftime('%H:%M:%S')} {result.state.value}: {result.sentence}")
            time.sleep(every_s)


@contextmanager
def _never_a_result() -> Iterator[None]:
    """Let every error end a report with 2: for a report, 3 means too few rows."""
    try:
        yield
    except (KanariaError, OSError) as error:
        print_error(message(error))
        raise typer.Exit(EXIT_BAD_INPUT) from error


def seconds(text: str) -> float:
    """Parse a duration such as `15m` into seconds. Raises SetupError."""
    try:
        return TypeAdapter[float](Seconds).validate_python(text)
    except ValidationError as error:
        raise SetupError(
            "this is not a valid duration", saw=repr(text), do="write for example 30s, 15m, 1h or 3d, at most 7d"
        ) from error


def _data(settings: Settings, last_s: float, version: str | None) -> "Comparison":
    """Compare traffic with the reference data of its model. Raises SetupError, DriftError."""
    from monitoring.drift import compare, sample  # noqa: PLC0415 - scipy takes a second to import
    from monitoring.drift.rule import Rule  # noqa: PLC0415 - likewise

    logs = sample.version_logs(settings.predictions)
    wanted = version or stable_version(settings.ledger) or next(iter(logs))
    if wanted in logs and not logs[wanted].columns.model:
        raise SetupError(
            f"there is no reference data for {wanted}: it does not keep the model contract",
            saw="a prediction log without a model",
            do="compare a canary with stable: `kanaria drift report --release N`",
        )
    folder = model_folder(logs[wanted].columns.model) if wanted in logs else Path()
    now_s = time.time()
    return compare.data_drift(_logs(settings), wanted, folder, compare.Period(now_s - last_s, now_s), Rule())


def _release(settings: Settings, which: str) -> "Comparison":
    """Compare a canary with stable during its release. Raises SetupError, RolloutError, DriftError."""
    from monitoring.drift import compare  # noqa: PLC0415 - as above
    from monitoring.drift.rule import Rule  # noqa: PLC0415 - likewise

    found = find_release(settings.ledger, which)
    if not found.steps:
        raise SetupError(
            f"{found.canary} got no request in release {found.number}",
            saw=f"it is {found.outcome}",
            do="wait for its first step (`kanaria status --watch`)",
        )
    period = compare.Period(found.steps[0].from_s, found.ended_s or time.time())
    before = read_result(result_path(settings, "release"))
    number = 1
    if before is not None and (before.version, before.since_s) == (found.canary, period.since_s):
        number = before.look + (period.until_s > before.until_s)  # the same rows are not a new test
    return compare.release_drift(_logs(settings), found.canary, found.stable, period, Rule(), number=number)


def _logs(settings: Settings) -> "Logs":
    from monitoring.drift.compare import Logs  # noqa: PLC0415 - as above

    return Logs(predictions=settings.predictions, answers=settings.answers)


def _pages(comparison: "Comparison", settings: Settings, path: Path) -> tuple[Path, ...]:
    write_report = load("monitoring.drift.evidently_report:write_report")  # takes seconds to import
    written: Written = write_report(comparison, path.with_suffix(".html"), settings.drift / "workspace")
    if written.set_aside:
        typer.echo(
            "the history of drift reports cannot be read: a report was killed while it wrote it\n"
            f"  saw: half-written files in {settings.drift / 'workspace'}\n"
            f"  do:  nothing: a new history begins. The old one is in {written.set_aside}",
            err=True,
        )
    return written.pages


def _show(result: DriftResult, written: tuple[Path, ...]) -> None:
    console = Terminal()
    colour = {State.NO_DRIFT: "green", State.DRIFT: "red", State.TOO_FEW_ROWS: "yellow"}[result.state]
    console.print(f"{sentence(result.sentence)}.", style=f"bold {colour}")
    console.print(result.size)
    if result.columns:
        table = Table("column", "", "changed", "score", "threshold", "p, corrected", "")
        for column in result.columns[:_SHOWN_COLUMNS]:
            table.add_row(
                column.column,
                _ARROWS[column.direction],
                column.says,
                f"{column.score:.3f}",
                f"{column.threshold:g}",
                f"{column.p_value:.2g}",
                "drifted" if column.has_drifted else "",
            )
        console.print(table)
        if len(result.columns) > _SHOWN_COLUMNS:
            console.print(f"... and {len(result.columns) - _SHOWN_COLUMNS} columns with lower scores")
    for line in result.left_out:
        console.print(f"not compared: {line}")
    for path in written:
        console.print(f"read: {path}", soft_wrap=True)
