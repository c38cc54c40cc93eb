"""The one function that decides: every verdict and every bad day has its action."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.decide import Action, EndWatch, EnterStep, Facts, Hold, Promote, Rollback, asked_weight, decide
from rollout.interfaces import Health
from rollout.judge import Judgement, Pair, SignalJudgement, Verdict
from rollout.spec import RolloutSpec
from rollout.state import Phase, Release

NOW_S = 10_000.0
SPEC = RolloutSpec(steps=("shadow", 5, 50, 100), step_deadline=600, soak=10)
IMPATIENT = SPEC.model_copy(update={"on_deadline": "rollback"})


def release(
    phase: Phase = Phase.STEPPING, *, step: int = 1, weight: int = 5, in_phase_s: float = 60, **more: object
) -> Release:
    base = Release(
        number=1,
        canary="m:v2",
        stable="m:v1",
        spec=SPEC,
        requested_s=NOW_S - 500,
        by="ann",
        phase=phase,
        step=step,
        weight_percent=weight,
        phase_since_s=NOW_S - in_phase_s,
        measured_s=in_phase_s,
    )
    return replace(base, **more)  # type: ignore[arg-type]


def facts(**more: object) -> Facts:
    base = Facts(
        now_s=NOW_S,
        canary=Health.READY,
        stable=Health.READY,
        has_crashed=False,
        canary_unready_s=0.0,
        detail="",
        is_measured=True,
        is_fresh=True,
        recent_canary=Pair(0, 100),
        recent_stable=Pair(0, 1000),
    )
    return replace(base, **more)  # type: ignore[arg-type]


def judgement(
    verdict: Verdict,
    *,
    excess_upper: float = 0.01,
    latest_s: float = NOW_S,
    decided_at_s: float | None = None,
    **more: object,
) -> Judgement:
    signal = SignalJudgement(
        verdict=verdict,
        log_e=0.0,
        threshold=5.0,
        stable=Pair(0, 1000),
        canary=Pair(0, 100),
        excess_upper=excess_upper,
        more_requests_needed=None,
        decided_at_s=decided_at_s,
        latest_s=latest_s,
    )
    base = Judgement(verdict=verdict, reason="because", log_e=0.0, threshold=4.6, signals={"errors": signal})
    return replace(base, **more)  # type: ignore[arg-type]


FAILED = judgement(Verdict.FAIL, failed_signal="errors")


def test_a_pass_goes_to_the_next_step() -> None:
    """Only evidence moves traffic forward, and by one step."""
    assert decide(release(), facts(), judgement(Verdict.PASS)) == EnterStep(2, 50, mirror=False, reason="because")


def test_a_pass_at_100_percent_promotes() -> None:
    """After the last step the canary becomes stable."""
    assert decide(release(step=3, weight=100), facts(), judgement(Verdict.PASS)) == Promote("because")


def test_a_step_ends_with_a_reading_only() -> None:
    """Between two readings the counts since the first would be lost: their window would straddle the new weight."""
    assert isinstance(decide(release(), facts(is_fresh=False), judgement(Verdict.PASS)), Hold)


def test_a_pass_on_evidence_of_earlier_steps_holds() -> None:
    """When traffic stops the verdict stays, but nothing was measured at this weight."""
    old = judgement(Verdict.PASS, latest_s=NOW_S - 61)
    assert isinstance(decide(release(in_phase_s=60), facts(), old), Hold)


def test_a_step_soaks_before_it_ends() -> None:
    """A pass in the first seconds waits: caches are cold and slow answers are not counted yet."""
    assert isinstance(decide(release(in_phase_s=3), facts(), judgement(Verdict.PASS)), Hold)


@pytest.mark.parametrize("verdict", [Verdict.INCONCLUSIVE, Verdict.NO_DATA])
def test_too_little_evidence_holds_until_the_deadline(verdict: Verdict) -> None:
    """Not knowing is not success, and no crime either: the weight stays, and a person is asked."""
    assert decide(release(), facts(), judgement(verdict)) == Hold("because")
    late = decide(release(in_phase_s=601), facts(), judgement(verdict))
    assert isinstance(late, Hold)
    assert late.needs_person


def test_the_deadline_can_roll_back() -> None:
    """`on_deadline: rollback` gives up on what could not be proven."""
    action = decide(release(in_phase_s=601, spec=IMPATIENT), facts(), judgement(Verdict.INCONCLUSIVE))
    assert isinstance(action, Rollback)
    assert action.signal == "deadline"


def test_the_deadline_does_not_return_to_a_stable_that_fails() -> None:
    """Nothing could be proven because stable fails: to give it all the traffic would help nobody."""
    late = release(in_phase_s=601, spec=IMPATIENT)
    action = decide(late, facts(recent_stable=Pair(300, 1000)), judgement(Verdict.INCONCLUSIVE))
    assert isinstance(action, Hold)
    assert action.needs_person


def test_time_without_readings_does_not_count_for_the_deadline() -> None:
    """A metric store that was away for an hour has not judged anybody."""
    blind = release(in_phase_s=4000, measured_s=50.0)
    assert isinstance(decide(blind, facts(), judgement(Verdict.INCONCLUSIVE)), Hold)


def test_a_fail_rolls_back_at_once_also_when_paused() -> None:
    """A pause keeps a release from moving forward, never from moving to safety."""
    assert decide(release(in_phase_s=1, is_paused=True), facts(), FAILED) == Rollback("errors", "because")


def test_a_fail_that_the_plan_leaves_to_a_person_holds() -> None:
    """`on_fail: hold` keeps the weight and asks."""
    action = decide(release(), facts(), replace(FAILED, on_fail="hold"))
    assert isinstance(action, Hold)
    assert action.needs_person


@pytest.mark.parametrize(("accused_s", "expected"), [(599, Hold), (600, Rollback)])
def test_a_fail_that_nobody_decides_about_is_rolled_back(accused_s: float, expected: type[Action]) -> None:
    """A person has as long as a step may last, from the moment of FAIL; then everybody seems to sleep."""
    failed = judgement(Verdict.FAIL, decided_at_s=NOW_S - accused_s, failed_signal="errors", on_fail="hold")
    assert isinstance(decide(release(in_phase_s=900), facts(), failed), expected)


def test_who_pauses_an_accused_canary_has_answered() -> None:
    """A person is at work on it: no clock runs."""
    failed = judgement(Verdict.FAIL, decided_at_s=NOW_S - 5000, failed_signal="errors", on_fail="hold")
    assert isinstance(decide(release(in_phase_s=900, is_paused=True), facts(), failed), Hold)


def test_both_versions_failing_freezes() -> None:
    """When stable fails as well it is not the canary's fault, and moving traffic would help nobody."""
    action = decide(release(), facts(recent_canary=Pair(90, 100), recent_stable=Pair(900, 1000)), FAILED)
    assert isinstance(action, Hold)
    assert action.needs_person


