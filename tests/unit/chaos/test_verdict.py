"""What the driver of `make chaos` calls right and wrong."""

import pytest

from rollout.ledger import events as e
from rollout.ledger.state import fold
from rollout.routers.router import ObservedSplit
from rollout.spec import RolloutSpec
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.seen import (
    Failure,
    Held,
    Seen,
    Split,
    applied_by,
    asked_by,
    failures_of,
    held_by,
    outcome_of,
    promoter_of,
)
from tests.chaos.states import (
    CANARY,
    IDLE,
    LEAVING,
    PAUSED,
    PERSON,
    PROMOTING,
    SHADOW,
    STABLE,
    STEP_50,
    STEP_50_BAD,
    WATCHING,
    WATCHING_BAD,
    State,
)
from tests.chaos.users import Answer
from tests.chaos.verdict import did, wrongs

ALONE = Split(stable=STABLE, canary=None, percent=0, mirror=False)
HALF = Split(stable=STABLE, canary=CANARY, percent=50, mirror=False)
WHOLE = Split(stable=CANARY, canary=None, percent=0, mirror=False)
BACK = {CANARY: "release 1 (digits:v2) was rolled back: 12 of the last 17 canary requests failed"}


def fault(name: str) -> Fault:
    (found,) = [one for one in FAULTS if one.name == name]
    return found


def held(*splits: Split, for_s: float = 5.0) -> tuple[Held, ...]:
    return tuple(Held(**split.model_dump(), since_s=5.0 * i, for_s=for_s) for i, split in enumerate(splits))


def seen(state: State = STEP_50, **facts: object) -> Seen:
    """A healthy release that was promoted as it should be, with other facts where they are given."""
    splits = (ALONE, HALF, WHOLE)
    fine: dict[str, object] = {
        "fault": "controller killed",
        "state": state.name,
        "took_s": 30.0,
        "undone_s": 0.1,
        "requests": 900,
        "slowest_s": 0.2,
        "failures": (),
        "bad_answers": 0,
        "bad_until_s": 0.0,
        "held": held(*splits),
        "asked": splits,
        "applied": splits,
        "outcome": "promoted",
        "phase": "watching",
        "promoted_by": "judge",
        "ticks_after": 9,
        "commands": {"first up": 0, "down": 0},
    }
    return Seen.model_validate(fine | facts)


def rolled_back(**facts: object) -> Seen:
    splits = (ALONE, HALF, ALONE)
    back: dict[str, object] = {
        "outcome": "rolled_back",
        "phase": "ended",
        "promoted_by": "",
        "signal": "guard",
        "quarantined": BACK,
        "held": held(*splits),
        "asked": splits,
        "applied": splits,
    }
    return seen(**(back | facts))  # type: ignore[arg-type]


def failed(*sent_s: float, status: int = 503) -> tuple[Failure, ...]:
    return tuple(Failure(sent_s=at_s, ended_s=at_s + 0.2, status=status, version=None, error="") for at_s in sent_s)


def found(facts: Seen, name: str = "controller killed", state: State = STEP_50) -> str:
    return "; ".join(wrongs(facts, fault(name), state))


def test_a_healthy_release_that_was_promoted_is_right() -> None:
    """No request failed, and each split was decided and recorded."""
    assert not found(seen())
    assert did(seen(), STEP_50) == "promoted"


def test_a_bad_version_must_be_rolled_back_into_quarantine() -> None:
    """Promoted, under way and out of quarantine are wrong; so is a healthy version that was rolled back."""
    assert not found(rolled_back(), state=STEP_50_BAD)
    assert "a bad version is promoted" in found(seen(), state=STEP_50_BAD)
    assert "a bad version is promoted" in found(seen(phase="ended"), state=WATCHING_BAD)
    assert "a bad version is under way" in found(seen(outcome="running"), state=STEP_50_BAD)
    assert "without quarantine" in found(rolled_back(quarantined={}), state=STEP_50_BAD)
    assert "a healthy version is rolled back" in found(rolled_back())
    assert "in quarantine although" in found(seen(quarantined=BACK))


def test_a_version_whose_own_process_died_may_be_rolled_back() -> None:
    """It must be, if the canary is dead or hangs longer than the plan allows."""
    assert not found(rolled_back(), "canary killed")
    assert "expected rolled back" in found(seen(), "canary killed")


