"""Charts of a benchmark as SVG: one row for each case, one mark for each contender, with its confidence interval. Pure.

Called by `page`. Colour and shape tell tools apart, shade their settings.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

_WIDTH, _LEFT, _RIGHT, _TOP = 1000, 290, 30, 74  # pixels
_LANE, _GAP = 10, 14  # height of one contender's lane; space between rows
_RADIUS = 4.5
_FONT = "font-family:system-ui,sans-serif"
_GREY, _LINE, _BAND = "#555", "#ddd", "#f6f6f4"
_SHAPES = {
    "circle": tuple((math.cos(turn / 8 * math.tau), math.sin(turn / 8 * math.tau)) for turn in range(8)),
    "square": ((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)),
    "triangle": ((0, -1.1), (1, 0.8), (-1, 0.8)),
    "diamond": ((0, -1.2), (1.1, 0), (0, 1.2), (-1.1, 0)),
}


@dataclass(frozen=True, slots=True)
class Look:
    """How one contender is drawn."""

    title: str
    shape: str  # a key of the shapes above
    colour: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A value and the interval around it; a value of inf is drawn at the right edge."""

    value: float
    low: float
    high: float
    is_hollow: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale from `ticks[0][0]` to `ticks[-1][0]`. Logarithmic ones begin above 0 and draw smaller values there."""

    title: str
    ticks: tuple[tuple[float, str], ...]
    is_logarithmic: bool = False

    def place(self, value: float) -> float:
        """From 0 at the left to 1 at the right."""
        start, end = self.ticks[0][0], self.ticks[-1][0]
        value = min(max(value, start), end)
        if self.is_logarithmic:
            return math.log(value / start) / math.log(end / start)
        return (value - start) / (end - start)


def chart(
    rows: Sequence[tuple[str, str]], looks: Mapping[str, Look], marks: Mapping[tuple[str, str], Mark], axis: Axis
) -> str:
    """One chart.

    Args:
        rows: key and title of each case.
        looks: of each contender, by key, in the order of the lanes.
        marks: by the keys of case and contender.
    """
    row_height = _LANE * len(looks) + _GAP
    height = _TOP + row_height * len(rows) + 44
    svg = ET.Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {_WIDTH} {height}", style=_FONT)
    ET.SubElement(svg, "rect", width="100%", height="100%", fill="#fff")
    _draw_legend(svg, looks)
    for number in range(0, len(rows), 2):
        top = _TOP + row_height * number
        ET.SubElement(svg, "rect", x="0", y=f"{top}", width=f"{_WIDTH}", height=f"{row_height}", fill=_BAND)
    _draw_axis(svg, axis, height)
    for number, (case, title) in enumerate(rows):
        top = _TOP + row_height * number
        _text(svg, title, x=_LEFT - 14, y=top + row_height / 2 + 4, anchor="end", size=13)
        for lane, (contender, look) in enumerate(looks.items()):
            if mark := marks.get((case, contender)):
                _draw_mark(svg, mark, look, axis, y=top + _GAP / 2 + _LANE * (lane + 0.5))
    return ET.tostring(svg, encoding="unicode") + "\n"


def _draw_legend(svg: ET.Element, looks: Mapping[str, Look]) -> None:
    columns = math.ceil(len(looks) / 2)
    for number, look in enumerate(looks.values()):
        x, y = 20 + (number % columns) * (_WIDTH - 40) / columns, 20 + number // columns * 22
        _draw_shape(svg, look, x, y)
        _text(svg, look.title, x=x + 12, y=y + 4, anchor="start", size=12)


def _draw_axis(svg: ET.Element, axis: Axis, height: float) -> None:
    bottom = height - 44
    for value, label in axis.ticks:
        x = f"{_x(axis, value):.1f}"
        ET.SubElement(svg, "line", x1=x, x2=x, y1=f"{_TOP}", y2=f"{bottom}", stroke=_LINE)
        _text(svg, label, x=_x(axis, value), y=bottom + 16, anchor="middle", size=11)
    _text(svg, axis.title, x=(_LEFT + _WIDTH - _RIGHT) / 2, y=bottom + 36, anchor="middle", size=12)


def _draw_mark(svg: ET.Element, mark: Mark, look: Look, axis: Axis, *, y: float) -> None:
    low, high = (f"{_x(axis, value):.1f}" for value in (mark.low, mark.high))
    ET.SubElement(svg, "line", x1=low, x2=high, y1=f"{y:.1f}", y2=f"{y:.1f}", stroke=look.colour, opacity="0.6")
    _draw_shape(svg, look, _x(axis, mark.value), y, is_hollow=mark.is_hollow)


def _draw_shape(svg: ET.Element, look: Look, x: float, y: float, *, is_hollow: bool = False) -> None:
    points = " ".join(f"{x + _RADIUS * dx:.1f},{y + _RADIUS * dy:.1f}" for dx, dy in _SHAPES[look.shape])
    ET.SubElement(svg, "polygon", points=points, fill="#fff" if is_hollow else look.colour, stroke=look.colour)


def _x(axis: Axis, value: float) -> float:
    return _LEFT + axis.place(value) * (_WIDTH - _LEFT - _RIGHT)


def _text(svg: ET.Element, words: str, *, x: float, y: float, anchor: str, size: int) -> None:
    attributes = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor, "font-size": f"{size}", "fill": _GREY}
    ET.SubElement(svg, "text", attributes).text = words
