"""Messages about decisions for people who do not look at the page; each message is complete."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from rollout.explain.advice import advice
from rollout.explain.asked import by_itself
from rollout.explain.choices import choices
from rollout.explain.format import one_line
from rollout.explain.timeline import Timeline, timeline
from rollout.explain.why import one_sentence
from rollout.format import sentence, span
from rollout.ledger import events as e
from rollout.ledger.state import Phase, fold

NoticeKind = Literal["waiting", "rolled_back", "promoted", "restored", "paused", "aborted"]
KINDS: tuple[NoticeKind, ...] = get_args(NoticeKind)
_KIND: dict[str, NoticeKind] = {  # by the kind of event; for a restored version `promoted` becomes `restored`
    "person_asked": "waiting",
    "person_not_needed": "waiting",
    "promoted": "promoted",
    "rolled_back": "rolled_back",
    "aborted": "aborted",
    "paused": "paused",
}


@dataclass(frozen=True, slots=True)
class Notice:
    """One message."""

    kind: NoticeKind
    title: str
    lines: tuple[str, ...]  # the reason first, in one sentence


def kind_of(event: e.Event, request: e.Event | None) -> NoticeKind | None:
    """The kind of the message about `event`; None: there is no message.

    Args:
        event: any event.
        request: the first event of its release, if it is known.
    """
    kind = _KIND.get(event.kind)
    is_restored = isinstance(request, e.ReleaseRequested) and request.restore is not None
    return "restored" if kind == "promoted" and is_restored else kind


def notice(events: Sequence[e.Event]) -> Notice:
    """The message about the last of `events`, which are the events of one release up to then.

    Raises: ValueError for an event without a message.
    """
    last = events[-1]
    if (kind := kind_of(last, events[0])) is None:
        raise ValueError(f"there is no message about `{last.kind}`")
    release = timeline(events)
    about = f"release {release.number} ({release.canary})"
    match last:
        case e.PersonAsked(reason=reason):
            return Notice(kind, f"{about} waits for a person", (_sentence(reason), *_to_do(release, events)))
        case e.PersonNotNeeded():
            return Notice(kind, f"{about} no longer waits for a person", (one_sentence(release),))
        case e.Paused(by=by, reason=reason):
            return Notice(kind, f"{about} is paused", (_sentence(f"by {by}: {reason}"), *_to_do(release, events)))
        case _:
            title = f"{about} was {kind.replace('_', ' ')}"
            return Notice(kind, title, (one_sentence(release), *_watch(release), *advice(release)))


def _to_do(release: Timeline, events: Sequence[e.Event]) -> Iterator[str]:
    """What happens by itself, and which commands are possible."""
    yield by_itself(release.state)
    yield from (f"`{choice.command}`: {choice.effect}" for choice in choices(fold(events)))


def _watch(release: Timeline) -> Iterator[str]:
    if release.state.phase is Phase.WATCHING:
        yield f"The watch lasts {span(release.spec.watch)}; harm found in it returns the traffic automatically."


def _sentence(text: str) -> str:
    return sentence(one_line(text)).removesuffix(".") + "."
