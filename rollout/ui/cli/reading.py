"""`kanaria why` and `kanaria history`: they read the ledger and need no controller."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from contract.terminal import Terminal
from rollout.errors import NoLedger, SpecError
from rollout.explain import why as explanation
from rollout.explain.format import clock
from rollout.explain.timeline import Timeline, timeline
from rollout.ledger.check import check
from rollout.ledger.events import ReleaseRequested
from rollout.ledger.ledger import Ledger
from rollout.ledger.state import Deployment, fold
from rollout.spec import RolloutSpec
from rollout.ui import terminal_reports
from rollout.ui.cli.conventions import Access, Json, access_of, explained, print_json

ReleaseArgument = Annotated[str | None, typer.Argument(help="Number of a release, or a tag. Default: the newest.")]


def why(context: typer.Context, which: ReleaseArgument = None, as_json: Json = False) -> None:
    """Explain what was decided about a release, and on which evidence."""
    with explained():
        access = access_of(context)
        found = find_release(access.ledger, which)
        if as_json:
            print_json({"release": found.number, "outcome": found.outcome, **asdict(explanation.why(found))})
        else:
            Terminal().print(terminal_reports.why(found))
            _say_that_nobody_decides(access, found)


def history(
    context: typer.Context,
    verify: Annotated[
        bool, typer.Option("--verify", help="First check that nothing was changed; more: `kanaria ledger check`.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List every release with its outcome."""
    with explained():
        access = access_of(context)
        if verify:
            check(access.ledger)
        found = all_releases(access.ledger)
        if as_json:
            print_json([_row(one) for one in found])
        else:
            Terminal().print(terminal_reports.history(found))
            for release in found[-1:]:
                _say_that_nobody_decides(access, release)


def _say_that_nobody_decides(access: Access, release: Timeline) -> None:
    """Warn that the ledger's state of a running release is old if no controller runs."""
    if release.state.outcome is None and (why_not := access.nobody_decides()):
        typer.secho(f"note: nothing was decided since {clock(release.seen_s)} UTC: {why_not}", fg="yellow", err=True)


def find_release(ledger_path: Path, which: str | None) -> Timeline:
    """A release by number, by tag (its newest), or the newest of all. Raises LedgerError, SpecError."""
    ledger = Ledger(ledger_path, read_only=True)
    try:
        requested = [event for event in ledger.events(without_ticks=True) if event.kind == "release_requested"]
        matching = [event for event in requested if which in (None, str(event.release), event.tag)]
        if not matching:
            known = ", ".join(f"{event.release} ({event.tag})" for event in requested) or "none yet"
            do = "see `kanaria history`" if requested else "start one: `kanaria release TAG`"
            raise SpecError(f"there is no release {which or 'yet'}", saw=f"releases: {known}", do=do)
        return timeline(ledger.of_release(matching[-1].release or 0))
    finally:
        ledger.close()


def all_releases(ledger_path: Path) -> list[Timeline]:
    """Every release, oldest first. Raises LedgerError."""
    ledger = Ledger(ledger_path, read_only=True)
    try:
        newest = fold(ledger.events(without_ticks=True)).release
        return [timeline(ledger.of_release(number)) for number in range(1, (newest.number if newest else 0) + 1)]
    finally:
        ledger.close()


def deployment(ledger_path: Path) -> Deployment:
    """The state in the ledger; an empty one before the first version. Raises LedgerError."""
    try:
        ledger = Ledger(ledger_path, read_only=True)
    except NoLedger:
        return Deployment()
    try:
        return fold(ledger.events(without_ticks=True))
    finally:
        ledger.close()


def stable_version(ledger_path: Path) -> str | None:
    """The stable version; None before the first version. Raises LedgerError."""
    return deployment(ledger_path).stable


def newest_plan(ledger_path: Path) -> RolloutSpec | None:
    """The plan of the newest release; None before the first one. Raises LedgerError."""
    try:
        ledger = Ledger(ledger_path, read_only=True)
    except NoLedger:
        return None
    try:
        plans = [event.spec for event in ledger.events(without_ticks=True) if isinstance(event, ReleaseRequested)]
        return plans[-1] if plans else None
    finally:
        ledger.close()


def _row(release: Timeline) -> dict[str, object]:
    return {
        "release": release.number,
        "tag": release.canary,
        "stable": release.stable,
        "outcome": release.outcome,
        "signal": release.state.outcome_signal,
        "reason": "; ".join(filter(None, (release.state.outcome_reason, release.watch_interrupted))) or None,
        "requested_s": release.requested_s,
    }
