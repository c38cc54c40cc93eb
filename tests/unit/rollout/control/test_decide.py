"""`decide` maps every verdict and every fault to an action."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.control import guard
from rollout.control.decide import Action, EndWatch, EnterStep, Facts, Hold, Promote, Rollback, decide
from rollout.control.next_weight import asked_weight
from rollout.fleet import Health
from rollout.judge import Judgement, OwnNoise, Pair, SignalJudgement, Verdict
from rollout.judge.types import Improvement
from rollout.ledger.state import Phase, Release
from rollout.spec import RolloutSpec

NOW_S = 10_000.0
SPEC = RolloutSpec(steps=("shadow", 5, 50, 100), step_deadline=600, soak=10, warmup=0)
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
        seen_s=in_phase_s,
    )
    return replace(base, **more)  # type: ignore[arg-type]


def facts(**more: object) -> Facts:
    base = Facts(
        in_phase_s=60.0,
        unseen_s=0.0,
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
    )
    base = Judgement(verdict=verdict, reason="because", log_e=0.0, threshold=4.6, signals={"errors": signal})
    return replace(base, **more)  # type: ignore[arg-type]


FAILED = judgement(Verdict.FAIL, failed_signal="errors")


def test_a_pass_enters_the_next_step() -> None:
    """Only evidence moves traffic forward, and only by one step."""
    assert decide(release(), facts(), judgement(Verdict.PASS)) == EnterStep(2, 50, mirror=False, reason="because")


def test_a_pass_at_100_percent_promotes() -> None:
    """After the last step the canary becomes stable."""
    assert decide(release(step=3, weight=100), facts(), judgement(Verdict.PASS)) == Promote("because")


def test_a_step_ends_only_with_a_reading() -> None:
    """Else the counts since the last reading would be lost: their window would span the change of weight."""
    assert isinstance(decide(release(), facts(is_fresh=False), judgement(Verdict.PASS)), Hold)


def test_a_pass_from_evidence_of_earlier_steps_holds() -> None:
    """When traffic stops the verdict remains, but nothing was measured at this weight."""
    old = judgement(Verdict.PASS)
    assert isinstance(decide(release(in_phase_s=60, seen_s=0.0), facts(), old), Hold)


def test_a_step_soaks_before_it_ends() -> None:
    """In the first seconds caches are cold and slow answers are not counted yet, so a pass waits."""
    assert isinstance(decide(release(in_phase_s=3), facts(), judgement(Verdict.PASS)), Hold)


@pytest.mark.parametrize("verdict", [Verdict.INCONCLUSIVE, Verdict.NO_DATA])
def test_too_little_evidence_holds_until_the_deadline(verdict: Verdict) -> None:
    """Lack of proof is neither a pass nor a rollback: the weight stays, and a person is asked."""
    assert decide(release(), facts(), judgement(verdict)) == Hold("because")
    late = decide(release(in_phase_s=601), facts(), judgement(verdict))
    assert isinstance(late, Hold)
    assert late.needs_person


def test_the_deadline_can_roll_back() -> None:
    """`on_deadline: rollback` gives up a canary that could not be proven."""
    action = decide(release(in_phase_s=601, spec=IMPATIENT), facts(), judgement(Verdict.INCONCLUSIVE))
    assert isinstance(action, Rollback)
    assert action.signal == "deadline"


def test_the_deadline_does_not_return_to_a_failing_stable() -> None:
    """Nothing could be proven because stable fails; moving all traffic to it would help nobody."""
    late = release(in_phase_s=601, spec=IMPATIENT)
    action = decide(late, facts(recent_stable=Pair(300, 1000)), judgement(Verdict.INCONCLUSIVE))
    assert isinstance(action, Hold)
    assert action.needs_person


def test_time_without_readings_does_not_count_towards_the_deadline() -> None:
    """Nothing was judged while the metric store did not answer."""
    blind = release(in_phase_s=4000, measured_s=50.0)
    assert isinstance(decide(blind, facts(), judgement(Verdict.INCONCLUSIVE)), Hold)


def test_a_fail_rolls_back_at_once_even_when_paused() -> None:
    """A pause stops steps forward, never a rollback."""
    assert decide(release(in_phase_s=1, is_paused=True), facts(), FAILED) == Rollback("errors", "because")


def test_on_fail_hold_keeps_the_weight_and_asks_a_person() -> None:
    """The plan leaves a FAIL to a person."""
    action = decide(release(), facts(), replace(FAILED, on_fail="hold"))
    assert isinstance(action, Hold)
    assert action.needs_person


@pytest.mark.parametrize(("failed_s", "expected"), [(599, Hold), (600, Rollback)])
def test_a_fail_without_a_persons_decision_is_rolled_back_at_the_deadline(
    failed_s: float, expected: type[Action]
) -> None:
    """From the FAIL on, a person has as long to decide as a step may last."""
    failed = judgement(Verdict.FAIL, failed_signal="errors", on_fail="hold")
    assert isinstance(decide(release(in_phase_s=900, failed_s=failed_s), facts(), failed), expected)


def test_a_pause_stops_the_deadline_of_a_failed_canary() -> None:
    """A person is working on it."""
    failed = judgement(Verdict.FAIL, failed_signal="errors", on_fail="hold")
    assert isinstance(decide(release(in_phase_s=900, failed_s=5000.0, is_paused=True), facts(), failed), Hold)


def test_when_both_versions_fail_the_weight_stays() -> None:
    """If stable fails too, the canary is not the cause, and moving traffic would help nobody."""
    action = decide(release(), facts(recent_canary=Pair(90, 100), recent_stable=Pair(900, 1000)), FAILED)
    assert isinstance(action, Hold)
    assert action.needs_person


@pytest.mark.parametrize("phase", [Phase.STEPPING, Phase.WATCHING])
def test_a_restarting_canary_gets_the_whole_startup_deadline(phase: Phase) -> None:
    """`down_after` applies to a version that was ready. One that loads after a reboot gets the startup deadline."""
    loading = facts(canary=Health.STARTING, canary_unready_s=SPEC.startup_deadline - 1)
    assert not isinstance(decide(release(phase), loading, judgement(Verdict.PASS)), Rollback)
    late = decide(release(phase), replace(loading, canary_unready_s=SPEC.startup_deadline), judgement(Verdict.PASS))
    assert isinstance(late, Rollback)
    assert late.signal == "canary_down"
    hung = decide(release(phase), replace(loading, canary=Health.UNREADY), judgement(Verdict.PASS))
    assert isinstance(hung, Rollback)


@pytest.mark.parametrize("stable", [Health.DEAD, Health.UNREADY, Health.STARTING, Health.ABSENT])
def test_traffic_is_never_moved_to_an_unhealthy_version(stable: Health) -> None:
    """The canary may be the only healthy version; a rollback to a dead one would be an outage."""
    action = decide(release(), facts(stable=stable), FAILED)
    assert isinstance(action, Hold)
    assert action.needs_person


@pytest.mark.parametrize(
    "seen", [{"canary": Health.DEAD}, {"has_crashed": True}, {"canary": Health.UNREADY, "canary_unready_s": 11.0}]
)
def test_a_dead_canary_is_rolled_back_whatever_its_counts(seen: dict[str, object]) -> None:
    """The gateway hides a dead canary from users, so an absence of errors proves nothing."""
    action = decide(release(), facts(**seen), judgement(Verdict.PASS))
    assert isinstance(action, Rollback)
    assert action.signal == "canary_down"


def test_one_missed_probe_does_not_roll_back() -> None:
    """One missed probe does not mean that the canary is dead."""
    assert isinstance(decide(release(), facts(canary=Health.UNREADY, canary_unready_s=2.0), None), Hold)


def test_the_absolute_guard_needs_no_comparison() -> None:
    """Too many failures roll back whatever the other tests say."""
    action = decide(release(), facts(recent_canary=Pair(45, 100)), judgement(Verdict.INCONCLUSIVE))
    assert isinstance(action, Rollback)
    assert action.signal == "guard"


@pytest.mark.parametrize(
    ("stable", "kind"),
    [
        (Pair(49, 500), Rollback),
        (Pair(50, 500), Hold),
        (Pair(95, 500), Hold),
        (Pair(100, 500), Hold),
        (Pair(0, 0), Rollback),
    ],
)
def test_a_burst_that_hits_both_versions_does_not_trip_the_guard(stable: Pair, kind: type[Action]) -> None:
    """By chance one version exceeds the limit first; stable is not well at that time either."""
    for seen in (release(), release(Phase.WATCHING)):
        action = decide(seen, facts(recent_canary=Pair(160, 500), recent_stable=stable), judgement(Verdict.PASS))
        assert isinstance(action, kind), action


@pytest.mark.parametrize("recent", [Pair(4, 4), Pair(10, 30), Pair(30, 100), Pair(230, 1000)])
def test_the_guard_ignores_what_chance_explains(recent: Pair) -> None:
    """A canary at exactly the guard's 20 % shows such a count in one of the hundreds of readings of a release."""
    assert isinstance(decide(release(), facts(recent_canary=recent), judgement(Verdict.INCONCLUSIVE)), Hold)


