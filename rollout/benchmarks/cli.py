"""`kanaria bench`: Kanaria beside other tools. Mounted by the composition root."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table

from rollout.benchmarks.page import Setting, figures, page
from rollout.benchmarks.race import heats, run_all
from rollout.benchmarks.results import scores
from rollout.benchmarks.tables import SUMMARY_HEADS, Scores, summary_rows

RUNS, SEED = 200, 1

bench = typer.Typer(no_args_is_help=True)
_progress = Console(stderr=True)


@bench.callback()
def _group() -> None:
    """Compare Kanaria with other tools."""


@bench.command()
def judge(
    runs: Annotated[int, typer.Option(min=2, help="Releases of each tool on each case.")] = RUNS,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same page.")] = SEED,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes. Default: one for each core.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Write the page and its charts.")] = False,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("docs/benchmarks"),
) -> None:
    """Let Kanaria, Argo Rollouts, Flagger and Kayenta lead the same simulated releases."""
    began_s = time.monotonic()
    todo = heats(runs, seed)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_progress) as progress:
        done = run_all(todo, jobs=jobs or os.cpu_count() or 1)
        found = scores(progress.track(done, total=len(todo), description="releases"))
    _progress.print(f"{len(todo):,} releases in {time.monotonic() - began_s:.0f} s")
    Console().print(_summary(found))
    if write:
        options = "" if (runs, seed) == (RUNS, SEED) else f" --runs {runs} --seed {seed}"
        text = page(found, Setting(runs, seed, f"kanaria bench judge --write{options}"))
        out.mkdir(parents=True, exist_ok=True)
        for name, content in {"judge.md": text, **figures(found)}.items():
            (out / name).write_text(content)
        typer.echo(out / "judge.md")


def _summary(found: Scores) -> Table:
    table = Table(*SUMMARY_HEADS)
    for row in summary_rows(found):
        table.add_row(*row)
    return table