@pytest.mark.parametrize("stable", [Health.DEAD, Health.UNREADY, Health.STARTING, Health.ABSENT])
def test_traffic_is_never_moved_to_a_version_that_is_not_well(stable: Health) -> None:
    """The canary may be the only healthy copy; a rollback to a dead one would be an outage."""
    action = decide(release(), facts(stable=stable), FAILED)
    assert isinstance(action, Hold)
    assert action.needs_person


@pytest.mark.parametrize(
    "seen", [{"canary": Health.DEAD}, {"has_crashed": True}, {"canary": Health.UNREADY, "canary_unready_s": 11.0}]
)
def test_a_canary_that_is_down_is_a_reason_by_itself(seen: dict[str, object]) -> None:
    """The gateway hides a dead canary from users, so its absence of errors proves nothing."""
    action = decide(release(), facts(**seen), judgement(Verdict.PASS))
    assert isinstance(action, Rollback)
    assert action.signal == "canary_down"


def test_a_short_hiccup_of_the_probe_is_no_reason() -> None:
    """One missed probe is not a dead canary."""
    assert isinstance(decide(release(), facts(canary=Health.UNREADY, canary_unready_s=2.0), None), Hold)


def test_the_absolute_guard_needs_no_comparison() -> None:
    """Too many failures roll back whatever the statistics say."""
    action = decide(release(), facts(recent_canary=Pair(45, 100)), judgement(Verdict.INCONCLUSIVE))
    assert isinstance(action, Rollback)
    assert action.signal == "guard"


@pytest.mark.parametrize("recent", [Pair(4, 4), Pair(10, 30), Pair(30, 100), Pair(230, 1000)])
def test_the_guard_is_not_tripped_by_what_chance_can_do(recent: Pair) -> None:
    """A canary just at the guard's 20 % shows as much in one of the hundreds of looks of a release."""
    assert isinstance(decide(release(), facts(recent_canary=recent), judgement(Verdict.INCONCLUSIVE)), Hold)


def test_failures_in_clusters_need_more_to_trip_the_guard() -> None:
    """Where each failure is retried four times, 45 of 100 are some eleven accidents."""
    retried = release(phi={"errors": 4.0})
    action = decide(retried, facts(recent_canary=Pair(45, 100)), judgement(Verdict.INCONCLUSIVE))
    assert isinstance(action, Hold)