def test_the_guard_spends_its_alpha_once_however_long_a_release_is_held() -> None:
    """A day of 5 s windows has twenty times the readings that fit before all deadlines; some alpha remains after it."""
    spent = [guard.part_of_reading(release(readings=reading)) for reading in range(1, 17_281)]
    assert 0.5 < sum(spent) < 1
    assert spent == sorted(spent, reverse=True)
    readings = release().spec.windows_at_most + release().spec.watch / release().spec.window
    assert all(part >= 1 / readings for part in spent[: int(readings / 10)])


def test_after_a_long_hold_the_guard_needs_more_evidence_and_still_trips() -> None:
    """What occurs by chance once in an hour occurs often in a day; that half of all requests fail never does."""
    at_first, after_a_day = release(readings=10), release(readings=17_280)
    chance, harm = facts(recent_canary=Pair(39, 100)), facts(recent_canary=Pair(50, 100))
    assert isinstance(decide(at_first, chance, judgement(Verdict.INCONCLUSIVE)), Rollback)
    assert isinstance(decide(after_a_day, chance, judgement(Verdict.INCONCLUSIVE)), Hold)
    assert isinstance(decide(after_a_day, harm, judgement(Verdict.INCONCLUSIVE)), Rollback)


def test_clustered_failures_need_more_to_trip_the_guard() -> None:
    """When each failure is retried four times, 45 of 100 are about eleven independent failures."""
    retried = release(noise={"errors": OwnNoise.alike(4.0)})
    action = decide(retried, facts(recent_canary=Pair(45, 100)), judgement(Verdict.INCONCLUSIVE))
    assert isinstance(action, Hold)


