"""A comparison of engines as rows of text, for the terminal and the benchmark page."""

from service.optimise.choice import Measurement
from service.optimise.measure import BATCH_ROWS
from service.optimise.store import Comparison

HEADS = ("engine", *(f"{rows} rows, ms" if rows > 1 else "1 row, ms" for rows in BATCH_ROWS), "speed", "accuracy", "")


def rows(done: Comparison) -> list[tuple[str, ...]]:
    """One row per engine, eager first. `speed` is the geometric mean over the batch sizes, relative to eager."""
    found = []
    for trial in (done.eager, *done.trials):
        refused = done.refusal(trial)
        words = f"refused: {refused}" if refused else "chosen" if trial == done.chosen else ""
        if isinstance(trial, Measurement):
            times = (f"{trial.ms[size]:.3f}" if size in trial.ms else "" for size in BATCH_ROWS)
            found.append((trial.engine, *times, f"{trial.speedup(done.eager):.1f}x", f"{trial.accuracy:.2%}", words))
        else:
            found.append((trial.engine, *("" for _ in HEADS[2:]), words))
    return found