def test_without_a_release_nothing_may_begin_one() -> None:
    """The splits are those of stable alone."""
    idle = {"outcome": "none", "phase": "no release", "held": held(ALONE), "asked": (ALONE,), "applied": (ALONE,)}
    assert not found(seen(IDLE, **idle), state=IDLE)
    assert "promoted" in found(seen(IDLE), state=IDLE)


def test_what_a_person_aborted_stays_aborted_and_ends() -> None:
    """It is wrong if the release continues, or if the version is never stopped."""
    facts = {"outcome": "aborted", "phase": "ended", "held": held(ALONE, HALF, ALONE), "asked": (ALONE, HALF, ALONE)}
    right = seen(LEAVING, **facts, applied=(ALONE, HALF, ALONE))
    assert not found(right, state=LEAVING)
    assert "did not end" in found(right.model_copy(update={"phase": "leaving"}), state=LEAVING)
    assert "under way" in found(right.model_copy(update={"outcome": "running"}), state=LEAVING)


def test_taking_the_stack_down_aborts_a_release_in_its_steps_only() -> None:
    """A watch continues or has ended, and a bad version in its watch must not be stable afterwards."""
    aborted = rolled_back(outcome="aborted", quarantined={}, signal="person")
    assert not found(aborted, "down and up")
    assert not found(seen(), "down and up", WATCHING)
    assert "promoted" in found(seen(), "down and up")
    assert "promoted" in found(seen(), "down and up", WATCHING_BAD)


def test_a_release_that_is_stuck_is_wrong() -> None:
    """A release that continues records what it measures."""
    facts = {"outcome": "running", "held": held(ALONE, HALF), "asked": (ALONE, HALF), "applied": (ALONE, HALF)}
    assert not found(seen(**facts))  # type: ignore[arg-type]
    assert "is stuck" in found(seen(**facts, ticks_after=0))  # type: ignore[arg-type]


def test_a_watch_takes_its_time() -> None:
    """A watch that ends at once has watched nothing. If its end was not observed, no verdict is given."""
    ended = seen(phase="ended", watched_s=3.1)
    assert "the watch of 12 s was over after 3.1 s" in found(ended, "clock 1 h forward", WATCHING)
    assert not found(ended.model_copy(update={"watched_s": 11.5}), "clock 1 h forward", WATCHING)
    assert not found(ended.model_copy(update={"watched_s": None}), "clock 1 h forward", WATCHING)


def test_a_split_without_a_decision_is_found() -> None:
    """The split is not in the ledger, was in force too early, or is the wrong one at the end."""
    assert f"without a decision in the ledger: {HALF}" in found(seen(asked=(ALONE, WHOLE)))
    assert "without a decision" in found(seen(held=held(ALONE, WHOLE, HALF, WHOLE)))
    assert "in force at the end" in found(seen(held=held(ALONE, HALF)))
    assert not found(seen(held=held(ALONE, WHOLE))), "a split may be too short to be seen"


def test_a_split_that_was_not_recorded_is_found() -> None:
    """Unless it was too short to be read back."""
    assert f"in force for 5.0 s and not recorded: {HALF}" in found(seen(applied=(ALONE, WHOLE)))
    assert not found(seen(applied=(ALONE, WHOLE), held=held(ALONE, HALF, WHOLE, for_s=1.0)))


@pytest.mark.parametrize(
    ("name", "sent_s", "wrong"),
    [
        ("controller killed", (0.1,), "no serving process was dead"),
        ("gateway killed", (-0.1, 0.2, 0.9), ""),
        ("gateway killed", (0.2, 1.3), "over 1.1 s; allowed is at most 1.0 s"),
        ("stable killed", (0.1, 2.9), ""),
        ("stable killed", (0.1, 4.0), "over 3.9 s; allowed is at most 3.0 s"),
        ("stable killed", (-2.0, 0.1), "the first 1.8 s before the fault"),
        ("keeper and gateway killed", (0.0, 3.9), ""),
        ("keeper and gateway killed", (0.0, 4.1), "over 4.1 s; allowed is at most 4.0 s"),
        ("both versions killed", (0.0, 11.9), ""),
        ("both versions killed", (0.0, 12.1), "over 12.1 s; allowed is at most 12.0 s"),
        ("reboot", (0.0, 9.0, 10.9), ""),
        ("reboot", (0.0, 11.2), "allowed is at most 11.0 s"),
    ],
)
def test_requests_fail_only_while_what_serves_is_dead(name: str, sent_s: tuple[float, ...], wrong: str) -> None:
    """A second for the gateway, four without the keeper; three for a version, twelve for both; a second after `up`."""
    text = found(seen(failures=failed(*sent_s), undone_s=10.0), name)
    assert (wrong in text) if wrong else (text == "")


