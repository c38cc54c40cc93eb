"""What people are told of a decision who do not look at the page: one message, complete in itself."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from rollout.explain.advice import advice
from rollout.explain.asked import by_itself
from rollout.explain.choices import choices
from rollout.explain.format import one_line
from rollout.explain.timeline import Timeline, ended_as, timeline
from rollout.explain.why import one_sentence
from rollout.format import span
from rollout.ledger import events as e
from rollout.ledger.state import Phase, fold

NoticeKind = Literal["waiting", "rolled_back", "promoted", "restored", "paused", "aborted"]
KINDS: tuple[NoticeKind, ...] = get_args(NoticeKind)
TOLD = (e.PersonAsked, e.PersonNotNeeded, e.Promoted, e.RolledBack, e.Aborted, e.Paused)  # what a message is about


@dataclass(frozen=True, slots=True)
class Notice:
    """One message."""

    kind: NoticeKind
    title: str
    lines: tuple[str, ...]  # the reason first, in one sentence


def notice(events: Sequence[e.Event]) -> Notice:
    """The message about the last of `events`, which are those of one release up to then.

    Raises: ValueError for an event that nobody is told of.
    """
    release, last = timeline(events), events[-1]
    about = f"release {release.number} ({release.canary})"
    match last:
        case e.PersonAsked(reason=reason):
            return Notice("waiting", f"{about} waits for a person", (_sentence(reason), *_to_do(release, events)))
        case e.PersonNotNeeded():
            return Notice("waiting", f"{about} no longer waits for a person", (one_sentence(release),))
        case e.Paused(by=by, reason=reason):
            return Notice("paused", f"{about} is paused", (_sentence(f"by {by}: {reason}"), *_to_do(release, events)))
        case e.Promoted() | e.RolledBack() | e.Aborted():
            kind = next(kind for kind in KINDS if kind == ended_as(release.state))
            title = f"{about} was {kind.replace('_', ' ')}"
            return Notice(kind, title, (one_sentence(release), *_watch(release), *advice(release)))
        case _:
            raise ValueError(f"nobody is told of `{last.kind}`")


def _to_do(release: Timeline, events: Sequence[e.Event]) -> Iterator[str]:
    """What happens by itself, and what can be commanded."""
    yield by_itself(release.state)
    yield from (f"`{choice.command}`: {choice.effect}" for choice in choices(fold(events)))


def _watch(release: Timeline) -> Iterator[str]:
    if release.state.phase is Phase.WATCHING:
        yield f"The watch lasts {span(release.spec.watch)}; harm in it returns the traffic by itself."


def _sentence(text: str) -> str:
    one = one_line(text)
    return f"{one[:1].upper()}{one[1:]}".removesuffix(".") + "."
