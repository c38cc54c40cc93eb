"""`kanaria bench same`: a release of the very same model (A/A), to see that this machine's noise fails nobody.

Writes down the dispersion `phi` of every signal: how much noisier than independent requests this machine is.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from kanaria.stage import Stage
from loadtest.scenario import load_scenario
from rollout.cli import EXIT_DONE, EXIT_FAIL, explained
from rollout.judge import Pair
from rollout.spec import Latency, RolloutSpec, Signals, Step
from rollout.view import ReleaseView
from rollout.watch import WATCHED_ERRORS

PAGE = Path("docs/benchmarks/same.md")
_WINDOW_S = 1.0
_STEPS: tuple[Step, ...] = ("shadow", 5, 25, 50, 100)
_STARTUP_S = 60.0
_LOOK_S = 1.1 * _WINDOW_S  # on a busy machine a reading comes a little after its window's end


def same(
    windows: Annotated[int, typer.Option(min=20, help="Looks of the judge, about; 720 is an hour at 5 s.")] = 720,
    baseline_s: Annotated[float, typer.Option(min=10, help="Traffic to stable alone before, seconds.")] = 120.0,
    write: Annotated[bool, typer.Option("--write", help=f"Write {PAGE}.")] = False,
) -> None:
    """Release a model against itself on the real stack: it must end promoted."""
    with explained():
        release = _run(Console(), windows, baseline_s)
    looks = len(release.verdicts)
    Console().print(_table(release, looks))
    if write:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(_page(release, looks))
        typer.echo(f"written: {PAGE}")
    raise typer.Exit(EXIT_DONE if release.outcome == "promoted" else EXIT_FAIL)


def _run(console: Console, windows: int, baseline_s: float) -> ReleaseView:
    soak_s = windows * _LOOK_S / len(_STEPS)
    plan = RolloutSpec(
        steps=_STEPS,
        soak=soak_s,
        step_deadline=soak_s + 120,
        window=_WINDOW_S,
        watch=1.0,
        risk_budget=0.02,
        signals=Signals(latency=Latency(slower_than_ms=(10, 25, 50, 100, 250), tolerance=1.5)),
    )
    stage = Stage.here(console)
    stage.clear()
    stage.build({"v1": "v1", "v1-again": "v1"})
    with stage.up("v1"), stage.users(load_scenario("demo")) as load:
        stage.wait(baseline_s, "traffic to v1 alone, from which phi is taken")
        return stage.release("v1-again", plan, load, limit_s=windows * _WINDOW_S * 2 + _STARTUP_S)


def _rows(release: ReleaseView) -> list[tuple[str, ...]]:
    return [
        (
            name,
            f"{release.phi.get(name, 1.0):.2f}",
            _tally(series.stable),
            _tally(series.canary),
            f"{max(series.log_e):.2f} of {series.threshold[-1]:.2f}",
        )
        for name, series in sorted(release.signals.items())
        if name != WATCHED_ERRORS
    ]


def _tally(pairs: Iterable[Pair]) -> str:
    seen = sum(pairs, Pair(0, 0))
    return f"{seen.bad:,} of {seen.total:,}"


_COLUMNS = ("signal", "phi", "stable: bad of all", "same again: bad of all", "highest log e of threshold")


def _table(release: ReleaseView, looks: int) -> Table:
    table = Table(*_COLUMNS, title=f"{release.outcome} after {looks} looks")
    for row in _rows(release):
        table.add_row(*row)
    return table


def _page(release: ReleaseView, looks: int) -> str:
    highest = max((log_e for _, _, log_e in release.verdicts), default=0.0)
    hours = looks * 5 / 3600
    told = (
        f"**{release.outcome}** after {looks} looks at {_WINDOW_S:g} s each, as many as {hours:.1f} hours have at 5 s. "
        f"All signals together never went over log e {highest:.2f}; {release.threshold or 0:.2f} would have failed it."
    )
    lines = [
        "# The same model against itself",
        "",
        "Regenerate with `kanaria bench same --write`. A model is released against a second build of itself on the",
        "real stack (Envoy, BentoML, Locust, Prometheus where it is installed, all on one small machine). Whatever",
        "differs is noise, so the release must end promoted.",
        "",
        told,
        "",
        "phi is the variance of stable's own counts over that of independent requests, measured before the release;",
        "1 also where there were too few bad events to tell.",
        "",
        "| " + " | ".join(_COLUMNS) + " |",
        "|" + "---|" * len(_COLUMNS),
        *("| " + " | ".join(row) + " |" for row in _rows(release)),
        "",
    ]
    return "\n".join(lines)