def test_the_failures_of_a_bad_version_are_its_own_and_have_an_end() -> None:
    """The stack is not blamed for its answers, but for how long it let the version give them."""
    answers = [Answer(100.5, 0.1, 500, CANARY), Answer(101.0, 0.1, 503, None), Answer(101.5, 0.1, 200, CANARY)]
    assert [one.status for one in failures_of(answers, CANARY, 100.0)] == [503]
    assert [one.status for one in failures_of(answers, None, 100.0)] == [500, 503]
    late = rolled_back(bad_answers=200, bad_until_s=20.0)
    assert "answered users for 20.0 s (200 failures); allowed is at most 13 s" in found(late, state=STEP_50_BAD)
    assert not found(late.model_copy(update={"bad_until_s": 12.0}), state=STEP_50_BAD)


def test_leftover_processes_and_failed_commands_are_wrong() -> None:
    """Wrong are a process after `down`, a command that fails or never ends, and a problem of the driver."""
    assert "left behind after `down`: envoy" in found(seen(left=("envoy",)))
    assert "`history` exited with 3" in found(seen(commands={"history": 3}))
    assert "`down` timed out" in found(seen(commands={"down": 124}))
    assert not found(seen(commands={"promote": 3}), "late promote")
    twice = seen(commands={"upgrade (1)": 3, "upgrade (2)": 0, "up (3)": 0})
    assert found(twice, "two upgrades at once") == "`upgrade (1)` exited with 3"
    refused = seen(commands={"promote (1)": 2, "abort (2)": 2})
    assert not found(refused, "promote and abort at once")
    assert "`promote (1)` exited with 2; `abort (2)` exited with 2" in found(refused, "two upgrades at once")
    assert "the stack did not start" in found(seen(problems=("the stack did not start",)))


def test_a_command_that_failed_is_not_carried_out_later() -> None:
    """A promotion by the failed command is wrong, a promotion by the judge is right."""
    assert "promoted by ann" in found(seen(promoted_by="ann"), "late promote")
    assert not found(seen(promoted_by="ann", commands={"promote": 0}), "late promote")


@pytest.mark.parametrize("name", ["gateway hangs", "down and up"])
def test_what_a_person_promoted_before_the_fault_stays_promoted(name: str) -> None:
    """It is wrong if a successful `promote` is lost, whatever the judge then decides."""
    lost = "promoted by nobody, expected chaos, before the fault"
    assert not found(seen(PROMOTING, promoted_by=PERSON), name, PROMOTING)
    assert "promoted by judge, expected chaos" in found(seen(PROMOTING), name, PROMOTING)
    for outcome in ("running", "aborted"):
        text = found(seen(PROMOTING, outcome=outcome, promoted_by=""), name, PROMOTING)
        assert "expected promoted" in text
        assert lost in text
    assert lost in found(rolled_back(), "both versions killed", PROMOTING)
    assert not found(rolled_back(promoted_by=PERSON), "both versions killed", PROMOTING)
    assert "under way" in found(seen(outcome="running", promoted_by=PERSON), "both versions killed", PROMOTING)


def test_what_the_judge_promoted_before_the_fault_stays_promoted() -> None:
    """A release in its watch is no longer under way."""
    text = found(seen(WATCHING, outcome="running", promoted_by=""), state=WATCHING)
    assert "under way" in text
    assert "promoted by nobody, expected judge, before the fault" in text


def test_of_two_commands_at_once_the_successful_one_takes_effect() -> None:
    """The other command fails, and a command that succeeded is not lost."""
    name, promote, abort = (
        "promote and abort at once",
        {"promote (1)": 0, "abort (2)": 2},
        {"promote (1)": 2, "abort (2)": 0},
    )
    aborted = rolled_back(outcome="aborted", quarantined={}, signal="person")
    assert not found(seen(promoted_by="ann", commands=promote), name)
    assert not found(aborted.model_copy(update={"commands": abort}), name)
    assert "`promote` succeeded, and the release is aborted" in found(
        aborted.model_copy(update={"commands": promote}), name
    )
    assert "`abort` succeeded, and the release is promoted" in found(seen(commands=abort), name)
    assert "promoted by ann, whose command had failed" in found(seen(promoted_by="ann", commands=abort), name)


