"""`kanaria simulate`: shows what a plan would do with your traffic, before it affects a user."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from contract.files import write_whole
from contract.terminal import Terminal
from rollout.simulate.page import render_page
from rollout.simulate.question import better_of, parse_question, scenario_of
from rollout.simulate.study import Findings, study
from rollout.simulate.words import as_object, stories
from rollout.ui.cli import Json, explained
from rollout.ui.cli.conventions import find_access
from rollout.ui.cli.plan import SpecOption, read_spec

app = typer.Typer()

_BETTER = "A better canary"
_TRAFFIC, _REGRESSION, _NOISE = "Your traffic", "What is wrong with the harmful canary", "Noise, on both versions"


def _flag(panel: str, text: str) -> Any:
    return typer.Option(help=text, rich_help_panel=panel)


@app.command()
def simulate(
    context: typer.Context,
    *,
    spec: SpecOption = None,
    rps: Annotated[str | None, _flag(_TRAFFIC, "Requests a second. Default: 20.")] = None,
    base: Annotated[str | None, _flag(_TRAFFIC, "Share of requests that fail on stable. Default: 0.1%.")] = None,
    rejected: Annotated[
        str | None, _flag(_TRAFFIC, "Share of requests that stable rejects because they are invalid. Default: 0%.")
    ] = None,
    median: Annotated[str | None, _flag(_TRAFFIC, "Median latency of stable. Default: 20ms.")] = None,
    p99: Annotated[
        str | None, _flag(_TRAFFIC, "99th percentile of stable's latency; log-normal. Default: 100ms.")
    ] = None,
    classes: Annotated[
        str | None, _flag(_TRAFFIC, "Number of predicted classes, or the share of each: 60%,30%,10%. Default: 10.")
    ] = None,
    low_confidence: Annotated[
        str | None, _flag(_TRAFFIC, "Share of predictions with low confidence. Default: 2%.")
    ] = None,
    labels: Annotated[
        str | None, _flag(_TRAFFIC, "Share of predictions whose true label arrives, at once. Default: 0%.")
    ] = None,
    wrong: Annotated[
        str | None, _flag(_TRAFFIC, "Share of labelled predictions that are wrong on stable. Default: 5%.")
    ] = None,
    own: Annotated[
        str | None, _flag(_TRAFFIC, "Share of stable's events that are bad, for each of your own signals. Default: 2%.")
    ] = None,
    worse: Annotated[
        str | None,
        _flag(_REGRESSION, "Errors: a factor, 5x, or an added share, +2%. Default: 5x, unless another flag is given."),
    ] = None,
    stricter: Annotated[
        str | None, _flag(_REGRESSION, "Rejected requests: a factor, 2x, or an added share, +10%.")
    ] = None,
    slower: Annotated[
        str | None, _flag(_REGRESSION, "Latency: a factor, 1.5x, or an added share slower than every bound, +5%.")
    ] = None,
    shift: Annotated[str | None, _flag(_REGRESSION, "New share of one class, numbered from 0: 3=40%.")] = None,
    wronger: Annotated[str | None, _flag(_REGRESSION, "Wrong labels: a factor, 2x, or an added share, +5%.")] = None,
    better: Annotated[
        str | None,
        _flag(
            _BETTER,
            "Wrong labels of a better canary, as a factor: 0.1x. Default: 0.5x if the plan says `require: better`, "
            "otherwise none is simulated.",
        ),
    ] = None,
    own_worse: Annotated[
        str | None, _flag(_REGRESSION, "Your own signals: a factor, 3x, or an added share, +5%.")
    ] = None,
    after: Annotated[
        str | None, _flag(_REGRESSION, "When the harm begins, after the canary's first request: 10m. Default: at once.")
    ] = None,
    drift: Annotated[
        str | None, _flag(_NOISE, "Error ratios swing between 1/N and N times their value in an hour. Default: 1x.")
    ] = None,
    shared_bursts: Annotated[
        str | None, _flag(_NOISE, "Bursts on both versions at once: correlation of requests in a burst. Default: 0%.")
    ] = None,
    own_bursts: Annotated[str | None, _flag(_NOISE, "The same for bursts on one version only. Default: 0%.")] = None,
    burst: Annotated[str | None, _flag(_NOISE, "Length of a burst. Default: 5s.")] = None,
    retries: Annotated[str | None, _flag(_NOISE, "Mean size of a cluster of failures. Default: 1.")] = None,
    history: Annotated[
        str | None,
        _flag(_NOISE, "How long stable's noise was measured before the release. Default: 30m."),
    ] = None,
    releases: Annotated[int, typer.Option(min=10, max=1_000_000, help="Simulated releases of each kind.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same answer.")] = 1,
    jobs: Annotated[int | None, typer.Option(min=1, max=1024, help="Processes. Default: one per core.")] = None,
    out: Annotated[Path | None, typer.Option(help="HTML file to write. Default: in the state folder.")] = None,
    as_json: Json = False,
) -> None:
    """Simulate releases with this plan and your traffic: how often a harmless canary is rolled back, how soon a harmful
    one is stopped, how much it harms, and how long a promotion takes.

    The judge and the decisions are those of production, to the end of the watch after promotion.
    """
    with explained():
        plan = read_spec(spec).model_copy(update={"sticky": None})  # users are not simulated, only requests
        question = parse_question(
            {
                "rps": rps,
                "base": base,
                "rejected": rejected,
                "median": median,
                "p99": p99,
                "classes": classes,
                "low_confidence": low_confidence,
                "labels": labels,
                "wrong": wrong,
                "own": own,
                "worse": worse,
                "stricter": stricter,
                "slower": slower,
                "shift": shift,
                "wronger": wronger,
                "better": better,
                "own_worse": own_worse,
                "after": after,
                "drift": drift,
                "shared_bursts": shared_bursts,
                "own_bursts": own_bursts,
                "burst": burst,
                "retries": retries,
                "history": history,
            }
        )
        scenario = scenario_of(question, plan)
        better_scenario = better_of(question, scenario, plan)
        with _progress() as bar:
            task = bar.add_task("simulating", total=(3 if better_scenario else 2) * releases)
            findings = study(
                plan,
                scenario,
                releases=releases,
                seed=seed,
                jobs=jobs or os.cpu_count() or 1,
                history_s=question.history,
                better=better_scenario,
                on_progress=lambda done: bar.update(task, completed=done),
            )
        path = out or _reports(context) / "simulation.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, render_page(findings, f"kanaria {shlex.join(sys.argv[1:])}"))
        if as_json:
            typer.echo(json.dumps(as_object(findings), indent=2))
        else:
            Terminal().print(_answers(findings), f"\npictures: {path}")


def _reports(context: typer.Context) -> Path:
    access = find_access(context)
    return access().reports if access else Path()


def _progress() -> Progress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Terminal(stderr=True), transient=True)


def _answers(findings: Findings) -> RenderableType:
    parts: list[RenderableType] = []
    for story in stories(findings):
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, style="bold")
        table.add_column(style="dim")
        for answer in story.answers:
            table.add_row(f"  {answer.what}", answer.value, answer.note)
        parts += [Text(story.title, style="bold"), table, ""]
    return Group(*parts[:-1])
