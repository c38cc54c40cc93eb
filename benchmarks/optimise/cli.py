"""`python -m benchmarks optimise`: measures models on every engine for a page. Nothing is saved in the store."""

from typing import Annotated

import typer

from benchmarks.machine import machine
from benchmarks.optimise.page import CHART, PAGE, chart_of, page
from benchmarks.output import FOLDER, Out, Write, command_line, show_table, write_files
from contract.terminal import Terminal
from kanaria.commands.optimise import Implementation, Tolerance, opened_optimiser
from service.optimise.tables import HEADS, rows

_TOLERANCE = 0.5  # percentage points


def optimise(
    tags: Annotated[list[str], typer.Argument(help="Models in the store, `name:version`.")],
    tolerance: Tolerance = _TOLERANCE,
    implementation: Implementation = None,
    write: Write = False,
    out: Out = FOLDER,
) -> None:
    """Measure models on every engine, one after the other; nothing is saved."""
    found = []
    where = machine()
    for tag in tags:
        with opened_optimiser(tag, implementation) as optimiser, Terminal(stderr=True).status(f"measuring {tag}"):
            found.append(optimiser.compare(tolerance=tolerance / 100))
        show_table(HEADS, rows(found[-1]), title=tag)
    if write:
        options = (("--tolerance", tolerance, _TOLERANCE), ("--implementation", implementation, None))
        command = command_line(f"optimise {' '.join(tags)}", *options)
        write_files(out, {PAGE: page(found, command=command, machine=where), CHART: chart_of(found)})