def test_only_a_person_may_promote_a_paused_release() -> None:
    """Until it is resumed, which is when the fault is undone: in these facts the canary is stable from 10 s on."""
    assert "promoted while it was paused" in found(seen(PAUSED, undone_s=11.0), state=PAUSED)
    assert not found(seen(PAUSED, undone_s=9.0), state=PAUSED)
    assert not found(seen(STEP_50, undone_s=11.0))
    asked = seen(PAUSED, undone_s=11.0, promoted_by="ann", commands={"promote (1)": 0, "abort (2)": 2})
    assert not found(asked, "promote and abort at once", PAUSED)


def test_a_release_that_could_not_be_resumed_is_not_right() -> None:
    """It is still measured, and never ends."""
    facts = {"outcome": "running", "held": held(ALONE, HALF), "asked": (ALONE, HALF), "applied": (ALONE, HALF)}
    refused = seen(PAUSED, **facts, commands={"resume": 2})
    assert found(refused, "machine sleeps", PAUSED) == "`resume` exited with 2"
    assert not found(refused.model_copy(update={"commands": {"resume": 0}}), "machine sleeps", PAUSED)


def test_splits_before_a_restore_may_be_missing_in_the_restored_ledger() -> None:
    """Before the fault, after the restore and at the end, the gateway has the splits of the ledger."""
    whole = HALF.model_copy(update={"percent": 100})
    splits, known = (ALONE, HALF, whole, ALONE), (ALONE, HALF, ALONE)
    facts = rolled_back(
        outcome="aborted", quarantined={}, held=held(*splits), asked=known, applied=known, undone_s=20.0
    )
    assert not found(facts, "ledger restored")
    assert f"without a decision in the ledger: {whole}" in found(facts, "down and up")
    early = facts.model_copy(update={"undone_s": 9.0})
    assert f"without a decision in the ledger: {whole}" in found(early, "ledger restored")
    last = facts.model_copy(update={"held": held(*splits[:-1])})
    assert f"in force at the end: {whole}" in found(last, "ledger restored")


def test_the_facts_are_taken_from_the_ledger_and_the_gateway() -> None:
    """A release to 50 %, read back once, then rolled back."""
    spec = RolloutSpec(steps=(50, 100))
    events: list[e.Event] = [
        e.StableSet(at_s=1, tag=STABLE),
        e.Applied(at_s=1, stable=STABLE, canary=None, weight_percent=0, mirror=False),
        e.ReleaseRequested(at_s=2, release=1, tag=CANARY, stable=STABLE, spec=spec, by="ann"),
        e.StepEntered(at_s=3, release=1, step=0, weight_percent=50, mirror=False, reason="ready"),
        e.Applied(at_s=3, release=1, stable=STABLE, canary=CANARY, weight_percent=50, mirror=False),
        e.RolledBack(at_s=9, release=1, signal="guard", reason="it failed"),
    ]
    trial = HALF.model_copy(update={"percent": 0})
    assert asked_by(events) == (ALONE, trial, HALF, ALONE)
    assert applied_by(events) == (ALONE, HALF)
    assert promoter_of(events) == ""
    promoted = e.Promoted(at_s=5, release=1, reason="enough", by="ann")
    assert promoter_of([*events[:-1], promoted, events[-1]]) == "ann"
    assert outcome_of(fold(events)) == "rolled_back"
    observed = [(1.0, ObservedSplit(STABLE, None, 0, False)), (3.0, ObservedSplit(STABLE, CANARY, 50, False))]
    assert held_by(observed, 2.0, 10.0) == (
        Held(**ALONE.model_dump(), since_s=-1.0, for_s=2.0),
        Held(**HALF.model_dump(), since_s=1.0, for_s=7.0),
    )


def test_a_gateway_that_was_never_seen_had_no_split() -> None:
    """As where the stack does not start."""
    assert held_by([], 2.0, 10.0) == ()


def test_a_state_is_reached_when_ledger_and_gateway_say_so() -> None:
    """Shadow and 50 % differ by the weight, the watch by the stable version."""
    assert SHADOW.is_in_force(ObservedSplit(STABLE, CANARY, 0, True))
    assert not STEP_50.is_in_force(ObservedSplit(STABLE, CANARY, 0, False))
    assert WATCHING.is_in_force(ObservedSplit(CANARY, None, 0, False))
    for state in (PAUSED, PROMOTING):  # the command comes when the step is in force
        assert state.is_in_force(ObservedSplit(STABLE, CANARY, 50, False))
