"""`kanaria bench`: Kanaria beside other tools. Mounted by the composition root."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TimeRemainingColumn

from rollout.benchmarks.page import Setting, figures, page, summary
from rollout.benchmarks.race import heats, run_all
from rollout.benchmarks.results import scores

bench = typer.Typer(help="Compare Kanaria with other tools, on simulated traffic.", no_args_is_help=True)
_progress = Console(stderr=True)


@bench.callback()
def _group() -> None:
    """Compare Kanaria with other tools, on simulated traffic."""


@bench.command()
def judge(
    runs: Annotated[int, typer.Option(min=2, help="Releases of each tool on each case.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same page.")] = 1,
    jobs: Annotated[int, typer.Option(min=1, help="Processes. Default: one for each core.")] = os.cpu_count() or 1,
    write: Annotated[bool, typer.Option("--write", help="Write the page and its charts.")] = False,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("docs/benchmarks"),
) -> None:
    """Let our judge, Argo Rollouts, Flagger and Kayenta lead the same releases: false alarms, misses, harm, time."""
    began_s = time.monotonic()
    todo = heats(runs, seed)
    columns = (SpinnerColumn(), *Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_progress) as progress:
        finishes = list(progress.track(run_all(todo, jobs=jobs), total=len(todo), description="releases"))
    found = scores(finishes)
    Console().print(summary(found))
    _progress.print(f"{len(todo):,} releases in {time.monotonic() - began_s:.0f} s")
    if write:
        defaults = "" if (runs, seed) == (300, 1) else f" --runs {runs} --seed {seed}"
        files = {
            "judge.md": page(found, Setting(runs, seed, f"kanaria bench judge --write{defaults}")),
            **figures(found),
        }
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (out / name).write_text(text)
        typer.echo(out / "judge.md")
