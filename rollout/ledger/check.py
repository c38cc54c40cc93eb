"""Checks that a ledger is whole: every page, every event with its hash, and the state folded from the events."""

from dataclasses import dataclass
from pathlib import Path

from rollout.errors import LedgerDamaged, LedgerError
from rollout.ledger import places
from rollout.ledger.chain import Head
from rollout.ledger.ledger import Ledger
from rollout.ledger.state import Deployment, apply


def _refuse_another(ledger: Ledger) -> None:
    """Raise LedgerDamaged if the file is another ledger than the one that its folder knows."""
    file = places.identity_file(ledger.path)
    try:
        known = file.read_text().strip()
    except FileNotFoundError:  # a copy has no such file
        return
    except (OSError, UnicodeDecodeError) as error:
        raise LedgerError("the ledger cannot be checked", saw=f"{file}: {error}", do=f"remove {file}") from error
    if known not in ("", ledger.identity()):
        raise LedgerDamaged(
            "this is another ledger, not the one that was here before",
            saw=f"the first event of {ledger.path} does not match {file}",
            do=f"{places.restore(ledger.path)}; or, to go on with this file, remove {file}",
        )


@dataclass(frozen=True, slots=True)
class Contents:
    """The contents of a whole ledger."""

    events: int
    releases: int
    stable: str | None  # the stable version
    running: str | None  # name of the release that has not ended
    last_s: float | None  # time of the last event, Unix seconds
    identity: str | None
    head: Head  # the last event and its hash, or the event that was asked for


def check(path: Path, *, at: int | None = None) -> Contents:
    """Read all of a ledger. Raises LedgerDamaged, LedgerError; NotALedger for another file, NoLedger for no file.

    Args:
        path: the ledger's file.
        at: number of the event whose hash is wanted; None: the last event.
    """
    ledger = Ledger(path, read_only=True)
    try:
        ledger.check_file()
        head = ledger.check_chain()
        _refuse_another(ledger)
        if at is not None and at > head.events:
            raise LedgerDamaged(
                "the ledger lacks events",
                saw=f"{path}: {head.events} events, none with number {at}",
                do=places.restore(path),
            )
        if at is not None:
            head = ledger.check_chain(to=at)
        deployment, events, releases, last_s = Deployment(), 0, 0, None
        for event in ledger.events():
            deployment, events, last_s = apply(deployment, event), events + 1, event.at_s
            releases += event.kind == "release_requested"
        ledger.cursor(), ledger.affected()
        newest = deployment.release.number if deployment.release else 0
        if newest != releases:
            raise LedgerDamaged(
                "the ledger is damaged",
                saw=f"{path}: {releases} releases, the newest has number {newest}",
                do=places.restore(path),
            )
        active = deployment.active
        return Contents(
            events,
            releases,
            deployment.stable,
            active.name if active else None,
            last_s,
            ledger.identity(),
            head,
        )
    finally:
        ledger.close()
