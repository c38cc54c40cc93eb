"""Every decision about a release, as annotations in Grafana: from the ledger, in a thread of its own.

The control loop neither waits for it nor knows of it. A Grafana that is dead, slow or strange delays annotations and
nothing else; what it missed it is told when it is back.
"""

import html
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path

import structlog

from monitoring.errors import GrafanaError
from monitoring.grafana import Annotation, Grafana
from rollout.errors import LedgerError
from rollout.store import Ledger
from rollout.view import Decision, ReleaseView, view

log = structlog.get_logger()

EVERY_S = 2.0
_SLOWEST_S = 60.0  # between tries while Grafana fails
_COLOURED = ("promoted", "rolled_back")  # the boards give them a colour; all else is a decision


def release_annotations(ledger: Path, controller_url: str, *, since: int = 1) -> Iterator[Annotation]:
    """An annotation for each decision about every release from number `since` on. Raises LedgerError."""
    opened = Ledger(ledger, read_only=True)
    try:
        for number in count(since):
            events = list(opened.events(release=number, without_ticks=True))
            if not events:
                return
            release = view(events)
            for decision in release.decisions:
                yield _annotation(release, decision, controller_url)
    finally:
        opened.close()


def _annotation(release: ReleaseView, decision: Decision, controller_url: str) -> Annotation:
    said = f"Release {release.number}, {release.canary}: {decision.title}"
    why = f". {decision.reason}" if decision.reason else ""
    link = f'<a href="{controller_url}/releases/{release.number}">report</a>'
    return Annotation(
        key=f"{release.number}/{decision.action}/{decision.at_s:.3f}",
        at_s=decision.at_s,
        text=f"{html.escape(said + why)} (by {html.escape(decision.by)}; {link})",
        tags=(f"release:{release.number}", decision.action if decision.action in _COLOURED else "decision"),
    )


class Annotator(threading.Thread):
    """Tells a Grafana what the ledger says, until `stop`.

    Args:
        connect: opens the Grafana.
        annotations: gives those of every release from a number on.
    """

    def __init__(
        self,
        connect: Callable[[], Grafana],
        annotations: Callable[[int], Iterable[Annotation]],
        *,
        every_s: float = EVERY_S,
    ) -> None:
        super().__init__(name="annotations", daemon=True)  # nobody waits for a Grafana that hangs
        self._connect, self._annotations, self._every_s = connect, annotations, every_s
        self._told: set[str] = set()  # keys
        self._stopped = threading.Event()

    def run(self) -> None:
        wait_s, fails = self._every_s, False
        while not self._stopped.wait(wait_s):
            try:
                self._tell()
            except (GrafanaError, LedgerError) as error:
                if not fails:
                    log.warning("annotations_fail", error=error.what, saw=error.saw)
                wait_s, fails = min(2 * wait_s, _SLOWEST_S), True
            else:
                if fails:
                    log.info("annotations_work_again")
                wait_s, fails = self._every_s, False

    def stop(self) -> None:
        """End after what is being sent now."""
        self._stopped.set()

    def _tell(self) -> None:
        newest = max((int(key.partition("/")[0]) for key in self._told), default=1)
        news = [told for told in self._annotations(newest) if told.key not in self._told]
        if news:
            with self._connect() as grafana:
                grafana.push_annotations(news)
            self._told |= {annotation.key for annotation in news}
