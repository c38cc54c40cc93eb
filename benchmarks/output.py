"""Shared by the commands of `python -m benchmarks`: options for the page they write, and tables on the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from contract.terminal import Terminal

FOLDER = Path("docs/benchmarks")

Write = Annotated[bool, typer.Option("--write", help="Write the page, and its charts where it has any.")]
Out = Annotated[Path, typer.Option(help="Folder to write to.")]
Jobs = Annotated[int | None, typer.Option(min=1, help="Number of processes. Default: one for each core.")]


def show_table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None) -> None:
    """Print a table to the terminal."""
    table = Table(*heads, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    Terminal().print(table)


def command_line(command: str, *options: tuple[str, object, object]) -> str:
    """The command that writes the same page again.

    Args:
        command: its name and arguments.
        options: flag, value and default of each; an option with its default value is left out.
    """
    changed = [f" {flag} {value}" for flag, value, default in options if value != default]
    return f"python -m benchmarks {command} --write{''.join(changed)}"


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write a page and its charts, and print the path of the page. The page is the first of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content, "utf-8")
    typer.echo(folder / next(iter(files)))
