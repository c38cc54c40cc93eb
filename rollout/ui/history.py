"""Every release in one line, from its decisions alone: fast, however long the release lasted."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from rollout.ledger import events as e
from rollout.ledger.state import Deployment, Release, apply

MOST_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Past:
    """One release."""

    release: Release
    outcome: str  # as `Timeline.outcome`
    by: str  # who or what decided it; empty: not decided yet
    until_s: float  # Unix seconds


def past_releases(events: Iterable[e.Event]) -> list[Past]:
    """The newest releases, newest first; `events` are those of all releases, oldest first, without ticks."""
    return list(islice(reversed(list(_each(events))), MOST_SHOWN))


def _each(events: Iterable[e.Event]) -> Iterator[Past]:
    deployment, by, last_s = Deployment(), "", 0.0
    for event in events:
        if isinstance(event, e.ReleaseRequested):
            if deployment.release:
                yield _past(deployment.release, by, last_s)
            by = ""
        if isinstance(event, e.Promoted | e.RolledBack | e.Aborted):
            by = event.by
        deployment, last_s = apply(deployment, event), event.at_s
    if deployment.release:
        yield _past(deployment.release, by, last_s)


def _past(release: Release, by: str, last_s: float) -> Past:
    restored = release.restore is not None and release.outcome == "promoted"
    outcome = "restored" if restored else release.outcome or release.phase.value
    decided_by = release.outcome_signal if by == "judge" and release.outcome_signal else by
    return Past(release, outcome, decided_by, last_s)
