"""Notifies people about decisions, from the ledger, in its own thread. Releases do not wait for it.

The ledger is the queue. A file stores for each address the last event that was delivered. So each decision is delivered
at least once, even if the controller is killed in between, and not again at each start.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path
from typing import Annotated, Any, Protocol

import structlog
from pydantic import Field, TypeAdapter, ValidationError

from contract import metrics as m
from contract.complaints import first_complaint
from contract.files import write_whole
from kanaria.stack.notify_addresses import Address, NotDelivered
from rollout.errors import LedgerError
from rollout.explain.notices import Notice, NoticeKind, kind_of, notice
from rollout.ledger import events as e
from rollout.ledger.ledger import Ledger

log = structlog.get_logger()

EVERY_S = 1.0
LONGEST_WAIT_S = 300.0  # between two tries of an address that fails
MOST_WAITING = 100  # messages for one address; above this the oldest are dropped


@dataclass(frozen=True, slots=True)
class Mark:
    """The last event that was delivered to an address."""

    number: Annotated[int, Field(ge=0, lt=2**62)] = 0
    at_s: Annotated[float, Field(allow_inf_nan=False)] = (
        0.0  # its time, Unix seconds: in a restored ledger the number may belong to another event
    )


@dataclass(frozen=True, slots=True)
class _NewsItem:
    """An event that people are notified about."""

    mark: Mark
    release: int
    event: str  # `person_asked`
    kind: NoticeKind


_KEPT = TypeAdapter(dict[str, Any])
_MARK = TypeAdapter(Mark)
_FROM_NOW_ON = "its addresses get only messages about what happens from now on"


class Counters(Protocol):
    def notified(self, outcome: str, messages: int = 1) -> None:
        """Count messages by their outcome, one of those in `contract.metrics`."""


class News:
    """Reads the events of one ledger that people are notified about. Every method raises LedgerError."""

    def __init__(self, ledger: Path) -> None:
        self._path = ledger

    def end(self) -> Mark:
        """The last event; the number is 0 if there is none."""
        with closing(Ledger(self._path, read_only=True)) as ledger:
            return next((Mark(number, event.at_s) for number, event in ledger.numbered(since=ledger.count())), Mark())

    def after(self, mark: Mark) -> list[_NewsItem]:
        """The events after `mark`, oldest first. If the ledger was replaced: those later than the mark's time."""
        with closing(Ledger(self._path, read_only=True)) as ledger:
            at_mark = next((Mark(number, event.at_s) for number, event in ledger.numbered(since=mark.number)), Mark())
            since, since_s = (mark.number + 1, -inf) if mark in (at_mark, Mark()) else (1, mark.at_s)
            return [
                _NewsItem(Mark(number, event.at_s), event.release, event.kind, kind)
                for number, event in ledger.numbered(since=since, without_ticks=True)
                if event.release is not None and event.at_s > since_s and (kind := _kind(ledger, event, event.release))
            ]

    def notice(self, item: _NewsItem) -> Notice:
        """The message about an event."""
        with closing(Ledger(self._path, read_only=True)) as ledger:
            own = ledger.numbered(release=item.release)
            return notice([event for number, event in own if number <= item.mark.number])


def _kind(ledger: Ledger, event: e.Event, release: int) -> NoticeKind | None:
    if kind_of(event, None) != "promoted":
        return kind_of(event, None)
    try:
        return kind_of(event, next(ledger.events(release=release)))
    except LedgerError:  # the first event of this release cannot be read
        return "promoted"


@dataclass(slots=True)
class _Queue:
    """The messages that wait for one address."""

    address: Address
    read_to: Mark
    waiting: deque[_NewsItem] = field(default_factory=deque)
    failures: int = 0  # in a row
    next_try_s: float = 0.0  # monotonic, like the next
    waits_since_s: float = 0.0  # since when a message for it has waited


