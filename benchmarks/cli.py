"""The commands of `python -m benchmarks`: they measure Kanaria's promises and compare it with other tools."""

from collections.abc import Mapping
from typing import ClassVar

import typer

from kanaria.lazy import LazyGroup, Source


class Benchmarks(LazyGroup):
    """All benchmarks, in the order of `python -m benchmarks --help`."""

    program: ClassVar[str] = "python -m benchmarks"
    sources: ClassVar[Mapping[str, Source]] = {
        "judge": Source(
            "benchmarks.judge.cli:judge",
            "Let Kanaria, Argo Rollouts, Flagger, Kayenta and three tests run the same simulated releases.",
            needs=("charts",),
        ),
        "promises": Source(
            "benchmarks.proofs.promises:promises",
            "Simulate what the judge promises. Chapters: false-rollbacks, detection, harm, arrivals, watch, models, "
            "cost.",
            needs=("charts",),
        ),
        "noise": Source(
            "benchmarks.proofs.noise:noise",
            "Simulate what noise does to the judge, treated and not. Chapters: counts, blips, latency, readings, "
            "users.",
            needs=("charts",),
        ),
        "starts": Source(
            "benchmarks.proofs.starts:starts",
            "Compare priors over the window in which harm begins: how soon is harm found?",
            needs=("charts",),
        ),
        "labels": Source(
            "benchmarks.proofs.labels:labels",
            "Simulate how many labels show which of two versions is right, and what happens without labels.",
            needs=("charts",),
        ),
        "callers": Source(
            "benchmarks.proofs.callers:callers",
            "Simulate what one caller's labels can do to a release, and what it costs to prevent it.",
            needs=("charts",),
        ),
        "continuous": Source(
            "benchmarks.proofs.continuous:continuous",
            "Compare means of numbers after every window: false alarms, limits, and how soon harm is found.",
            needs=("serve", "charts"),
        ),
        "aa-test": Source(
            "benchmarks.judge.aa_test:aa_test",
            "Release a model against itself on the real stack; exit code 1 unless it is promoted.",
            needs=("serve", "loadtest", "monitoring", "charts"),
        ),
        "service": Source(
            "benchmarks.service.cli:service",
            "Serve a model with Kanaria and with other servers in turn, load each with wrk, and compare.",
            needs=("serve", "loadtest", "charts"),
        ),
        "drift": Source(
            "benchmarks.drift.cli:drift",
            "Time a drift report on a log of many rows; exit code 1 when it takes more than 30 s or 1.5 GB.",
            needs=("monitoring", "charts"),
        ),
        "kubernetes": Source(
            "benchmarks.kubernetes.cli:kubernetes",
            "Time `kanaria judge serve` and measure its memory with many releases; exit code 1 when a goal is missed.",
            needs=("serve", "charts"),
        ),
        "observer": Source(
            "benchmarks.observer.cli:observer",
            "Load the gateway in a step and in the shadow, and compare no observer, a share of the answers, and all.",
            needs=("serve", "loadtest", "charts"),
        ),
        "lean": Source(
            "benchmarks.lean.cli:lean",
            "Measure what a second version, a command, a stack without traffic and a lone request cost.",
            needs=("serve", "loadtest", "charts"),
        ),
        "optimise": Source(
            "benchmarks.optimise.cli:optimise",
            "Measure models on every engine, one after the other; nothing is saved.",
            needs=("serve", "charts"),
        ),
    }


app = typer.Typer(
    cls=Benchmarks,
    name="benchmarks",
    help="Kanaria beside other tools, and against its own promises.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root() -> None:
    """Kanaria beside other tools, and against its own promises."""
