"""What all rows of the release board share: the chosen release, its two versions and its pages."""

from contract import metrics as m
from monitoring.grafana.dashboards.style import CANARY, STABLE

OF_CANARY, OF_STABLE = 'version="$canary"', 'version="$stable"'
COLORS = ((r"/^canary/", CANARY), (r"/^stable/", STABLE), (r"/^copies/", "purple"))
REPORT = ("Report of this release", "/releases/${release:raw}")
WHY = ("Why", "/releases/${release:raw}#why-${release:raw}")


def of_release(expr: str) -> str:
    """Limit `expr` to the time while the chosen release was the newest."""
    return f'({expr}) and on () {m.RELEASE_INFO}{{release="$release"}}'
