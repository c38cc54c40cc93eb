"""The controller's page at `/`: the same status as `kanaria status`, for a browser, and every command as a button.

It refreshes itself every two seconds. Without scripts it reloads, and it shows the commands to type.
"""

from collections.abc import Iterable, Sequence

from rollout.sources.firing import Firing
from rollout.ui.chart import chart
from rollout.ui.html import Link, templates
from rollout.ui.views import StatusView, strongest

RUNBOOKS = "/runbooks"  # this page has an anchor for each alert


def status_page(status: StatusView, *, links: Iterable[Link] = (), alerts: Sequence[Firing] = ()) -> str:
    """The page as HTML."""
    release, leads_to = status.release, list(links)
    return (
        templates()
        .get_template("status.html")
        .render(
            status=status,
            signals=strongest(release.signals) if release else [],
            watched=strongest(release.watch.signals) if release and release.watch else [],
            chart=chart(release.trace) if release and release.trace else None,
            links=leads_to,
            has_runbooks=any(link.url == RUNBOOKS for link in leads_to),
            alerts=sorted(alerts, key=lambda alert: alert.since_s),
        )
    )
