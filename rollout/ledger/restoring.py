"""Replaces a ledger by a copy. Nothing is deleted: the replaced ledger gets another name.

It is not known what happened after the copy was made. So a release that had traffic then is aborted: it may have been
rolled back since, and a copy must not bring a bad version back. If a decision about it still waits for the ledger, that
decision is written instead. A version that had been promoted continues its watch.
"""

from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rollout.errors import LedgerError, NotALedger
from rollout.ledger import events as e
from rollout.ledger import places
from rollout.ledger.check import Contents, check
from rollout.ledger.copies import copy
from rollout.ledger.kept import KeptDecisions
from rollout.ledger.ledger import Ledger
from rollout.ledger.own_names import RESTORE
from rollout.ledger.state import Phase, fold


@dataclass(frozen=True, slots=True)
class Lost:
    """What the replaced ledger holds and the copy does not."""

    events: int
    decisions: tuple[str, ...]  # in words, oldest first


@dataclass(frozen=True, slots=True)
class Restored:
    """The result of restoring a ledger."""

    contents: Contents  # of the copy
    lost: Lost | None  # None: the replaced ledger cannot be read
    aside: Path | None  # the replaced ledger's new name; None: there was none
    aborted: str | None  # name of the release that was aborted
    forgotten: tuple[str, ...]  # decisions in no ledger, about releases after the copy; in words, oldest first


def restore(ledger: Path, copied: Path, *, now_s: float, is_other_allowed: bool = False) -> Restored:
    """Replace `ledger` by `copied`. The caller must hold the lock.

    Args:
        ledger: path of the ledger.
        copied: path of the copy.
        now_s: Unix seconds.
        is_other_allowed: whether it may be the ledger of another deployment.

    Raises: LedgerError, OSError; then the ledger is as it was.
    """
    if ledger.exists() and copied.samefile(ledger):
        raise NotALedger("this is the ledger itself", saw=str(copied), do="name a copy of it")
    contents = check(copied)
    if contents.identity is None:
        raise NotALedger("this ledger holds nothing", saw=f"{copied} has no events", do="name another copy")
    _check_identity(ledger, contents, is_other_allowed=is_other_allowed)
    lost = _lost(ledger, contents)
    incoming = ledger.with_name(f".{ledger.name}.restored")
    own = incoming, *places.companions(incoming), places.identity_file(incoming)
    _remove(*own)
    kept = KeptDecisions(ledger, lambda: contents.identity)
    try:
        copy(copied, incoming)
        aborted = _write_down(incoming, kept, copied, lost, now_s)  # before the rename: a bad version must not return
        aside = places.set_aside(ledger, "damaged" if lost is None else "replaced", now_s)
        incoming.replace(ledger)
        places.identity_file(incoming).replace(places.identity_file(ledger))
    finally:
        _remove(*own)
    later = (decision for decision in kept.read() if (decision.release or 0) > contents.releases)
    forgotten = tuple(words for decision in later if (words := _in_words(decision)))
    kept.clear()  # decisions about later releases would be applied to new releases with the same numbers
    return Restored(contents, lost, aside, aborted, forgotten)


def start_new_ledger(ledger: Path, *, now_s: float) -> Path | None:
    """Rename the ledger and forget that there was one; returns its new name. Raises OSError.

    The caller must hold the lock.
    """
    aside = places.set_aside(ledger, "replaced", now_s)
    places.identity_file(ledger).unlink(missing_ok=True)
    return aside


def _remove(*files: Path) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _check_identity(ledger: Path, contents: Contents, *, is_other_allowed: bool) -> None:
    try:
        known = places.identity_file(ledger).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return
    if known not in ("", contents.identity) and not is_other_allowed:
        raise LedgerError(
            "this is a copy of another deployment's ledger",
            saw=f"its first event does not match {places.identity_file(ledger)}",
            do="name a copy of this ledger; `--other-deployment` takes over the other's history and versions",
        )


def _lost(ledger: Path, contents: Contents) -> Lost | None:
    """What the present ledger holds after the copy's last event; None: it cannot be read."""
    try:
        with closing(Ledger(ledger, read_only=True)) as present:
            if present.identity() not in (None, contents.identity):
                return Lost(present.count(), ("the whole history of another deployment",))
            later = list(islice(present.events(), contents.events, None))
    except LedgerError:
        return None
    return Lost(len(later), tuple(words for event in later if (words := _in_words(event))))


def _in_words(event: e.Event) -> str | None:
    match event:
        case e.StableSet():
            return f"{event.tag} was made stable"
        case e.ReleaseRequested():
            return f"release {event.release} ({event.tag}) was begun"
        case e.Promoted():
            return f"release {event.release} was promoted"
        case e.RolledBack():
            return f"release {event.release} was rolled back, and its version is no longer in quarantine"
        case e.Aborted():
            return f"release {event.release} was aborted"
    return None


def _write_down(incoming: Path, kept: KeptDecisions, copied: Path, lost: Lost | None, now_s: float) -> str | None:
    """Note the restore in the restored ledger, and abort a running release; returns that release's name."""
    with closing(Ledger(incoming)) as opened:
        deployment = fold(opened.events(without_ticks=True))
        if deployment.active:
            missing = kept.missing(deployment.active, opened.of_release(deployment.active.number))
            opened.append(*missing)
            deployment = fold(missing, deployment)
        release = deployment.active
        known = f"{lost.events} later events are" if lost else "what came later is"
        noted = e.Noted(
            at_s=now_s,
            release=release.number if release else None,
            topic="ledger_restored",
            text=f"the ledger was restored from {copied.name}; {known} lost",
        )
        if release is None or release.phase not in (Phase.STARTING, Phase.STEPPING):
            opened.append(noted)
            return None
        reason = "the ledger was restored from a copy, and it is not known what happened to this release later"
        aborted = e.Aborted(at_s=now_s, release=release.number, reason=reason, by=RESTORE)
        opened.append(noted, aborted)
        return release.name
