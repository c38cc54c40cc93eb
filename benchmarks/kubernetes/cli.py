"""`python -m benchmarks kubernetes`: what an answer of the judge server costs."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import psutil
import typer

from benchmarks.kubernetes.cluster import INTERVAL_S, TOKEN, ask, judge, prometheus, samples
from benchmarks.machine import machine
from benchmarks.markdown import table
from benchmarks.output import FOLDER, Out, Write, command_line, show_table, write_files
from contract import loopback
from contract.terminal import Terminal
from rollout.ui.cli import EXIT_DONE, EXIT_FAIL

PAGE = "kubernetes.md"
PODS, HOURS, CLASSES, RELEASES = 10, 1.0, 42, 200
FIRST_MS, NEXT_MS, MOST_MB = 300.0, 30.0, 500.0
HEADS = ("what", "measured", "CPU time of the judge", "goal", "met")
_FIRSTS, _NEXTS, _WINDOW_S = 5, 60, 3 * INTERVAL_S


@dataclass(frozen=True, slots=True)
class Result:
    """A measured value and its goal."""

    what: str
    value: float
    goal: float
    unit: str
    cpu_ms: float | None = None  # of the judge's process, for one answer

    @property
    def is_met(self) -> bool:
        return self.value <= self.goal

    def row(self) -> tuple[str, ...]:
        cpu = "" if self.cpu_ms is None else f"{self.cpu_ms:,.0f} ms"
        goal = f"{self.goal:,.0f} {self.unit}"
        return self.what, f"{self.value:,.0f} {self.unit}", cpu, goal, "yes" if self.is_met else "no"


def kubernetes(
    *,
    pods: Annotated[int, typer.Option(min=2, help="Pods of both versions together; one is the canary's.")] = PODS,
    hours: Annotated[float, typer.Option(min=0.05, max=24, help="Length of the release so far, hours.")] = HOURS,
    classes: Annotated[int, typer.Option(min=2, help="Classes that the model predicts; 8 more signals.")] = CLASSES,
    releases: Annotated[int, typer.Option(min=1, max=500, help="Releases at once.")] = RELEASES,
    write: Write = False,
    out: Out = FOLDER,
) -> None:
    """Time `kanaria judge serve` and measure its memory with many releases; exit code 1 when a goal is missed."""
    with tempfile.TemporaryDirectory(prefix="kanaria-") as name, Terminal(stderr=True).status("writing samples ..."):
        folder, began = Path(name), machine()
        with (
            prometheus(folder, samples(pods, hours, classes, time.time())) as metrics_url,
            judge(folder / "judge", metrics_url) as (url, pid),
        ):
            results = _measured(url, psutil.Process(pid), releases)
    show_table(HEADS, (result.row() for result in results))
    if write:
        given = (("--pods", pods, PODS), ("--hours", hours, HOURS), ("--classes", classes, CLASSES))
        command = command_line("kubernetes", *given, ("--releases", releases, RELEASES))
        write_files(out, {PAGE: page(results, command, began, pods=pods, hours=hours, classes=classes)})
    raise typer.Exit(EXIT_DONE if all(result.is_met for result in results) else EXIT_FAIL)


def _measured(url: str, process: psutil.Process, releases: int) -> list[Result]:
    """Ask about one release after another, and about some of them again when another window has ended."""
    with loopback.client(url, timeout_s=120.0, headers={"authorization": f"Bearer {TOKEN}"}) as http:
        ask(http, "warm-up")  # the imports of the first question are not part of an answer
        before_s = _cpu_s(process)
        firsts = [ask(http, f"first-{number}") for number in range(_FIRSTS)]
        first_cpu_ms = 1000 * (_cpu_s(process) - before_s) / _FIRSTS
        for number in range(releases):
            ask(http, f"release-{number}")
        weight_mb = process.memory_info().rss / 1e6
        again = [f"release-{number}" for number in range(min(releases, _NEXTS))]
        for name in again:
            ask(http, name)
        time.sleep(_WINDOW_S)
        before_s = _cpu_s(process)
        nexts = [ask(http, name) for name in again]
        next_cpu_ms = 1000 * (_cpu_s(process) - before_s) / len(again)
    return [
        Result("first answer, median", 1000 * statistics.median(firsts), FIRST_MS, "ms", first_cpu_ms),
        Result("each answer after it, median", 1000 * statistics.median(nexts), NEXT_MS, "ms", next_cpu_ms),
        Result(f"memory with {releases} releases", weight_mb, MOST_MB, "MB"),
    ]


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def page(results: Sequence[Result], command: str, began: str, *, pods: int, hours: float, classes: int) -> str:
    """The whole page, as Markdown.

    Args:
        results: what was measured.
        command: the command that wrote it.
        began: the machine before the benchmark, in words.
        pods: of both versions.
        hours: length of the release.
        classes: that the model predicts.
    """
    return f"""\
# What an answer of the judge server costs

Written by `{command}`, on {began}.

`kanaria judge serve` is asked about releases of {hours:g} h with {pods} pods, scraped every {INTERVAL_S:g} s, and
{classes + 8} signals: errors, six bounds of latency, {classes} classes, confidence. A real Prometheus on the same
machine has the samples, and those of stable's half hour before. Both share the cores with other work there; if that
keeps the cores busy, the time grows but not the CPU time.

{table(HEADS, (result.row() for result in results))}

For its first answer the judge reads all samples since the release began, turns them into windows and judges each
window. This happens once for each release and replica, and again after a restart. Later answers read only what is new:
a window every
{_WINDOW_S:.0f} s.
"""
