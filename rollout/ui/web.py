"""The controller's page at `/`: the same status as `kanaria status`, for a browser.

One self-contained page that fetches itself again every two seconds; without scripts it reloads.
"""

from rollout.ui.html import templates
from rollout.ui.status import StatusView, strongest


def status_page(status: StatusView) -> str:
    """The page as HTML."""
    release = status.release
    return (
        templates()
        .get_template("status.html")
        .render(
            status=status,
            signals=strongest(release.signals) if release else [],
            watched=strongest(release.watch.signals) if release and release.watch else [],
        )
    )
