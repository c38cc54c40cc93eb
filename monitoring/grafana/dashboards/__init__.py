"""Grafana's boards as code: `boards` makes all of them."""

from collections.abc import Sequence

from monitoring.grafana.dashboards.board import TAG, Board
from monitoring.grafana.dashboards.judge import judge
from monitoring.grafana.dashboards.model import model
from monitoring.grafana.dashboards.needs import Needs
from monitoring.grafana.dashboards.overview import overview
from monitoring.grafana.dashboards.release import release
from monitoring.grafana.dashboards.signal_graph import SignalGraph

__all__ = ["TAG", "Board", "Needs", "SignalGraph", "boards"]


def boards(signals: Sequence[SignalGraph]) -> tuple[Board, ...]:
    """Every board, for the default addresses. `signals` are those that the release board compares."""
    return overview(), release(signals), model(), judge()
