"""Ledgers of earlier versions still open: no decision is lost, and a running release continues."""

from pathlib import Path

import pytest

from rollout.control.release_judge import replayed
from rollout.explain.timeline import Timeline, timeline
from rollout.explain.why import why
from rollout.judge import Pair
from rollout.ledger import events as e
from rollout.ledger.ledger import Ledger
from rollout.ledger.state import fold
from rollout.signals.catalogue import AFFECTED_USERS
from tests.support.old_ledgers import restored
from tests.support.world import Version
from tests.unit.rollout.control.test_sticky_releases import StickyWorld


@pytest.fixture
def ended(tmp_path: Path) -> Path:
    """Five finished releases."""
    return restored("ledger-0", tmp_path / "ledger.db")


@pytest.fixture
def running(tmp_path: Path) -> Path:
    """One release whose controller was killed in its first step."""
    return restored("ledger-0-running", tmp_path / "ledger.db")


def story(path: Path, number: int) -> Timeline:
    ledger = Ledger(path, read_only=True)
    try:
        return timeline(ledger.of_release(number))
    finally:
        ledger.close()


@pytest.mark.parametrize(
    ("number", "outcome", "steps", "answered"),
    [
        (1, ("promoted", None), ["shadow", "5 %", "50 %", "100 %"], Pair(9, 9270)),
        (2, ("rolled_back", "class:3"), ["5 %", "50 %"], Pair(1, 3925)),
        (3, ("aborted", "person"), ["5 %"], Pair(0, 310)),
        (4, ("rolled_back", "watched_errors"), ["5 %", "50 %", "100 %"], Pair(476, 15318)),
        (5, ("rolled_back", "deadline"), ["5 %"], Pair(20, 236)),
    ],
)
def test_old_decisions_are_still_known(
    ended: Path, number: int, outcome: tuple[str, str | None], steps: list[str], answered: Pair
) -> None:
    """The numbers are those of the version that wrote the ledger."""
    release = story(ended, number)
    assert (release.outcome, release.state.outcome_signal) == outcome
    assert [step.name for step in release.steps] == steps
    assert Pair(release.canary_failures, release.canary_requests) == answered


def test_the_evidence_of_an_old_rollback_is_still_known(ended: Path) -> None:
    """It has the signal with its counts, and the evidence of all signals together."""
    failed_signal = story(ended, 2).failed_signal
    assert failed_signal
    assert failed_signal.signal == "class:3"
    assert failed_signal.judged.canary == (103, 3924)
    assert (failed_signal.judged.log_e, failed_signal.judged.threshold) == (9.745091078625476, 7.783224016336037)
    assert (failed_signal.evidence.log_e, failed_signal.evidence.decisive_log_e) == (
        6.567777238521271,
        6.567301328431809,
    )
    watched = story(ended, 4).failed_signal
    assert watched
    assert watched.judged.limit == 0.02388624649520267
    assert "466 of 7,528 canary requests failed" in watched.evidence.reason


def test_an_infinite_estimate_is_still_infinite(ended: Path) -> None:
    """JSON has no infinity; the ledger stores it as a word."""
    evidence = story(ended, 5).last_evidence
    assert evidence
    assert evidence.signals["errors"].more_requests_needed == float("inf")


def test_every_old_release_is_still_explained(ended: Path) -> None:
    """`kanaria why` shows what people did, the preflight, the drift report and the metric outage."""
    text = {n: "\n".join(line for topic in why(story(ended, n)).topics for line in topic.lines) for n in range(1, 6)}
    assert "20 golden requests" in text[1]
    assert "differs in 1 of 66 columns" in text[1]
    assert "paused by bob: lunch" in text[3]
    assert "No metrics from" in text[3]
    assert all(text.values())


def test_a_replay_reproduces_the_old_evidence(running: Path) -> None:
    """A judge that gets the stored counts gives the stored judgement.

    The bound is equal; the evidence only nearly, because the prior over when harm begins was different then.
    """
    ledger = Ledger(running, read_only=True)
    events = list(ledger.events(release=1))
    ledger.close()
    judge, release = replayed(events), fold(events).release
    (*_, last) = (event for event in events if isinstance(event, e.Ticked))
    assert judge
    assert release
    judge.temper_pass({"errors": last.user_phi or 1.0})
    judgement = judge.judgement(release)
    assert judgement
    assert judgement.verdict is last.evidence.verdict
    assert judgement.reason == last.evidence.reason.replace("at the present", "at")
    assert judgement.log_e == pytest.approx(last.evidence.log_e, abs=0.01)
    for name, signal in judgement.signals.items():
        stored = last.evidence.signals[name]
        assert (signal.log_e, signal.threshold) == (pytest.approx(stored.log_e, abs=0.01), stored.threshold)
        assert (signal.excess_upper, signal.more_requests_needed) == (stored.excess_upper, stored.more_requests_needed)


def test_a_shadow_from_before_warm_ups_is_judged_from_its_start(tmp_path: Path) -> None:
    """Its plan has no warm-up, so nothing that its judge counted is dropped."""
    ledger = Ledger(restored("ledger-1-shadow", tmp_path / "ledger.db"), read_only=True)
    events = list(ledger.events(release=1))
    ledger.close()
    judge, release = replayed(events), fold(events).release
    (*_, last) = (event for event in events if isinstance(event, e.Ticked))
    assert judge
    assert release
    assert (release.mirror, release.is_warming_up, release.seen_s) == (True, False, 20.0)
    assert release.spec.holdback == 0
    judgement = judge.judgement(release)
    assert judgement
    counts = {name: (signal.stable, signal.canary) for name, signal in judgement.signals.items()}
    assert counts == {name: (signal.stable, signal.canary) for name, signal in last.evidence.signals.items()}


def test_a_running_release_continues_under_the_new_version(running: Path) -> None:
    """It continues at its step and cursor; users that were affected before are not counted again."""
    ledger = Ledger(running)
    cursor, affected = ledger.cursor(), ledger.affected()
    ledger.close()
    assert cursor
    assert affected
    assert affected.failures_on_stable[b"399"] == 140
    versions = {tag: Version(error_ratio=0.0) for tag in ("m:v1", "m:v2")}
    world = StickyWorld(running, versions=versions, now_s=cursor.at_s, broken=(0, 399))
    world.counters.update(cursor.counters)
    before = story(running, 1).signals
    controller = world.controller()
    world.live(controller, 60)
    controller.close()
    release = story(running, 1)
    new = [tick.window.stable for tick in release.signals[AFFECTED_USERS][len(before[AFFECTED_USERS]) :]]
    assert release.state.step >= 0
    assert release.state.outcome is None
    assert len(new) > 5
    assert sum(new, Pair(0, 0)).bad == 0
