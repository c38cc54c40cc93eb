"""Checks the boards against a live Prometheus: sends every query of every panel, as Grafana would."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any

import promql_parser

from monitoring.errors import NothingToCheck
from monitoring.grafana.dashboards import Board, Needs
from monitoring.prometheus.api import PrometheusApi, QueryRefused, Span

_POINTS = 240  # what fits into a panel of half a screen
_BUILT_IN = {"ALERTS"}  # Prometheus has this metric only while there is an alert
_LABEL_VALUES = re.compile(r"label_values\((?P<selector>.*), *(?P<label>\w+)\)")
_NUMERICAL_DESC = 4  # Grafana's number for that order of a variable's values


class State(Enum):
    """The outcome of one query of a panel."""

    DRAWN = "drawn"
    EMPTY = "empty"
    UNKNOWN_METRIC = "unknown metric"
    REFUSED = "refused"
    NOT_YET = "not yet"  # empty, because the event that it needs has not happened in this period

    @property
    def is_fault(self) -> bool:
        return self in (State.EMPTY, State.UNKNOWN_METRIC, State.REFUSED)


@dataclass(frozen=True, slots=True)
class Finding:
    """One query of one panel, and its outcome."""

    board: str
    panel: str
    query: str  # as sent
    state: State
    detail: str  # Prometheus's message, or what is missing
    series: Mapping[str, Sequence[float]] = field(default_factory=dict)


def check(
    boards: Sequence[Board], prometheus: PrometheusApi, span: Span, *, scrape_interval_s: float = 15.0
) -> Iterator[Finding]:
    """Send every query of every panel over `span`.

    Args:
        scrape_interval_s: used if the store does not report its scrape interval; the default is Grafana's.

    Raises: PrometheusUnreachable; NothingToCheck if there was no traffic in `span`.
    """
    asked = _Asked(prometheus, span, scrape_interval_s)
    drawn = [board for board in boards if asked.has_happened(board.about)]
    if not drawn:
        raise NothingToCheck(
            "nothing can be checked: the gateway got no requests, and no judge was asked",
            saw=f"no traffic in the last {span.length_s:.0f} s, according to {prometheus.url}",
            do="send some (`kanaria loadtest`), or look further back with --last",
        )
    for board in drawn:
        yield from asked.of_board(board)


class _Asked:
    """One Prometheus, asked about one period."""

    def __init__(self, prometheus: PrometheusApi, span: Span, scrape_interval_s: float) -> None:
        self._prometheus, self._span = prometheus, span
        told = prometheus.scrape_interval()
        self._scrape_s = promql_parser.parse_duration(told).total_seconds() if told else scrape_interval_s
        self._names = _BUILT_IN | set(prometheus.label_values("__name__", span))
        self._happened: dict[str, bool] = {}

    def _step_s(self, target: Mapping[str, Any]) -> float:
        least_s = promql_parser.parse_duration(target.get("interval") or "1s").total_seconds()
        return max(least_s, self._span.length_s / _POINTS)

    def _times(self, step_s: float) -> dict[str, str]:
        # As Grafana defines $__rate_interval: long enough that a missed scrape leaves no gap.
        rate_s = max(4 * self._scrape_s, step_s + self._scrape_s)
        return {"__rate_interval": f"{round(rate_s * 1000)}ms", "__range": f"{round(self._span.length_s)}s"}

    def has_happened(self, needs: Needs, chosen: Mapping[str, str] = MappingProxyType({})) -> bool:
        query = _filled(needs.value, {**self._times(1.0), **chosen})
        if query not in self._happened:
            self._happened[query] = bool(self._prometheus.query(query, self._span.end_s))
        return self._happened[query]

    def of_board(self, board: Board) -> Iterator[Finding]:
        document = board.document
        chosen = self._choices(document["templating"]["list"])
        drawn = [panel for panel in document["panels"] if panel["type"] != "row"]
        for panel, declared in zip(drawn, board.panels, strict=True):
            for target, needs in zip(panel["targets"], declared.needs, strict=True):
                yield self._finding(board, panel["title"], target, needs, chosen)

    def _choices(self, variables: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """The value that Grafana would choose for each variable, in order, because a variable may depend on another."""
        chosen: dict[str, str] = {}
        for variable in variables:
            if variable["type"] == "constant":
                chosen[variable["name"]] = str(variable["query"])
                continue
            call = _LABEL_VALUES.fullmatch(_filled(variable["query"], chosen))
            if call is None:
                raise ValueError(f"a board's variable is `{variable['query']}`: only label_values(...) can be checked")
            values = self._prometheus.label_values(call["label"], self._span, selector=call["selector"])
            if variable.get("sort") == _NUMERICAL_DESC:
                values = sorted(values, key=int, reverse=True)
            if variable.get("includeAll"):
                chosen[variable["name"]] = "|".join(re.escape(value).replace("\\", "\\\\") for value in values)
            else:
                chosen[variable["name"]] = values[0] if values else ""
        return chosen

    def _finding(
        self, board: Board, panel: str, target: Mapping[str, Any], needs: Needs, chosen: Mapping[str, str]
    ) -> Finding:
        step_s = self._step_s(target)
        query = _filled(target["expr"], {**self._times(step_s), **chosen})
        try:
            unknown = metrics_of(query) - self._names
            if target.get("instant"):
                series = self._prometheus.query(query, self._span.end_s)
            else:
                series = self._prometheus.query_range(query, self._span, step_s)
        except (QueryRefused, ValueError) as error:
            return Finding(board.title, panel, query, State.REFUSED, str(error))
        if series and not unknown:
            return Finding(board.title, panel, query, State.DRAWN, f"{len(series)} series", series)
        if not self.has_happened(needs, chosen):
            return Finding(board.title, panel, query, State.NOT_YET, f"needs {needs.name.lower().replace('_', ' ')}")
        if unknown:
            return Finding(board.title, panel, query, State.UNKNOWN_METRIC, ", ".join(sorted(unknown)))
        return Finding(board.title, panel, query, State.EMPTY, "no series with a number")


def metrics_of(query: str) -> set[str]:
    """The names of all metrics that `query` reads. Raises ValueError if it is not PromQL."""
    names: set[str] = set()

    def visit(expr: promql_parser.Expr) -> None:
        if isinstance(expr, promql_parser.VectorSelector) and expr.name:
            names.add(expr.name)

    promql_parser.walk(promql_parser.parse(query), visit)
    return names


def _filled(text: str, values: Mapping[str, str]) -> str:
    """`text` with `$name` and `${name:format}` replaced for each name in `values`."""
    return re.sub(
        r"\$(?:(\w+)|\{(\w+)(?::\w+)?\})",
        lambda found: values.get(found[1] or found[2], found[0]),
        text,
    )
