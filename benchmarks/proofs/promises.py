"""`python -m benchmarks promises`: simulates every promise of the judge and compares it with what was measured.

The judge's own tests contain small versions of these simulations.
"""

import inspect
from collections.abc import Iterator
from itertools import chain

import typer

from benchmarks.output import FOLDER, Jobs, Out, Write
from benchmarks.proofs.chapters import CHAPTERS, Row, Study
from benchmarks.proofs.sections import (
    Only,
    Scale,
    Section,
    chosen_chapters,
    page_command,
    publish,
    simulated,
    workers_for,
)
from rollout.ui.cli import EXIT_DONE, EXIT_FAIL

PAGE = "judge-promises.md"
HEADS = ("", "promised", "measured", "")


def preface(command: str) -> str:
    """The text above the chapters."""
    return f"""\
# What the judge promises, and what it keeps

Written by `{command}`. At full scale this takes about twenty minutes on two cores.

Traffic is simulated and seeded. The judge is the real one, and in whole releases the decisions, the steps and the state
are real, too. There are 20 requests a second, 2 of them to the canary, unless a row says otherwise. In brackets: 95 %
confidence intervals, of shares after Clopper and Pearson, of quantiles by order statistics. *Within error*: over the
promise, but not by more than chance explains."""


def section(name: str, study: Study, rows: list[Row]) -> Section:
    """One chapter. Its rows are added to `rows` as they are simulated."""
    title, rows_of = CHAPTERS[name]

    def cells() -> Iterator[tuple[str, ...]]:
        for row in rows_of(study):
            rows.append(row)
            yield row.what, row.promised, row.measured, f"**{row.status}**" if row.status == "broken" else row.status

    return Section(f"## {title}\n\n{inspect.getdoc(rows_of)}", HEADS, cells())


def promises(
    only: Only = None,
    scale: Scale = 1.0,
    jobs: Jobs = None,
    write: Write = False,
    out: Out = FOLDER,
) -> None:
    """Simulate what the judge promises. Chapters: false-rollbacks, detection, harm, arrivals, watch, models, cost.

    Prints the page as Markdown, chapter by chapter, without `--write`. Exit code: 0 all promises are kept, 1 a promise
    is broken, 2 bad input.
    """
    names = chosen_chapters(CHAPTERS, only, write=write)
    rows: list[Row] = []
    with workers_for(jobs) as workers:
        found = (simulated(section(name, Study(workers, scale), rows)) for name in names)
        publish(chain([preface(page_command("promises", scale))], found), PAGE, out, write=write)
    raise typer.Exit(EXIT_FAIL if any(row.status == "broken" for row in rows) else EXIT_DONE)
