"""Charts of a benchmark as SVG: one row for each case, one mark with its range for each contender.

The same marks give the same file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

_WIDTH, _LANE, _GAP, _MARGINS = 10.0, 0.11, 0.14, 1.3  # inches: the figure, a contender's lane, between rows, the rest
_SHAPES = {"circle": "o", "square": "s", "triangle": "^", "diamond": "D"}
_GREY, _LINE, _BAND = "#555555", "#dddddd", "#f6f6f4"
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "kanaria",  # ids that do not change from run to run
    "font.family": "sans-serif",
    "text.color": _GREY,
    "axes.labelcolor": _GREY,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


@dataclass(frozen=True, slots=True)
class Style:
    """How one contender is drawn."""

    title: str
    shape: str  # circle, square, triangle or diamond
    colour: str

    def line(self, *, is_hollow: bool = False) -> dict[str, Any]:
        """The style as matplotlib's keyword arguments."""
        return {
            "color": self.colour,
            "marker": _SHAPES[self.shape],
            "markersize": 6.5,
            "markerfacecolor": "white" if is_hollow else self.colour,
            "linewidth": 1.2,
        }


@dataclass(frozen=True, slots=True)
class Mark:
    """A value and the interval around it. Values beyond the axis are drawn at its edge."""

    value: float
    low: float
    high: float
    is_hollow: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale from the first to the last tick, each a value and its label. A logarithmic scale begins above 0."""

    title: str
    ticks: tuple[tuple[float, str], ...]
    is_logarithmic: bool = False

    def within(self, value: float) -> float:
        """Limit a value to the range of the axis."""
        return min(max(value, self.ticks[0][0]), self.ticks[-1][0])


def chart(
    rows: Sequence[tuple[str, str]], styles: Mapping[str, Style], marks: Mapping[tuple[str, str], Mark], axis: Axis
) -> str:
    """Draw one chart.

    Args:
        rows: key and title of each case, from top to bottom.
        styles: of each contender, by its key, from top to bottom.
        marks: by the keys of case and contender.
    """
    row_height = _LANE * len(styles) + _GAP
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(_WIDTH, _MARGINS + row_height * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        _prepare(axes, axis, [title for _, title in rows], row_height)
        for number, (case, _) in enumerate(rows):
            for lane, (contender, style) in enumerate(styles.items()):
                if mark := marks.get((case, contender)):
                    height = row_height * number + _GAP / 2 + _LANE * (lane + 0.5)
                    _draw(axes, mark, style, axis, height)
        handles = [Line2D([], [], label=style.title, **style.line()) for style in styles.values()]
        figure.legend(handles=handles, loc="outside upper center", ncols=min(len(styles), 5), frameon=False)
        svg = StringIO()
        figure.savefig(svg, format="svg", metadata=_NO_METADATA)
    return svg.getvalue()


def _prepare(axes: Axes, axis: Axis, titles: Sequence[str], row_height: float) -> None:
    values = [value for value, _ in axis.ticks]
    axes.set_xscale("log" if axis.is_logarithmic else "linear")
    axes.set_xlim(values[0], values[-1])
    axes.set_xticks(values, [label for _, label in axis.ticks])
    axes.minorticks_off()
    axes.set_xlabel(axis.title)
    axes.set_ylim(row_height * len(titles), 0)  # the first row on top
    axes.set_yticks([row_height * (number + 0.5) for number in range(len(titles))], titles)
    axes.tick_params(length=0)
    axes.tick_params(axis="y", pad=10)  # a mark at the left edge must not touch the title of its row
    axes.grid(axis="x", color=_LINE)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    for number in range(0, len(titles), 2):
        axes.axhspan(row_height * number, row_height * (number + 1), color=_BAND, zorder=0)


def _draw(axes: Axes, mark: Mark, style: Style, axis: Axis, height: float) -> None:
    low, value, high = (axis.within(each) for each in (mark.low, mark.value, mark.high))
    axes.plot([low, high], [height, height], color=style.colour, linewidth=1.2, alpha=0.6)
    axes.plot([value], [height], clip_on=False, **style.line(is_hollow=mark.is_hollow))
