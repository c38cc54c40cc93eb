"""`python -m benchmarks judge`: Kanaria beside other tools."""

import os
import time
from typing import Annotated

import typer
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from benchmarks.judge.page import PAGE, Setting, charts, page
from benchmarks.judge.scores import scores
from benchmarks.judge.tables import SUMMARY_HEADS, summary_rows
from benchmarks.judge.trials import run_all, trials
from benchmarks.output import FOLDER, Jobs, Out, Write, command_line, show_table, write_files
from contract.terminal import Terminal

RUNS, WEATHER_RUNS, SEED = 200, 200, 1
_progress = Terminal(stderr=True)


def judge(
    *,
    runs: Annotated[int, typer.Option(min=2, help="Number of releases of each tool on each case.")] = RUNS,
    weather: Annotated[int, typer.Option(min=1, help="Number of releases of each tool in each world.")] = WEATHER_RUNS,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same page.")] = SEED,
    jobs: Jobs = None,
    write: Write = False,
    out: Out = FOLDER,
) -> None:
    """Let Kanaria, Argo Rollouts, Flagger, Kayenta and three tests run the same simulated releases."""
    began_s = time.monotonic()
    todo = trials(runs, weather, seed)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_progress) as progress:
        done = run_all(todo, jobs=jobs or os.cpu_count() or 1)
        found = scores(progress.track(done, total=len(todo), description="releases"))
    _progress.print(f"{len(todo):,} releases in {time.monotonic() - began_s:.0f} s")
    show_table(SUMMARY_HEADS, summary_rows(found))
    if write:
        options = (("--runs", runs, RUNS), ("--weather", weather, WEATHER_RUNS), ("--seed", seed, SEED))
        command = command_line("judge", *options)
        write_files(out, {PAGE: page(found, Setting(runs, weather, seed, command)), **charts(found)})
