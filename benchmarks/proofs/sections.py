"""Sections of a page about simulations, and the options of the commands that write such a page."""

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.markdown import table
from benchmarks.output import command_line, write_files
from contract.terminal import Terminal
from kanaria.errors import SetupError
from rollout.simulate.parallel import Workers

Only = Annotated[list[str] | None, typer.Option(help="Simulate this chapter only; may be repeated. Not with --write.")]
Scale = Annotated[float, typer.Option(min=0, help="Factor on every number of releases.")]


@dataclass(frozen=True, slots=True)
class Section:
    """A text and the table below it. The rows are simulated while they are read."""

    text: str
    heads: Sequence[str]
    rows: Iterable[Sequence[str]]


def chosen_chapters(chapters: Iterable[str], only: Sequence[str] | None, *, write: bool) -> list[str]:
    """The chapters to simulate. Raises SetupError."""
    known = list(chapters)
    asked_for = "".join(f" --only {name}" for name in only or ()).strip()
    if only and write:
        raise SetupError(
            "a page is only written with all its chapters",
            saw=f"{asked_for} --write",
            do="leave out --write to print these chapters, or --only to write the page",
        )
    if set(only or ()) - set(known):
        raise SetupError("there is no such chapter", saw=asked_for, do=f"choose from {', '.join(known)}")
    return list(only or known)


def workers_for(jobs: int | None) -> Workers:
    """This number of worker processes, or one for each core."""
    return Workers(jobs or os.cpu_count() or 1)


def page_command(name: str, scale: float) -> str:
    """The command that writes the page again."""
    return command_line(name, ("--scale", f"{scale:g}", "1"))


def publish(parts: Iterable[str], page: str, out: Path, *, write: bool) -> None:
    """Write the parts as a page, or print each part as soon as it is ready."""
    if write:
        write_files(out, {page: "\n\n".join(parts) + "\n"})
        return
    for part in parts:
        typer.echo(f"{part}\n")


def simulated(section: Section) -> str:
    """The section as Markdown; prints each row to stderr when it is ready."""
    progress, began_s, rows = Terminal(stderr=True), time.monotonic(), []
    for row in section.rows:
        rows.append(row)
        line = f"{time.monotonic() - began_s:5.0f} s  {' | '.join(row)}"
        progress.print(line, no_wrap=True, overflow="ellipsis")
    return f"{section.text.strip()}\n\n{table(section.heads, rows)}"
