"""Sends every decision about a release to Grafana as an annotation: from the ledger, in its own thread.

The control loop does not wait for it. A Grafana that is down or slow delays only the annotations; they are sent when
it is back.
"""

import html
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path

import structlog

from monitoring.errors import GrafanaError
from monitoring.grafana.push import Annotation, Grafana
from rollout.errors import LedgerError
from rollout.explain.timeline import Decision, Timeline, timeline
from rollout.ledger.ledger import Ledger

log = structlog.get_logger()

EVERY_S = 2.0
_SLOWEST_S = 60.0  # between tries while Grafana fails
_COLOURED = ("promoted", "rolled_back")  # the boards colour these; all others get the tag `decision`


def release_annotations(ledger: Path, controller_url: str, *, since: int = 1) -> Iterator[Annotation]:
    """An annotation for each decision about the releases from number `since` on. Raises LedgerError."""
    opened = Ledger(ledger, read_only=True)
    try:
        for number in count(since):
            events = list(opened.events(release=number, without_ticks=True))
            if not events:
                return
            release = timeline(events)
            for decision in release.decisions:
                yield _annotation(release, decision, controller_url)
    finally:
        opened.close()


def _annotation(release: Timeline, decision: Decision, controller_url: str) -> Annotation:
    title = f"Release {release.number}, {release.canary}: {decision.title}"
    why = f". {decision.reason}" if decision.reason else ""
    link = f'<a href="{controller_url}/releases/{release.number}">report</a>'
    return Annotation(
        key=f"{release.number}/{decision.action}/{decision.at_s:.3f}",
        at_s=decision.at_s,
        text=f"{html.escape(title + why)} (by {html.escape(decision.by)}; {link})",
        tags=(f"release:{release.number}", decision.action if decision.action in _COLOURED else "decision"),
    )


class Annotator(threading.Thread):
    """A thread that sends the decisions in the ledger to Grafana until `stop`.

    Args:
        connect: opens a connection to Grafana.
        annotations: returns the annotations of the releases from a number on.
    """

    def __init__(
        self,
        connect: Callable[[], Grafana],
        annotations: Callable[[int], Iterable[Annotation]],
        *,
        every_s: float = EVERY_S,
    ) -> None:
        super().__init__(name="annotations", daemon=True)  # a Grafana that hangs does not delay the end of the process
        self._connect, self._annotations, self._every_s = connect, annotations, every_s
        self._sent: set[str] = set()  # keys
        self._stopped = threading.Event()

    def run(self) -> None:
        wait_s, fails = self._every_s, False
        while not self._stopped.wait(wait_s):
            try:
                self._tell()
            except Exception as error:
                if not fails:
                    is_ours = isinstance(error, GrafanaError | LedgerError | OSError)
                    log.warning("annotations_fail", error=str(error), exc_info=None if is_ours else error)
                wait_s, fails = min(2 * wait_s, _SLOWEST_S), True
            else:
                if fails:
                    log.info("annotations_work_again")
                wait_s, fails = self._every_s, False

    def stop(self) -> None:
        """End the thread after the current transfer."""
        self._stopped.set()

    def _tell(self) -> None:
        newest = max((int(key.partition("/")[0]) for key in self._sent), default=1)
        news = [one for one in self._annotations(newest) if one.key not in self._sent]
        if news:
            with self._connect() as grafana:
                grafana.push_annotations(news)
            self._sent |= {annotation.key for annotation in news}