@pytest.mark.parametrize(("weight", "recent"), [(50, Pair(450, 1500)), (25, Pair(225, 750))])
def test_short_bursts_in_the_history_do_not_desensitise_the_guard(weight: int, recent: Pair) -> None:
    """Half of all requests failed for 3 s every five minutes; that does not explain 30 % over half a minute."""
    blips = OwnNoise(clusters=1.0, bursts=1.0, blips=151.0, ratio=0.006)
    stable = Pair(8, recent.total * (100 - weight) // weight)
    action = decide(
        release(weight=weight, noise={"errors": blips}),
        facts(recent_canary=recent, recent_stable=stable),
        judgement(Verdict.INCONCLUSIVE),
    )
    assert isinstance(action, Rollback)
    assert action.signal == "guard"


def test_long_bursts_in_the_history_need_more_to_trip_the_guard() -> None:
    """A version whose history has bursts of half a minute may be in one now."""
    bursts = OwnNoise(clusters=1.0, bursts=900.0, blips=900.0, ratio=0.05)
    action = decide(
        release(weight=50, noise={"errors": bursts}),
        facts(recent_canary=Pair(450, 1500), recent_stable=Pair(8, 1500)),
        judgement(Verdict.INCONCLUSIVE),
    )
    assert isinstance(action, Hold)


def test_without_a_reading_nothing_is_decided() -> None:
    """The weight stays: no promotion and no rollback."""
    assert isinstance(decide(release(in_phase_s=5000), facts(is_measured=False), None), Hold)


def test_a_canary_that_does_not_start_is_rolled_back_with_its_last_output() -> None:
    """People see why it did not start without opening a log."""
    action = decide(release(Phase.STARTING), facts(canary=Health.DEAD, detail="ImportError: no module"), None)
    assert isinstance(action, Rollback)
    assert (action.signal, "ImportError" in action.reason) == ("startup", True)


def test_a_canary_that_never_becomes_ready_is_given_up() -> None:
    """Starting has its own deadline."""
    action = decide(release(Phase.STARTING), facts(canary=Health.STARTING, in_phase_s=121.0), None)
    assert isinstance(action, Rollback)


def test_a_ready_canary_enters_the_first_step() -> None:
    """If the plan begins with `shadow`, the canary gets only copies."""
    assert decide(release(Phase.STARTING), facts(), None) == EnterStep(0, 0, mirror=True, reason="m:v2 is ready")


def test_a_plan_that_requires_better_waits_for_that_proof_at_the_last_step() -> None:
    """Earlier steps need only proof of safety. At the deadline a person is asked, or the release is given up."""
    better = SPEC.model_copy(update={"require": "better"})
    safe = judgement(Verdict.PASS)
    proven = replace(safe, improvement=Improvement(9.0, 4.6, is_proven=True))
    for step, weight in ((2, 50), (3, 100)):
        waits = release(step=step, weight=weight, spec=better)
        action = decide(waits, facts(), safe)
        assert isinstance(action, Hold)
        assert (action.needs_person, "labels prove it better" in action.reason) == (False, True)
        assert not isinstance(decide(waits, facts(), proven), Hold)
        over = replace(waits, measured_s=better.step_deadline)
        asked = decide(over, facts(), safe)
        assert isinstance(asked, Hold)
        assert asked.needs_person
        given_up = replace(over, spec=better.model_copy(update={"on_deadline": "rollback"}))
        assert isinstance(decide(given_up, facts(), safe), Rollback)
    assert isinstance(decide(release(spec=better), facts(), safe), EnterStep)


def test_a_gross_difference_waits_for_labels_only_in_the_shadow() -> None:
    """Labels may prove it better, and users do not get its answers there. It waits no longer than a step may last."""
    different = replace(judgement(Verdict.FAIL), may_be_better=True)
    shadow = release(step=0, weight=0, mirror=True, failed_s=10.0)
    action = decide(shadow, facts(), different)
    assert isinstance(action, Hold)
    assert "stays in the shadow for labels" in action.reason
    failing = facts(recent_canary=Pair(500, 600), recent_stable=Pair(0, 600))
    assert isinstance(decide(shadow, failing, different), Rollback), "the guard does not wait for labels"
    over = replace(shadow, failed_s=shadow.spec.step_deadline)
    for where in (over, release(step=1, weight=5, failed_s=10.0)):
        assert isinstance(decide(where, facts(), different), Rollback)


@pytest.mark.parametrize("health", [Health.STARTING, Health.UNREADY, Health.ABSENT])
@pytest.mark.parametrize("step", [0, 3])
def test_a_canary_that_is_not_ready_does_not_advance(step: int, health: Health) -> None:
    """A PASS from before its process restarted waits until the canary is ready; see `Facts.canary_unready_s`."""
    weight = {0: 0, 3: 100}[step]
    action = decide(release(step=step, weight=weight), facts(canary=health), judgement(Verdict.PASS))
    assert action == Hold(f"passed, but m:v2 is {health.value}")


def test_the_watch_ends_automatically() -> None:
    """When the promoted version was healthy for the whole watch, the old one is stopped."""
    assert isinstance(decide(release(Phase.WATCHING, in_phase_s=10), facts(), None), Hold)
    assert isinstance(decide(release(Phase.WATCHING, in_phase_s=901), facts(), None), EndWatch)


def test_a_promoted_version_that_fails_in_its_watch_is_rolled_back() -> None:
    """The previous version is still running, so one change of weight is enough."""
    assert isinstance(decide(release(Phase.WATCHING), facts(recent_canary=Pair(50, 100)), None), Rollback)


def test_a_failure_of_both_versions_in_the_watch_does_not_roll_back() -> None:
    """The held-back share shows that the old version fails too. Where no share is held back, it is rolled back."""
    storm = facts(recent_canary=Pair(400, 1000), recent_stable=Pair(20, 50))
    action = decide(release(Phase.WATCHING), storm, None)
    assert isinstance(action, Hold)
    assert (action.needs_person, "both versions fail" in action.reason) == (True, True)
    alone = facts(recent_canary=Pair(400, 1000), recent_stable=Pair(0, 0))
    assert isinstance(decide(release(Phase.WATCHING), alone, None), Rollback)


@pytest.mark.parametrize(
    ("weight", "excess_upper", "expected"),
    [(1, 0.10, 2), (10, 0.04, 12.5), (10, 0.0461, 10.84), (10, 0.01, 20), (30, 0.001, 50), (50, 0.004, 100)],
)
def test_automatic_steps_take_what_the_budget_allows(weight: int, excess_upper: float, expected: float) -> None:
    """A step is exact to 0.01 %, at most doubles the weight, and is never strictly between 50 and 100."""
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
def test_traffic_never_grows_without_a_fresh_pass(
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
    """Whatever else holds, traffic moves to the canary only on a measured PASS, while not paused and ready."""
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


def test_the_judge_is_asked_about_the_weight_of_the_next_step() -> None:
    """The risk budget is checked at the weight that would follow."""
    assert asked_weight(release(step=1, weight=5)) == 0.5
    assert asked_weight(release(step=3, weight=100)) is None


@pytest.mark.parametrize(
    ("phase", "signal"),
    [(Phase.STARTING, "startup"), (Phase.STEPPING, "canary_down"), (Phase.WATCHING, "canary_down")],
)
def test_one_ended_worker_holds_and_two_roll_back(phase: Phase, signal: str) -> None:
    """A worker is replaced and the version stays ready, so the judge may have seen no failure."""
    passed = judgement(Verdict.PASS)
    once, twice = (decide(release(phase), facts(restarts=number), passed) for number in (1, 2))
    assert not isinstance(once, Rollback)
    assert isinstance(twice, Rollback)
    assert (twice.signal, twice.reason) == (signal, "2 workers of m:v2 ended by themselves")
