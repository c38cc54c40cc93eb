"""The six kinds of panel, made with the Grafana Foundation SDK. They look the same on every board."""

from collections.abc import Mapping, Sequence
from typing import Literal

from grafana_foundation_sdk.builders import barchart, bargauge, common, dashboard, heatmap, stat, statetimeline
from grafana_foundation_sdk.builders import timeseries as lines
from grafana_foundation_sdk.models import common as c
from grafana_foundation_sdk.models import dashboard as d
from grafana_foundation_sdk.models import heatmap as h

from monitoring.grafana.dashboards.style import About, Panel, Query, finished

Names = Mapping[str, tuple[str, str]]  # value -> its word and colour


def graph(
    about: About,
    *queries: Query,
    span: int = 12,
    height: int = 8,
    stack: Literal["normal", "percent"] | None = None,
    is_stepped: bool = False,
    has_limits: bool = False,
    colors: Sequence[tuple[str, str]] = (),
    top: float | None = None,
) -> Panel:
    """Lines over time.

    Args:
        stack: stack the series, as they are or as shares.
        is_stepped: hold each value until the next one.
        has_limits: draw the thresholds as dashed lines.
        colors: (regular expression on a series' name, colour).
        top: highest value of the axis; None: as high as the data.
    """
    drawing = (
        lines.Panel()
        .line_width(1 if stack else 2)
        .fill_opacity(60 if stack else 4)
        .show_points(c.VisibilityMode.AUTO)
        .span_nulls(15_000.0)  # ms; the judge has no evidence for a moment after each decision
        .axis_soft_min(0)
        .line_interpolation(c.LineInterpolation.STEP_AFTER if is_stepped else c.LineInterpolation.LINEAR)
        .color_scheme(dashboard.FieldColor().mode(d.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .legend(
            common.VizLegendOptions()
            .display_mode(c.LegendDisplayMode.TABLE)
            .placement(c.LegendPlacement.RIGHT if span > 12 else c.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
            .sort_by("Max")
            .sort_desc(True)
        )
        .tooltip(common.VizTooltipOptions().mode(c.TooltipDisplayMode.MULTI).sort(c.SortOrder.DESCENDING))
    )
    if stack:
        mode = c.StackingMode.PERCENT if stack == "percent" else c.StackingMode.NORMAL
        drawing.stacking(common.StackingConfig().mode(mode).group("A"))
    if has_limits:
        drawing.thresholds_style(common.GraphThresholdsStyleConfig().mode(c.GraphThresholdsStyleMode.DASHED))
    for pattern, color in colors:
        drawing.override_by_regexp(pattern, [_fixed(color)])
    if top is not None:
        drawing.max(top)
    return finished(drawing, about, queries, span, height)


def number(
    about: About,
    *queries: Query,
    span: int = 4,
    height: int = 4,
    shows: Literal["value", "name", "both"] = "value",
    names: Names | None = None,
    has_history: bool = True,
    decimals: int | None = None,
    none: str = "none",
) -> Panel:
    """The last value in large type, the name of its series, both, or its word in `names`; `none` without a value."""
    modes = {
        "value": c.BigValueTextMode.VALUE,
        "name": c.BigValueTextMode.NAME,
        "both": c.BigValueTextMode.VALUE_AND_NAME,
    }
    drawing = (
        stat.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .color_mode(c.BigValueColorMode.BACKGROUND if shows == "name" else c.BigValueColorMode.VALUE)
        .graph_mode(c.BigValueGraphMode.AREA if has_history else c.BigValueGraphMode.NONE)
        .text_mode(modes[shows])
        .no_value(none)
    )
    if decimals is not None:
        drawing.decimals(decimals)
    if names:
        drawing.mappings([_mapping(names)]).color_mode(c.BigValueColorMode.BACKGROUND)
    return finished(drawing, about, queries, span, height)


def bars(about: About, query: Query, *, top: float, span: int = 8, height: int = 8) -> Panel:
    """The last values as horizontal bars from 0 to `top`."""
    drawing = (
        bargauge.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .orientation(c.VizOrientation.HORIZONTAL)
        .display_mode(c.BarGaugeDisplayMode.BASIC)
        .value_mode(c.BarGaugeValueMode.COLOR)
        .min(0)
        .max(top)
    )
    return finished(drawing, about, (query,), span, height)


def states(about: About, bands: Mapping[str, tuple[str, Names]], *, span: int = 12, height: int = 6) -> Panel:
    """A band over time for each name in `bands`, whose value is an expression, with the words and colours to show.

    If a name contains labels, there is one band for each of their values.
    """
    drawing = (
        statetimeline.Panel()
        .show_value(c.VisibilityMode.AUTO)
        .merge_values(True)
        .fill_opacity(80)
        .line_width(0)
        .legend(common.VizLegendOptions().show_legend(False))
    )
    queries = [Query(expr, name) for name, (expr, _) in bands.items()]
    for place, (_, names) in enumerate(bands.values()):
        mapping = d.DynamicConfigValue(id_val="mappings", value=[_mapping(names)])
        drawing.override_by_query(chr(ord("A") + place), [mapping])
    return finished(drawing, about, queries, span, height)


def heat(about: About, query: Query, span: int = 12, height: int = 8) -> Panel:
    """A histogram over time; darker means more."""
    drawing = (
        heatmap.Panel()
        .calculate(False)
        .color(heatmap.HeatmapColorOptions().mode(h.HeatmapColorMode.SCHEME).scheme("Blues").steps(64))
        .y_axis(heatmap.YAxisConfig().unit(about.unit).axis_placement(c.AxisPlacement.LEFT))
        .cell_gap(1)
        .show_legend()
    )
    return finished(drawing, about, (query,), span, height)


def grouped(about: About, query: Query, *, rows: str, columns: str, span: int = 12, height: int = 8) -> Panel:
    """A group of bars for each value of the label `rows`, with a bar for each value of `columns`."""
    by_row = d.DataTransformerConfig(
        id_val="groupingToMatrix",
        options={"rowField": rows, "columnField": columns, "valueField": "Value", "emptyValue": "zero"},
    )
    drawing = (
        barchart.Panel()
        .with_transformation(by_row)
        .orientation(c.VizOrientation.VERTICAL)
        .group_width(0.7)
        .fill_opacity(80)
        .show_value(c.VisibilityMode.NEVER)
        .color_scheme(dashboard.FieldColor().mode(d.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .legend(common.VizLegendOptions().show_legend(True).placement(c.LegendPlacement.RIGHT))
    )
    return finished(drawing, about, (query,), span, height)


def _mapping(names: Names) -> d.ValueMap:
    results = {value: d.ValueMappingResult(text=word, color=color) for value, (word, color) in names.items()}
    return d.ValueMap(options=results)


def _fixed(color: str) -> d.DynamicConfigValue:
    return d.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": color})
