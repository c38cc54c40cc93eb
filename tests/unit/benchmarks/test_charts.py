"""Charts of a benchmark: every mark is at its value, and the same marks give the same file."""

import math
import re
from xml.etree import ElementTree as ET

import pytest

from benchmarks.charts import Axis, Mark, Style, chart

ROWS = [("easy", "an easy case"), ("hard", "a hard case")]
STYLES = {"ours": Style("Ours", "circle", "#00674f"), "theirs": Style("Theirs", "square", "#d9691e")}
AXIS = Axis("times as fast", ((1, "1x"), (10, "10x"), (100, "100x")), is_logarithmic=True)
MARKS = {("easy", "ours"): Mark(10, 5, 20), ("hard", "theirs"): Mark(2, 1, 3, is_hollow=True)}


def places(svg: str, colour: str) -> list[tuple[float, float]]:
    """Positions of the marks of a colour in the picture, without those of the legend."""
    axes = svg[: svg.index('id="legend_1"')]
    found = re.findall(rf'<use xlink:href="#\w+" x="([\d.]+)" y="([\d.]+)" style="[^"]*stroke: {colour}', axes)
    return [(float(x), float(y)) for x, y in found]


def test_a_chart_has_its_rows_contenders_and_ticks_as_text() -> None:
    """Text is not converted to paths, so a reader can search for it."""
    texts = [element.text for element in ET.fromstring(chart(ROWS, STYLES, MARKS, AXIS)).iter() if element.text]  # noqa: S314 - we wrote it
    assert {"an easy case", "a hard case", "Ours", "Theirs", "1x", "10x", "100x", "times as fast"} <= set(texts)


def test_the_same_marks_give_the_same_file() -> None:
    """There is no date, version or random name, so an unchanged page has no difference."""
    first, second = (chart(ROWS, STYLES, MARKS, AXIS) for _ in range(2))
    assert first == second
    assert "matplotlib v" not in first.lower()


@pytest.mark.parametrize(("value", "edge"), [(math.inf, 100.0), (0.0, 1.0)])
def test_a_mark_beyond_the_axis_is_drawn_at_its_edge(value: float, edge: float) -> None:
    """It is a release that never ended, or one that harmed nobody on a logarithmic axis."""
    beyond, at_edge = (
        places(chart(ROWS, STYLES, {("easy", "ours"): Mark(x, x, x)}, AXIS), STYLES["ours"].colour)
        for x in (value, edge)
    )
    assert len(beyond) == 1
    assert beyond == at_edge


def test_a_logarithmic_axis_has_equal_steps_for_equal_factors() -> None:
    """1 to 10 is as wide as 10 to 100."""
    svgs = [chart(ROWS, STYLES, {("easy", "ours"): Mark(x, x, x)}, AXIS) for x in (1, 10, 100)]
    left, middle, right = (places(svg, STYLES["ours"].colour)[0][0] for svg in svgs)
    assert middle - left == pytest.approx(right - middle, abs=0.01)


def test_rows_and_contenders_within_them_keep_their_order_from_top_to_bottom() -> None:
    """This is the order in which they are given."""
    marks = {(case, contender): Mark(10, 10, 10) for case, _ in ROWS for contender in STYLES}
    svg = chart(ROWS, STYLES, marks, AXIS)
    (ours_easy, ours_hard), (theirs_easy, theirs_hard) = (places(svg, style.colour) for style in STYLES.values())
    assert ours_easy[1] < theirs_easy[1] < ours_hard[1] < theirs_hard[1]


def test_a_hollow_mark_is_white_inside() -> None:
    """It means late, or refused."""
    mark = {("easy", "ours"): Mark(10, 10, 10, is_hollow=True)}
    assert "fill: #ffffff; stroke: #00674f" in chart(ROWS, STYLES, mark, AXIS)
