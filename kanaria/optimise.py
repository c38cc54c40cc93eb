"""`kanaria optimise`: put a model on the engine that is fastest without losing accuracy, as a new version.

`kanaria bench optimise`: the same measurements on several models, as a page. Nothing is saved then.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml
from rich.console import Console
from rich.table import Table

from kanaria.bentos import model_folder
from kanaria.errors import SetupError
from kanaria.machine import machine
from kanaria.settings import Settings
from kanaria.signing import check_signature
from rollout.cli import EXIT_DONE, EXIT_FAIL

if TYPE_CHECKING:
    from service.optimise.store import Optimiser

BENTOFILE = Path("bentofile.yaml")
Tolerance = Annotated[float, typer.Option(min=0, max=100, help="Most accuracy that may be lost, percentage points.")]
Implementation = Annotated[
    str | None, typer.Option(help="Class that loads it, package.module:Class. Default: ./bentofile.yaml's.")
]


def optimise(
    tag: Annotated[str, typer.Argument(help="Model in the store, `name:version`.")],
    *,
    tolerance: Tolerance = 0.5,
    version: Annotated[str | None, typer.Option(help="Of the new model. Default: the old one with -fast.")] = None,
    engine: Annotated[
        str | None, typer.Option(help="Take this one, however fast: frozen, bfloat16, onnx or onnx-int8.")
    ] = None,
    implementation: Implementation = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite a version of that name.")] = False,
) -> None:
    """Measure a model on every engine and save it as a new version on the fastest that keeps its accuracy.

    Exit code: 0 saved, 1 the engine that was asked for is refused, 2 bad input.
    """
    from service.engines import Engine  # noqa: PLC0415 - imports torch, which no other command should wait for
    from service.optimise.tables import HEADS, rows  # noqa: PLC0415 - likewise

    if engine is not None and engine not in tuple(Engine)[1:]:
        known = ", ".join(tuple(Engine)[1:])
        raise SetupError(f"there is no engine {engine}", saw=f"--engine {engine}", do=f"choose one of {known}")
    with _optimising(tag, implementation) as optimiser:
        new = optimiser.new_tag(version, replace=replace)
        with Console(stderr=True).status(f"measuring {tag}"):
            done = optimiser.compare(tolerance=tolerance / 100, only=Engine(engine) if engine else None)
        table = Table(*HEADS)
        for row in rows(done):
            table.add_row(*row)
        Console().print(table)
        if done.chosen is None:
            typer.echo("nothing was saved")
            raise typer.Exit(EXIT_FAIL)
        optimiser.save(done, done.chosen, new)
    typer.echo(f"saved {new}; next: `kanaria sign {new}`, `bentoml build --version {new.version} --arg model={new}`")
    raise typer.Exit(EXIT_DONE)


def bench_optimise(
    tags: Annotated[list[str], typer.Argument(help="Models in the store, `name:version`.")],
    tolerance: Tolerance = 0.5,
    implementation: Implementation = None,
    write: Annotated[bool, typer.Option("--write", help="Write the page and its chart.")] = False,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("docs/benchmarks"),
) -> None:
    """Measure models on every engine, one after the other; nothing is saved."""
    from service.optimise.tables import HEADS, rows  # noqa: PLC0415 - imports torch

    found = []
    for tag in tags:
        with _optimising(tag, implementation) as optimiser, Console(stderr=True).status(f"measuring {tag}"):
            found.append(optimiser.compare(tolerance=tolerance / 100))
        table = Table(*HEADS, title=tag, title_justify="left")
        for row in rows(found[-1]):
            table.add_row(*row)
        Console().print(table)
    if write:
        from kanaria.optimise_page import FIGURE, PAGE, figure, page  # noqa: PLC0415 - imports torch

        out.mkdir(parents=True, exist_ok=True)
        command = f"kanaria bench optimise {' '.join(tags)} --write"
        (out / PAGE).write_text(page(found, command=command, machine=machine()), "utf-8")
        (out / FIGURE).write_text(figure(found), "utf-8")
        typer.echo(out / PAGE)


@contextmanager
def _optimising(tag: str, implementation: str | None) -> Iterator["Optimiser"]:
    """A model whose signature, where it has one, is good. Raises SetupError."""
    from service.optimise.errors import OptimiseError  # noqa: PLC0415 - imports torch
    from service.optimise.store import optimising  # noqa: PLC0415 - likewise

    check_signature(Settings(), model_folder(tag))
    sys.path.insert(0, str(Path.cwd()))  # the model's class is the user's own
    try:
        with optimising(tag, implementation or _implementation()) as optimiser:
            yield optimiser
    except OptimiseError as error:
        raise SetupError(error.what, saw=error.saw, do=error.do) from error


def _implementation() -> str:
    try:
        return str(yaml.safe_load(BENTOFILE.read_text())["args"]["implementation"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise SetupError(
            "which class loads the model is not known",
            saw=f"{BENTOFILE.absolute()}: {error!r}",
            do="name it with --implementation, or in that file under `args`",
        ) from error
