"""`kanaria simulate`: what a plan would do with your traffic, before any user meets it.

Mounted by the composition root.
"""

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from rollout.cli import Json, SpecOption, explained, read_spec
from rollout.simulation.page import render_page
from rollout.simulation.question import parse_question, scenario_of
from rollout.simulation.study import Findings, study
from rollout.simulation.words import as_object, stories

app = typer.Typer()

_TRAFFIC, _REGRESSION, _NOISE = "Your traffic", "What is wrong with the bad canary", "Noise, on both versions"


@app.callback()
def _simulation() -> None:
    """Keeps `simulate` a command of its own when it is the only one."""


@app.command()
def simulate(
    spec: SpecOption = None,
    rps: Annotated[str | None, typer.Option(help="Requests a second. Default: 20.", rich_help_panel=_TRAFFIC)] = None,
) -> None:
    ...
