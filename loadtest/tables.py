"""The summary of a run as text for the terminal."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rich.table import Table
from rich.text import Text

from contract.terminal import Terminal
from loadtest.results import ExitCode, Gate, Summary

SHOWN_FAILURES = 5
VERDICTS = {
    ExitCode.PASSED: Text("every gate holds", style="green"),
    ExitCode.GATE_BROKEN: Text("a gate is broken", style="red"),
    ExitCode.NOTHING_MEASURED: Text("nothing was measured", style="yellow"),
}


def print_summary(summary: Summary, console: Terminal, *, report: Path) -> None:
    """Print the gates, the latencies, the versions and the first failures."""
    console.print(
        f"{summary.scenario.name}: {summary.requests:,} requests in {summary.duration_s:.1f} s, "
        f"{summary.failures:,} failed, {summary.slipped:,} sent late or never "
        f"(worst {summary.worst_slip_ms:.0f} ms); generator used {summary.generator_cpu_s:.1f} s of CPU",
        soft_wrap=True,
    )
    console.print(_gates(summary), _latencies(summary))
    if summary.versions:
        console.print(_versions(summary))
    for reason in _reasons(summary):
        console.print(reason, soft_wrap=True)
    console.print(Text.assemble(VERDICTS[summary.exit_code], f"; report: {report}"), soft_wrap=True)


def _reasons(summary: Summary) -> Iterator[str]:
    """The reasons why requests failed, the most frequent first."""
    listed = Counter((failure.task, failure.message) for failure in summary.failure_list)
    for (task, message), times in listed.most_common(SHOWN_FAILURES):
        yield f"failed {task}: {message} ({times:,} of the first {len(summary.failure_list):,})"
    if any(failure.status in (401, 403) for failure in summary.failure_list):
        yield "the gateway requires its API key: --api-key-file .kanaria/api-key, or $KANARIA_API_KEY"


def as_text(gate: Gate, value: float) -> str:
    """A gate's number in its own unit."""
    if gate.name.endswith("_ratio"):
        return f"{value:.3%}" if value >= 1e-4 else f"{100 * value:.3g}%"  # do not show one in a million as 0.000%
    return f"{value:,.1f} ms" if gate.name.endswith("_ms") else f"{value:,.0f}"


def _gates(summary: Summary) -> Table:
    table = Table("gate", "limit", "measured", "", title="Gates", title_justify="left")
    for gate in summary.gates:
        bound = "at least " if gate.name == "min_requests" else "at most "
        verdict = Text("holds", style="green") if gate.passed else Text("BROKEN", style="red")
        table.add_row(gate.name, bound + as_text(gate, gate.limit), as_text(gate, gate.measured), verdict)
    return table


def _latencies(summary: Summary) -> Table:
    table = Table("", "requests", "p50", "p90", "p95", "p99", "max", title="Latency, ms", title_justify="left")
    rows = {"from the scheduled time": summary.scheduled, "from the time of sending": summary.service}
    rows |= {f"  scheduled, {task}": counts.scheduled for task, counts in summary.tasks.items()}
    for name, at in rows.items():
        values = (at.p50_ms, at.p90_ms, at.p95_ms, at.p99_ms, at.max_ms)
        table.add_row(name, f"{at.count:,}", *(f"{value:,.1f}" for value in values))
    return table


def _versions(summary: Summary) -> Table:
    table = Table("version", "answers", "rows right", "rows wrong", title="Versions", title_justify="left")
    for name, counts in summary.versions.items():
        rows = counts.correct + counts.wrong
        wrong = f"{counts.wrong:,} ({counts.wrong / rows:.2%})" if rows else "0"
        table.add_row(name, f"{counts.answers:,}", f"{counts.correct:,}", wrong)
    return table
