"""Draws how often the answers of two sides were correct, class by class, with Evidently's widgets.

Evidently's preset for classes fails if there are two labels that are words, and if the two sides have different labels.
Importing this module takes seconds.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from evidently.legacy.renderers.html_widgets import CounterData, WidgetSize, counter, plotly_figure, table_data
from numpy.typing import NDArray

from monitoring.drift.truth import Answered

OTHER = "another truth"  # every truth that no version answers and the reference does not know
_MOST_DRAWN = 50  # classes; a picture with more cannot be read
_HEADER = ("class", "rows", "found", "found before", "right where answered", "right where answered before")

Counts = NDArray[np.int64]  # rows by truth (down, the last one is OTHER) and answer (across)


def widgets(current: Answered, reference: Answered, *, is_trained: bool) -> list[Any]:
    """The share of correct answers, the quality of each class, and the confusion matrices.

    Args:
        is_trained: the reference's truths come from training, so each is a class of the model.
    """
    known = {str(word) for side in (current, reference) for word in side.label}
    if is_trained:
        known |= {str(word) for word in reference.truth}
    classes = sorted(known, key=lambda word: (len(word), word) if word.isdigit() else (0, word))
    now, before = (_counted(side, classes) for side in (current, reference))
    sides = (("now", now), ("before", before))
    shown = [
        CounterData(f"right of {side.sum():,}, {when}", _share(np.trace(side), side.sum())) for when, side in sides
    ]
    rows = []
    for place, name in enumerate(classes):
        found = [_share(side[place, place], side[place].sum()) for side in (now, before)]
        right_of = [_share(side[place, place], side[:, place].sum()) for side in (now, before)]
        rows.append((name, f"{now[place].sum():,}", *found, *right_of))
    if others := now[-1].sum():
        rows.append((OTHER, f"{others:,}", *["-"] * 4))
    drawn = [counter(counters=shown), table_data(title="Class by class", column_names=_HEADER, data=rows)]
    if len(classes) <= _MOST_DRAWN:
        for when, side in sides:
            figure = go.Figure(
                go.Heatmap(z=side, x=classes, y=[*classes, OTHER], texttemplate="%{z}", colorscale="Blues"),
                {"xaxis": {"title": "answer", "type": "category"}, "yaxis": {"title": "truth", "type": "category"}},
            )
            drawn.append(plotly_figure(title=f"Rows by truth and answer, {when}", figure=figure, size=WidgetSize.HALF))
    return drawn


def _counted(side: Answered, classes: Sequence[str]) -> Counts:
    places = {name: place for place, name in enumerate(classes)}
    counts = np.zeros((len(classes) + 1, len(classes)), np.int64)
    truths = [places.get(str(word), len(classes)) for word in side.truth]
    np.add.at(counts, (truths, [places[str(word)] for word in side.label]), 1)
    return counts


def _share(some: int, every: int) -> str:
    return f"{100 * some / every:.1f} %" if every else "-"