class Notifier(threading.Thread):
    """A thread that delivers messages until `stop`, about everything that happens after its first start."""

    def __init__(
        self,
        addresses: Sequence[Address],
        ledger: Path,
        *,
        told: Path,
        name: str,
        page: str,
        counters: Counters,
        every_s: float = EVERY_S,
        first_wait_s: float = 1.0,
    ) -> None:
        """
        Args:
            told: the file that stores the last delivered event of each address.
            name: of the deployment.
            page: URL of the controller's page for people.
            first_wait_s: wait after an address failed once, seconds; it doubles with each further failure.
        """
        super().__init__(name="notifier", daemon=True)  # an address that hangs does not delay the end of the process
        self._addresses, self._news, self._path = addresses, News(ledger), told
        self._name, self._page, self._counters = name, page, counters
        self._every_s, self._first_wait_s = every_s, first_wait_s
        self._queues: list[_Queue] | None = None  # None: the ledger could not be read yet
        self._marks: dict[str, Mark] = {}  # the last delivered event, by address
        self._fails_since_s: float | None = None  # since when every look has failed, monotonic
        self._stopped = threading.Event()

    @property
    def overdue_s(self) -> float:
        """How long a message has waited for some address, or it has been unknown whether one does, seconds."""
        waits_since_s = [queue.waits_since_s for queue in self._queues or () if queue.waiting]
        if self._fails_since_s is not None:
            waits_since_s.append(self._fails_since_s)
        return time.monotonic() - min(waits_since_s) if waits_since_s else 0.0

    def run(self) -> None:
        had_trouble = False
        while not self._stopped.wait(self._every_s):
            try:
                self.look()
            except Exception as error:
                if not had_trouble:
                    is_ours = isinstance(error, LedgerError | OSError)
                    log.warning("notifier_fails", error=str(error), exc_info=None if is_ours else error)
                had_trouble = True
            else:
                had_trouble = False

    def stop(self) -> None:
        """End the thread after the current message."""
        self._stopped.set()

    def look(self) -> None:
        """Read new events and try to deliver waiting messages. A failing address does not delay the others.

        Raises LedgerError, OSError.
        """
        try:
            self._look()
        except Exception:
            self._fails_since_s = self._fails_since_s or time.monotonic()
            raise
        self._fails_since_s = None

    def _look(self) -> None:
        end = self._news.end()
        if self._queues is None:
            self._queues = self._begun(end)
        errors = [error for queue in self._queues if (error := self._serve(queue, end))]
        if errors:
            raise errors[0]

    def _serve(self, queue: _Queue, end: Mark) -> Exception | None:
        """Read and deliver for one address. Returns the error, if there was one."""
        try:
            if queue.read_to != end:
                self._read(queue, end)
            while queue.waiting and queue.next_try_s <= time.monotonic() and not self._stopped.is_set():
                self._deliver(queue)
        except Exception as error:  # noqa: BLE001 - raised after the other addresses were served
            return error
        return None

    def _read(self, queue: _Queue, end: Mark) -> None:
        """Put new events of the kinds that its address wants into the queue."""
        news = [item for item in self._news.after(queue.read_to) if item.kind in queue.address.kinds]
        if news and not queue.waiting:
            queue.waits_since_s = time.monotonic()
        queue.waiting += news
        queue.read_to = end
        self._drop_the_oldest(queue)

    def _begun(self, end: Mark) -> list[_Queue]:
        """Load the marks. A new address gets messages about what happens from now on."""
        self._marks = _read_marks(self._path)
        known = {address.key: self._marks.get(address.key, end) for address in self._addresses}
        self._marks = known
        self._keep_marks()
        return [_Queue(address, known[address.key]) for address in self._addresses]

    def _drop_the_oldest(self, queue: _Queue) -> None:
        dropped = len(queue.waiting) - MOST_WAITING
        for _ in range(dropped):
            queue.waiting.popleft()
        if dropped > 0:
            self._counters.notified(m.DROPPED, dropped)
            log.warning("notifications_dropped", address=queue.address.name, messages=dropped)

    def _deliver(self, queue: _Queue) -> None:
        """Try to deliver the oldest message."""
        item, address = queue.waiting[0], queue.address
        entry = f"entry {item.mark.number} of the ledger"
        links = f"{self._page}/releases/{item.release} · {self._page}/ · {entry}"
        outcome, message = self._written(item, is_first_try=not queue.failures)
        try:
            address.send(f"{self._name}: {message.title}", (*message.lines, links))
        except NotDelivered as error:
            self._failed(queue, str(error))
            return
        self._counters.notified(outcome)
        if queue.failures:
            log.info("notified_again", address=address.name)
        queue.failures, queue.waits_since_s = 0, time.monotonic()
        queue.waiting.popleft()
        self._marks[address.key] = item.mark
        self._keep_marks()

    def _written(self, item: _NewsItem, *, is_first_try: bool) -> tuple[str, Notice]:
        """The outcome to count, and the message about an event; only a title if the text cannot be written."""
        try:
            return m.DELIVERED, self._news.notice(item)
        except Exception as error:
            if is_first_try:
                log.exception(
                    "notification_without_text", release=item.release, entry=item.mark.number, error=str(error)
                )
            title = f"release {item.release}: {item.event.replace('_', ' ')} (entry {item.mark.number} of the ledger)"
            return m.WITHOUT_TEXT, Notice(item.kind, title, ("Its text could not be written.",))

    def _failed(self, queue: _Queue, saw: str) -> None:
        self._counters.notified(m.FAILED)
        if not queue.failures:
            log.warning("not_notified", address=queue.address.name, saw=saw)
        wait_s = min(LONGEST_WAIT_S, self._first_wait_s * 2**queue.failures)
        queue.failures = min(queue.failures + 1, 30)
        queue.next_try_s = time.monotonic() + wait_s

    def _keep_marks(self) -> None:
        kept = {key: asdict(mark) for key, mark in self._marks.items()}
        write_whole(self._path, json.dumps(kept), mode=0o600)


def _read_marks(path: Path) -> dict[str, Mark]:
    """The last delivered event of each address. What cannot be read is logged and left out."""
    try:
        kept = _KEPT.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        why = first_complaint(error, whole="the file") if isinstance(error, ValidationError) else str(error)
        log.warning("marks_unreadable", file=str(path), saw=why, effect=_FROM_NOW_ON)
        return {}
    marks = {}
    for key, mark in kept.items():
        try:
            marks[key] = _MARK.validate_python(mark)
        except ValidationError as error:
            why = first_complaint(error, whole="its mark")
            log.warning("marks_unreadable", file=str(path), key=key, saw=why, effect=_FROM_NOW_ON)
    return marks
