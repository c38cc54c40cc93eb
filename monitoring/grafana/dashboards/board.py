"""A board: rows of panels, variables, links and annotations, as Grafana's JSON.

The addresses of the controller and of the runbooks are hidden constants of every board. So one committed file fits
every deployment: `Board.at` sets them when a board is pushed.
"""

import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as d

from monitoring.addresses import CONTROLLER, runbooks_at
from monitoring.grafana.dashboards.needs import Needs
from monitoring.grafana.dashboards.style import BAD, DATA_SOURCE, GOOD, Panel, link

TAG = "kanaria"  # of every board and of every annotation


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top of a board, or a hidden value that depends on another choice.

    The default is the first value in order: for numbers the highest, for names the first.
    """

    name: str
    label: str
    description: str
    query: str  # `label_values(selector, label)`
    is_number: bool = False
    is_hidden: bool = False
    has_all: bool = False


@dataclass(frozen=True, slots=True)
class Board:
    uid: str
    title: str
    description: str
    range: str  # the time shown by default, as Grafana writes durations
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()
    annotation_tags: tuple[str, ...] = ()  # more tags that the decisions shown must have; may contain variables
    controller: str = CONTROLLER
    about: Needs = Needs.TRAFFIC  # without this event in the time shown, the board is empty

    @property
    def panels(self) -> Iterator[Panel]:
        """Every panel, in reading order."""
        for row in self.rows:
            yield from row.panels

    @property
    def json(self) -> str:
        """The text that Grafana reads; the same board always gives the same text."""
        return json.dumps(_built(self), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"

    @property
    def document(self) -> dict[str, Any]:
        """The JSON, parsed."""
        document: dict[str, Any] = json.loads(self.json)
        return document

    def at(self, controller: str) -> "Board":
        """The same board for the controller at this URL."""
        return replace(self, controller=controller.rstrip("/"))


def _built(board: Board) -> d.Dashboard:
    built = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags([TAG])
        .timezone("browser")
        .refresh("30s")
        .time(f"now-{board.range}", "now")
        .tooltip(d.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(link("Status page", "${controller:raw}/"))
        .link(link("Runbooks", "${runbooks:raw}"))
        .link(
            dashboard.DashboardLink("Kanaria's boards")
            .type(d.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(False)
            .keep_time(True)
        )
        .with_variable(_constant("controller", board.controller))
        .with_variable(_constant("runbooks", runbooks_at(board.controller)))
    )
    for variable in board.variables:
        built.with_variable(_variable(variable))
    for name, color, tags in (
        ("Decisions", "blue", ("decision",)),
        ("Promoted", GOOD, ("promoted",)),
        ("Rolled back", BAD, ("rolled_back",)),
    ):
        built.annotation(_annotation(name, color, [TAG, *tags, *board.annotation_tags]))
    for row in board.rows:
        built.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            built.with_panel(deepcopy(panel.drawing))  # a copy, because the board sets the panel's grid position
    made = built.build()
    for number, placed in enumerate(made.panels or (), start=1):
        placed.id_val = number  # links to a panel stay valid
    return made


def _constant(name: str, value: str) -> dashboard.ConstantVariable:
    return dashboard.ConstantVariable(name).value(value)


def _variable(variable: Variable) -> dashboard.QueryVariable:
    made = (
        dashboard.QueryVariable(variable.name)
        .label(variable.label)
        .description(variable.description)
        .datasource(DATA_SOURCE)
        .query(variable.query)
        .refresh(d.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(d.VariableSort.NUMERICAL_DESC if variable.is_number else d.VariableSort.ALPHABETICAL_ASC)
        .hide(d.VariableHide.HIDE_VARIABLE if variable.is_hidden else d.VariableHide.DONT_HIDE)
    )
    return made.multi(True).include_all(True) if variable.has_all else made


def _annotation(name: str, color: str, tags: Sequence[str]) -> dashboard.AnnotationQuery:
    """The release events with all of `tags` that the controller pushed to this Grafana."""
    target = dashboard.AnnotationTarget().type("tags").tags(list(tags)).match_any(False).limit(1000)
    return (
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(d.DataSourceRef(type_val="grafana", uid="-- Grafana --"))
        .enable(True)
        .icon_color(color)
        .target(target)
    )