def test_without_a_reading_nothing_is_decided() -> None:
    """Blind, the weight stays: no promotion, no rollback."""
    assert isinstance(decide(release(in_phase_s=5000), facts(is_measured=False), None), Hold)


def test_a_canary_that_does_not_start_is_rolled_back_with_its_last_words() -> None:
    """People read why it did not start without opening a log."""
    action = decide(release(Phase.STARTING), facts(canary=Health.DEAD, detail="ImportError: no module"), None)
    assert isinstance(action, Rollback)
    assert (action.signal, "ImportError" in action.reason) == ("startup", True)


def test_a_canary_that_starts_for_ever_is_given_up() -> None:
    """The start has a deadline of its own."""
    action = decide(release(Phase.STARTING, in_phase_s=121), facts(canary=Health.STARTING), None)
    assert isinstance(action, Rollback)


def test_a_ready_canary_enters_the_first_step() -> None:
    """With `shadow` first it gets copies only."""
    assert decide(release(Phase.STARTING), facts(), None) == EnterStep(0, 0, mirror=True, reason="m:v2 is ready")


def test_the_watch_ends_by_itself() -> None:
    """When the promoted version was well for long enough, the old one may go."""
    assert isinstance(decide(release(Phase.WATCHING, in_phase_s=10), facts(), None), Hold)
    assert isinstance(decide(release(Phase.WATCHING, in_phase_s=901), facts(), None), EndWatch)


def test_a_promoted_version_that_fails_in_its_watch_is_taken_back() -> None:
    """The version before is still warm, so the way back is one weight change."""
    assert isinstance(decide(release(Phase.WATCHING), facts(recent_canary=Pair(50, 100)), None), Rollback)


@pytest.mark.parametrize(
    ("weight", "excess_upper", "expected"),
    [(1, 0.10, 2), (10, 0.04, 12.5), (10, 0.0461, 10.84), (10, 0.01, 20), (30, 0.001, 50), (50, 0.004, 100)],
)
def test_automatic_steps_take_what_the_budget_allows(weight: int, excess_upper: float, expected: float) -> None:
    """To the hundredth of a percent; at most doubling, and never strictly between 50 and 100."""
    auto = release(step=3, weight=weight, spec=RolloutSpec(steps="auto", risk_budget=0.005))
    action = decide(auto, facts(), judgement(Verdict.PASS, excess_upper=excess_upper))
    assert isinstance(action, EnterStep)
    assert action.weight_percent == expected


VERDICTS = st.sampled_from([None, *Verdict])


@given(
    phase=st.sampled_from([Phase.STARTING, Phase.STEPPING, Phase.WATCHING, Phase.LEAVING]),
    weight=st.sampled_from([0, 5, 50, 100]),
    verdict=VERDICTS,
    canary=st.sampled_from(Health),
    stable=st.sampled_from(Health),
    has_crashed=st.booleans(),
    is_paused=st.booleans(),
    is_measured=st.booleans(),
    in_phase_s=st.floats(0, 2000),
)
def test_there_is_no_way_forward_without_a_fresh_pass(
    *,
    phase: Phase,
    weight: int,
    verdict: Verdict | None,
    canary: Health,
    stable: Health,
    has_crashed: bool,
    is_paused: bool,
    is_measured: bool,
    in_phase_s: float,
) -> None:
    """Whatever else is true: traffic moves to the canary only on PASS, measured, not paused, and alive."""
    step = {0: 0, 5: 1, 50: 2, 100: 3}[weight]
    action: Action = decide(
        release(phase, step=step, weight=weight, in_phase_s=in_phase_s, is_paused=is_paused),
        facts(canary=canary, stable=stable, has_crashed=has_crashed, is_measured=is_measured, canary_unready_s=20.0),
        judgement(verdict) if verdict is not None else None,
    )
    if isinstance(action, Promote) or (isinstance(action, EnterStep) and phase is not Phase.STARTING):
        assert verdict is Verdict.PASS
        assert is_measured
        assert not is_paused
        assert not has_crashed
        assert canary is Health.READY
    if isinstance(action, Rollback) and phase in (Phase.STEPPING, Phase.WATCHING):
        assert stable is Health.READY


def test_the_judge_is_asked_about_the_step_that_comes_next() -> None:
    """The risk budget is checked against the weight that would follow."""
    assert asked_weight(release(step=1, weight=5)) == 0.5
    assert asked_weight(release(step=3, weight=100)) is None
