"""`kanaria optimise`: saves a model as a new version on the fastest engine that keeps its accuracy."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from contract.terminal import Terminal
from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stack.bentos import model_tag
from kanaria.stack.implementations import implementation_for
from kanaria.stack.signing import verified_model
from rollout.ui.cli import EXIT_DONE, EXIT_FAIL

if TYPE_CHECKING:
    from service.optimise.store import Optimiser

Tolerance = Annotated[float, typer.Option(min=0, max=100, help="Largest loss of accuracy, percentage points.")]
Implementation = Annotated[
    str | None,
    typer.Option(help="Class that loads it, package.module:Class. Default: from its Bento, else ./bentofile.yaml."),
]


def optimise(
    tag: Annotated[str, typer.Argument(help="Model in the store, `name:version`.")],
    *,
    tolerance: Tolerance = 0.5,
    version: Annotated[
        str | None, typer.Option(help="Version of the new model. Default: the old one with -fast.")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="Use this engine, even if it is not the fastest: frozen, bfloat16, onnx or onnx-int8."),
    ] = None,
    implementation: Implementation = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite an existing version of the new model.")] = False,
) -> None:
    """Measure a model on every engine and save it as a new version on the fastest that keeps its accuracy.

    Exit code: 0 saved, 1 the requested engine is refused, 2 bad input.
    """
    from service.engines import Engine  # noqa: PLC0415 - imports torch, which is slow
    from service.optimise.tables import HEADS, rows  # noqa: PLC0415 - likewise

    if engine is not None and engine not in tuple(Engine)[1:]:
        known = ", ".join(tuple(Engine)[1:])
        raise SetupError(f"there is no engine {engine}", saw=f"--engine {engine}", do=f"choose one of {known}")
    tag = model_tag(tag)
    with opened_optimiser(tag, implementation) as optimiser:
        new = optimiser.new_tag(version, replace=replace)
        with Terminal(stderr=True).status(f"measuring {tag}"):
            done = optimiser.compare(tolerance=tolerance / 100, only=Engine(engine) if engine else None)
        table = Table(*HEADS)
        for row in rows(done):
            table.add_row(*row)
        Terminal().print(table)
        if done.chosen is None:
            typer.echo("nothing was saved")
            raise typer.Exit(EXIT_FAIL)
        optimiser.save(done, done.chosen, new)
    typer.echo(f"saved {new}; next: `bentoml build --version {new.version} --arg model={new}`, `kanaria sign {new}`")
    raise typer.Exit(EXIT_DONE)


@contextmanager
def opened_optimiser(tag: str, implementation: str | None) -> Iterator["Optimiser"]:
    """A model to optimise, with a valid signature if it has one. Raises SetupError."""
    from service.optimise.errors import OptimiseError  # noqa: PLC0415 - imports torch
    from service.optimise.store import optimising  # noqa: PLC0415 - likewise

    known, sources = (implementation, Path.cwd()) if implementation else implementation_for(tag)
    sys.path.insert(0, str(sources))  # the model's class is the user's own
    try:
        with verified_model(Settings(), tag) as files, optimising(tag, known, files) as optimiser:
            yield optimiser
    except OptimiseError as error:
        raise SetupError(error.what, saw=error.saw, do=error.do) from error
