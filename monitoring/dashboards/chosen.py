"""What all rows of the board `release` share: the chosen release, its two versions, its pages. Pure."""

from monitoring.dashboards.style import CANARY, STABLE

OF_CANARY, OF_STABLE = 'version="$canary"', 'version="$stable"'
COLORS = ((r"/^canary/", CANARY), (r"/^stable/", STABLE), (r"/^copies/", "purple"))
REPORT = ("Report of this release", "/releases/${release:raw}")
WHY = ("Why", "/releases/${release:raw}#why-${release:raw}")


def of_release(expr: str) -> str:
    """What was true while the chosen release was the newest."""
    return f'({expr}) and on () kanaria_release_info{{release="$release"}}'
