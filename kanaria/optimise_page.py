"""The page of `kanaria bench optimise`, as Markdown, and its chart. Pure."""

from collections.abc import Sequence

from rollout.benchmarks.figures import Axis, Look, Mark, chart
from service.engines import Engine
from service.optimise.choice import MIN_GAIN, Measurement
from service.optimise.store import Comparison
from service.optimise.tables import HEADS, rows

PAGE, FIGURE = "optimise.md", "optimise.svg"

_LOOKS = {
    Engine.FROZEN: Look("frozen", "triangle", "#8a8a8a"),
    Engine.BFLOAT16: Look("bfloat16", "diamond", "#5b8db8"),
    Engine.ONNX: Look("onnx", "circle", "#00674f"),
    Engine.ONNX_INT8: Look("onnx-int8", "square", "#d9691e"),
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
        command: what wrote it.
        machine: where, in words.
    """
    parts = "\n\n".join(f"## {done.tag}\n\n{_sentence(done)}\n\n{_table(done)}" for done in found)
    return f"""\
# Models on faster engines

Written by `{command}` on {machine}. Each engine answers the same batches, from rows to answers, on one thread; the
engines take turns, and the least time of several rounds counts, which other work on the machine delays least. Accuracy
is that on the held-out samples in the model's folder. `speed` is the geometric mean over the batch sizes. What it means
and how it is used: [optimise](../optimise.md).

![How many times as fast as eager each engine is]({FIGURE})

{parts}

The fastest engine within the tolerance is chosen; one that changes more than a plainer one must be {MIN_GAIN:g} times
as fast as that.
"""


def figure(found: Sequence[Comparison]) -> str:
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
    return chart(cases, {engine.value: look for engine, look in _LOOKS.items()}, marks, _AXIS)


def _sentence(done: Comparison) -> str:
    if done.chosen is None or done.chosen is done.eager:
        return "No engine is worth it: the model stays on eager."
    return (
        f"**{done.chosen.engine}**, {done.chosen.speedup(done.eager):.1f} times as fast as eager, with "
        f"{done.chosen.accuracy:.2%} of the held-out rows right instead of {done.eager.accuracy:.2%} "
        f"(tolerance {100 * done.tolerance:g} points)."
    )


def _table(done: Comparison) -> str:
    lines = [HEADS, ["---"] * len(HEADS), *rows(done)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
