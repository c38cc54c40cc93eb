"""Grafana's boards as code. `boards()` is all that the rest of Kanaria needs of it."""

from monitoring.dashboards.board import TAG, Board
from monitoring.dashboards.model import model
from monitoring.dashboards.needs import Needs
from monitoring.dashboards.overview import overview
from monitoring.dashboards.release import release

__all__ = ["TAG", "Board", "Needs", "boards"]


def boards() -> tuple[Board, ...]:
    """Every board, for the default addresses."""
    return overview(), release(), model()
