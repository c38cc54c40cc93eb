"""Writes the page about models on faster engines, as Markdown, and its chart."""

from collections.abc import Sequence

from benchmarks.charts import Axis, Mark, Style, chart
from benchmarks.markdown import table
from service.engines import Engine
from service.optimise.choice import MIN_GAIN, Measurement
from service.optimise.store import Comparison
from service.optimise.tables import HEADS, rows

PAGE, CHART = "optimise.md", "optimise.svg"

_STYLES = {
    Engine.FROZEN: Style("frozen", "triangle", "#8a8a8a"),
    Engine.BFLOAT16: Style("bfloat16", "diamond", "#5b8db8"),
    Engine.ONNX: Style("onnx", "circle", "#00674f"),
    Engine.ONNX_INT8: Style("onnx-int8", "square", "#d9691e"),
}
_AXIS = Axis(
    "times as fast as eager; hollow: refused",
    tuple((value, f"{value:g}x") for value in (0.25, 0.5, 1, 2, 4, 8, 16)),
    is_logarithmic=True,
)


def page(found: Sequence[Comparison], *, command: str, machine: str) -> str:
    """The whole page; its chart is expected beside it.

    Args:
        found: one comparison for each model.
        command: the command that wrote it.
        machine: cores and system, in words.
    """
    parts = "\n\n".join(f"## {done.tag}\n\n{_sentence(done)}\n\n{table(HEADS, rows(done))}" for done in found)
    return f"""\
# Models on faster engines

Written by `{command}` on {machine}.

Each engine answers the same batches, from rows to answers, on one thread. The engines take turns. The shortest time of
several rounds counts, because other work on the machine affects it least. Accuracy is measured on the held-out samples
in the model's folder. `speed` is the geometric mean over the batch sizes. What this means and how to use it:
[optimise](../optimise.md).

![How many times as fast as eager each engine is]({CHART})

{parts}

The fastest engine within the tolerance is chosen. An engine that changes the model more than a plainer engine must be
{MIN_GAIN:g} times as fast as the plainer one.
"""


def chart_of(found: Sequence[Comparison]) -> str:
    """One row for each model and batch size, one mark for each engine."""
    cases, marks = [], {}
    for done in found:
        for size, eager_ms in done.eager.ms.items():
            case = f"{done.tag} {size}"
            cases.append((case, f"{done.tag}, {size} row{'s' if size > 1 else ''}"))
            for trial in done.trials:
                if isinstance(trial, Measurement):
                    speed = eager_ms / trial.ms[size]
                    is_refused = done.refusal(trial) is not None
                    marks[case, trial.engine.value] = Mark(speed, speed, speed, is_hollow=is_refused)
    return chart(cases, {engine.value: look for engine, look in _STYLES.items()}, marks, _AXIS)


def _sentence(done: Comparison) -> str:
    if done.chosen is None or done.chosen is done.eager:
        return "No engine is fast enough to be worth it: the model stays on eager."
    return (
        f"**{done.chosen.engine}**, {done.chosen.speedup(done.eager):.1f} times as fast as eager, with "
        f"{done.chosen.accuracy:.2%} of the held-out rows right instead of {done.eager.accuracy:.2%} "
        f"(tolerance {100 * done.tolerance:g} points)."
    )
