"""`python -m benchmarks aa-test`: a release of the same model, to show that this machine's noise fails no canary.

It records the dispersion `phi` of every signal: how much noisier than independent requests this machine is.
"""

from collections.abc import Iterable
from typing import Annotated

import typer

from benchmarks.markdown import table
from benchmarks.output import FOLDER, Out, Write, command_line, show_table, write_files
from contract.terminal import Terminal
from kanaria.demo.digits import DigitsDemo
from rollout.explain.timeline import Timeline
from rollout.judge import Pair
from rollout.signals.catalogue import WATCHED_ERRORS
from rollout.signals.options import Latency
from rollout.signals.plan import Signals
from rollout.spec import RiskBudget, RolloutSpec, Step
from rollout.ui.cli import EXIT_DONE, EXIT_FAIL, explained

PAGE = "aa-test.md"
WINDOWS, BASELINE_S = 720, 120.0
HEADS = ("signal", "phi", "stable: bad of all", "canary: bad of all", "highest log e of threshold")
_WINDOW_S = 1.0
_STEPS: tuple[Step, ...] = ("shadow", 5, 25, 50, 100)
_STARTUP_S = 60.0
_LOOK_S = 1.1 * _WINDOW_S  # on a busy machine the counters are read a little after the window's end


def aa_test(
    windows: Annotated[
        int, typer.Option(min=20, help="Approximate number of ticks; an hour at 5 s has 720.")
    ] = WINDOWS,
    baseline_s: Annotated[
        float, typer.Option(min=10, help="Time in which all traffic goes to stable before the release, seconds.")
    ] = BASELINE_S,
    write: Write = False,
    out: Out = FOLDER,
) -> None:
    """Release a model against itself on the real stack; exit code 1 unless it is promoted."""
    with explained():
        release = _run(Terminal(), windows, baseline_s)
    show_table(HEADS, _rows(release), title=f"{release.outcome} after {len(release.judgements)} ticks")
    if write:
        options = (("--windows", windows, WINDOWS), ("--baseline-s", baseline_s, BASELINE_S))
        write_files(out, {PAGE: page(release, command_line("aa-test", *options))})
    raise typer.Exit(EXIT_DONE if release.outcome == "promoted" else EXIT_FAIL)


def _run(console: Terminal, windows: int, baseline_s: float) -> Timeline:
    soak_s = windows * _LOOK_S / len(_STEPS)
    plan = RolloutSpec(
        steps=_STEPS,
        soak=soak_s,
        step_deadline=soak_s + 120,
        window=_WINDOW_S,
        watch=1.0,
        holdback=0.0,
        risk_budget=RiskBudget(share=0.02),
        signals=Signals({"latency": Latency(slower_than_ms=(10, 25, 50, 100, 250), tolerance=1.5)}),
    )
    environment = DigitsDemo.here(console)
    environment.clear()
    environment.build({"v1": "v1", "v1-again": "v1"})
    with environment.up("v1"), environment.users() as load:
        environment.wait(baseline_s, "traffic to v1 alone, to measure phi")
        return environment.release("v1-again", plan, load, limit_s=windows * _WINDOW_S * 2 + _STARTUP_S)


def _rows(release: Timeline) -> list[tuple[str, ...]]:
    return [
        (
            name,
            f"{release.phi.get(name, 1.0):.2f}",
            _tally(tick.window.stable for tick in ticks),
            _tally(tick.window.canary for tick in ticks),
            f"{max(tick.evidence.log_e for tick in ticks):.2f} of {ticks[-1].evidence.threshold:.2f}",
        )
        for name, ticks in sorted(release.signals.items())
        if name != WATCHED_ERRORS
    ]


def _tally(pairs: Iterable[Pair]) -> str:
    seen = sum(pairs, Pair(0, 0))
    return f"{seen.bad:,} of {seen.total:,}"


def page(release: Timeline, command: str) -> str:
    """The whole page about a release of a model against itself, as Markdown.

    Args:
        command: the command that wrote it.
    """
    ticks = len(release.judgements)
    hours = ticks * 5 / 3600
    highest = max((judgement.log_e for _, judgement in release.judgements), default=0.0)
    threshold = max((judgement.threshold for _, judgement in release.judgements), default=0.0)
    return f"""\
# The same model against itself (A/A test)

Written by `{command}`.

A model is released against a second build of itself on the real stack: Envoy, BentoML, Locust, and Prometheus if it
is installed, all on one small machine. Every difference is noise, so the release must end with a promotion.

**{release.outcome}** after {ticks} ticks of {_WINDOW_S:g} s each; at 5 s these would be {hours:.1f} hours. The
evidence of all signals together never exceeded log e {highest:.2f}; the canary fails at {threshold:.2f}.

phi is the variance of stable's own counts divided by that of independent requests, measured before the release. It is
also 1 if there were too few bad events to measure it.

{table(HEADS, _rows(release))}
"""
