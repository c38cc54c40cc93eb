"""The text of `kanaria why`: signal, evidence, cost and advice for every way that a release can go."""

import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from rollout.control import commands as c
from rollout.explain.advice import advice
from rollout.explain.timeline import Timeline
from rollout.explain.why import Explanation, one_sentence, why
from rollout.fleet import Health
from rollout.format import odds, sentence, share, share_up, span, weight
from rollout.judge.words import tally
from rollout.routers.router import Refused
from rollout.signals.options import Classes
from rollout.signals.plan import Signals
from rollout.spec import Guards, RiskBudget, RolloutSpec
from rollout.ui.status import build_status
from tests.support.releases import (
    LIVE,
    NO_SEVENS,
    SPEC,
    UNPROVEN,
    UNPROVEN_S,
    digits_world,
    finished,
    harmed_after_promotion,
    newest,
    turned_wrong,
)


def after(path: Path, seconds: float, *, spec: RolloutSpec = SPEC, then: c.Command | None = None) -> Timeline:
    """v2's release, `seconds` after its request and after the command `then`."""
    world, controller = digits_world(path)
    controller.execute(c.StartRelease("digits:v2", spec, "ann"))
    world.live(controller, seconds)
    if then:
        controller.execute(then)
        world.live(controller, 1)
    controller.close()
    return newest(path)


def lines(explanation: Explanation, title: str) -> str:
    return "\n".join(line for topic in explanation.topics if topic.title == title for line in topic.lines)


def with_(**changes: object) -> RolloutSpec:
    return SPEC.model_copy(update=changes)


@pytest.fixture(scope="module")
def silently_wrong(tmp_path_factory: pytest.TempPathFactory) -> Timeline:
    return turned_wrong(tmp_path_factory.mktemp("wrong") / "ledger.db")


def test_the_verdict_names_signal_evidence_and_cost(silently_wrong: Timeline) -> None:
    """This one sentence tells what happened."""
    sentence = one_sentence(silently_wrong)
    assert re.fullmatch(
        r"digits:v2 was rolled back after \d+ s of users' traffic: [\d.]+ % of its predictions were \"7\", "
        r"[\d.]+ % of digits:v1's; a harmless canary shows this at most once in [\d,]+ releases; "
        r"it answered [\d,]+ users' requests, none of which failed\.",
        sentence,
    )


def test_the_false_alarm_odds_cover_all_signals_together(silently_wrong: Timeline) -> None:
    """The probability of a false alarm is that over all signals, not only the one that failed."""
    assert silently_wrong.failed_signal is not None
    assert odds(silently_wrong.failed_signal.evidence.decisive_log_e) in one_sentence(silently_wrong)


def test_the_evidence_has_counts_and_thresholds(silently_wrong: Timeline) -> None:
    """A reader finds the counts behind each share, and how much evidence would have sufficed."""
    failed_signal = silently_wrong.failed_signal
    assert failed_signal is not None
    text = lines(why(silently_wrong), "The evidence")
    assert f"{tally(failed_signal.judged.canary)} predictions of digits:v2" in text
    assert (
        f"log e {failed_signal.evidence.log_e:.1f}; the canary fails at {failed_signal.evidence.threshold:.1f};" in text
    )
    assert "odds between 1/1.5 and 1.5 times stable's" in text


def test_the_cost_counts_users_requests_without_copies(silently_wrong: Timeline) -> None:
    """The estimate of missing answers uses only users' requests."""
    failed_signal, users = silently_wrong.failed_signal, silently_wrong.users("class:7")
    assert failed_signal is not None
    missing = users.total * failed_signal.judged.stable.bad / failed_signal.judged.stable.total - users.bad
    assert users.total < failed_signal.judged.canary.total
    cost = lines(why(silently_wrong), "What it cost")
    assert f'About {missing:.0f} fewer of users\' predictions were "7" than with digits:v1' in cost


def test_advice_about_a_missed_class_names_the_missing_inputs(silently_wrong: Timeline) -> None:
    """It fits the direction of the difference and names the command that lifts the quarantine."""
    text = lines(why(silently_wrong), "What to do")
    assert 'inputs that digits:v1 answers with "7": it misses them' in text
    assert "`kanaria retry digits:v2`" in text


def test_every_step_gives_the_proof_on_which_the_weight_was_raised(tmp_path: Path) -> None:
    """It gives time, requests, failures, the bound, and what the bound means over all users."""
    release = finished(tmp_path / "ledger.db")
    earned = lines(why(release), "How its traffic was earned").splitlines()
    assert len(earned) == 1 + len(release.steps)
    assert re.match(
        r"Shadow: \d+ s, [\d,]+ copied requests, none failed; 5 % next, on proof that fewer than "
        r"[\d.]+ % of its own requests, [\d.]+ % of all, fail because of it\.",
        earned[1],
    )


def test_a_promotion_gives_its_evidence(tmp_path: Path) -> None:
    """The bound is the one before all traffic moved; afterwards there was no stable to compare with."""
    release = finished(tmp_path / "ledger.db")
    last_compared = release.steps[-1].earned_by.evidence
    assert last_compared is not None
    bound = last_compared.signals["errors"].excess_upper
    assert bound is not None
    assert f"with 99 % certainty fewer than {share_up(bound)} of its requests fail because of it" in one_sentence(
        release
    )


def test_a_bound_of_100_percent_is_left_out(tmp_path: Path) -> None:
    """It says nothing while the evidence allows that every request fails because of the canary."""
    path = tmp_path / "ledger.db"
    world, controller = digits_world(path)
    world.rps = 0.5
    controller.execute(c.StartRelease("digits:v2", SPEC, "ann"))
    world.live(controller, 10)
    controller.close()
    release = newest(path)
    evidence = release.last_evidence
    assert evidence is not None
    assert max(signal.excess_upper or 0.0 for signal in evidence.signals.values()) > 0.99
    text = lines(why(release), "The evidence")
    assert "Evidence that it is worse" in text
    assert "100 %" not in text


def test_the_verdict_counts_failed_requests(tmp_path: Path) -> None:
    """These are users' requests."""
    release = finished(tmp_path / "ledger.db", LIVE, error_ratio=0.05)
    assert release.canary_failures > 0
    assert f"users' requests, {release.canary_failures} of which failed" in one_sentence(release)


def test_harm_after_promotion_is_counted_from_its_beginning(tmp_path: Path) -> None:
    """Good answers before the harm do not lower the share; the cost counts all requests."""
    release = harmed_after_promotion(tmp_path / "ledger.db")
    found = re.search(r"already promoted: ([\d.]+) % of its last ([\d,]+) requests failed", one_sentence(release))
    assert found
    assert float(found[1]) == pytest.approx(6, abs=1.5)
    assert int(found[2].replace(",", "")) < release.canary_requests / 5
    assert "times digits:v1's known share of failures" in lines(why(release), "The evidence")


def test_a_rollback_in_the_shadow_says_that_no_user_was_affected(tmp_path: Path) -> None:
    """The sentence says that no user's request reached the canary."""
    sentence = one_sentence(finished(tmp_path / "ledger.db", with_(soak=60.0), error_ratio=0.2))
    assert "was rolled back in the shadow step" in sentence
    assert sentence.endswith("no user's request reached it.")


WAYS_TO_END: dict[str, tuple[Callable[[Path], Timeline], str]] = {
    "startup": (lambda path: finished(path, starts_at_all=False), "did not start: ImportError"),
    "deadline": (
        lambda path: finished(
            path,
            with_(
                steps=(5, 25, 50, 100), risk_budget=RiskBudget(share=0.0001), step_deadline=40.0, on_deadline="rollback"
            ),
        ),
        "no proof of safety in 40 s",
    ),
    "guard": (
        lambda path: finished(path, with_(steps=(25, 50, 100), guards=Guards(error_ratio=0.1)), error_ratio=0.3),
        "the guard allows 10 %",
    ),
    "person": (
        lambda path: after(path, 15, then=c.RollbackNow("bob", "customers complain")),
        "by bob: customers complain",
    ),
    "alert": (
        lambda path: after(path, 15, then=c.RollbackNow("alertmanager", "BudgetBurn: fast", signal="alert")),
        "by alertmanager: BudgetBurn: fast",
    ),
}


@pytest.mark.parametrize("signal", WAYS_TO_END)
def test_the_verdict_gives_every_kind_of_reason_to_roll_back(signal: str, tmp_path: Path) -> None:
    """Besides the statistics: a failed start, a deadline, the guard, a person, an alert."""
    make, reason = WAYS_TO_END[signal]
    release = make(tmp_path / "ledger.db")
    assert release.state.outcome_signal == signal
    assert reason in one_sentence(release)
    assert "`kanaria retry digits:v2`" in lines(why(release), "What to do")


def test_a_crash_is_explained_by_the_last_output_of_the_process(tmp_path: Path) -> None:
    """The counts look clean, as stable answered in its place; the reason is that it died."""
    world, controller = digits_world(tmp_path / "ledger.db")
    controller.execute(c.StartRelease("digits:v2", with_(soak=60.0, steps=(25, 100)), "ann"))
    world.live(controller, 10)
    world.edit("digits:v2", health=Health.DEAD, has_crashed=True)
    world.live_until_ended(controller)
    controller.close()
    explanation = why(newest(tmp_path / "ledger.db"))
    assert "the process of digits:v2 ended: ImportError" in explanation.verdict
    assert "Read the last lines of its log" in lines(explanation, "What to do")


def test_a_shadow_that_differs_too_often_is_explained_with_its_limit(tmp_path: Path) -> None:
    """No user saw its answers. Stable has no share of its own: it is the other side of each pair."""
    release = finished(tmp_path / "ledger.db", differs_ratio=0.81)
    explanation = why(release)
    assert release.failed_signal is not None
    assert re.fullmatch(
        r"digits:v2 was rolled back in the shadow step: 8\d(\.\d)? % of its [\d,]+ answers to copied requests differ "
        r"from digits:v1's, 10 % are allowed; a harmless canary shows this at most once in [\d,]+ releases; "
        r"no user's request reached it\.",
        explanation.verdict,
    )
    evidence = lines(explanation, "The evidence")
    assert f"{tally(release.failed_signal.judged.canary)} answers to copied requests of digits:v2 differ" in evidence
    assert "Harmless here means: a share of at most 10 %." in evidence
    assert "`signals.disagreement.at_most`" in lines(explanation, "What to do")
    assert "answers to copied requests differ from stable's" in release.decisions[-2].reason


def test_a_shadow_that_differs_in_a_third_of_its_answers_is_left_to_a_person(tmp_path: Path) -> None:
    """A better model may differ as often. Nobody decides here, so it is rolled back at the deadline."""
    release = finished(tmp_path / "ledger.db", differs_ratio=0.31)
    assert re.search(r"3\d(\.\d)? %\), 10 % are allowed; .*; nobody decided in", release.decisions[-2].reason)
    to_do = lines(why(release), "What to do")
    assert "Compare its answers with stable's on the same inputs" in to_do
    assert "Proof needs requests" not in to_do


def test_a_failed_signal_that_the_plan_no_longer_has_does_not_suppress_advice(tmp_path: Path) -> None:
    """With an unknown signal, nothing was advised at a deadline."""
    release = finished(tmp_path / "ledger.db", differs_ratio=0.31)
    assert release.end is not None
    assert release.end.evidence is not None
    evidence = replace(release.end.evidence, failed_signal="custom.gone")
    decisions = [replace(each, evidence=evidence) if each is release.end else each for each in release.decisions]
    assert "Proof needs requests" in advice(replace(release, decisions=tuple(decisions)))[0]


def test_a_shadow_that_differs_within_its_limit_is_promoted(tmp_path: Path) -> None:
    """6 % differ and 10 % are allowed: no sign of harm."""
    release = finished(tmp_path / "ledger.db", differs_ratio=0.06)
    assert release.outcome == "promoted"
    others = lines(why(release), "The other signals")
    assert re.search(
        r"`disagreement`: [5-7][\d.]* % of [\d,]+ answers to copied requests differ from digits:v1's, "
        r"10 % are allowed; no sign of harm\.",
        others,
    )


def test_an_abort_does_not_quarantine(tmp_path: Path) -> None:
    """A person who stops a release does not say that the version is bad."""
    explanation = why(after(tmp_path / "ledger.db", 15, then=c.Abort("bob", "wrong file")))
    assert "was stopped" in explanation.verdict
    assert "by bob: wrong file" in explanation.verdict
    assert "not in quarantine" in lines(explanation, "What to do")


def test_a_running_release_says_how_many_more_requests_it_needs(tmp_path: Path) -> None:
    """It gives requests, the time at the rate of the step, and what happens at the deadline."""
    release = after(tmp_path / "ledger.db", 30, spec=with_(steps=(5, 25, 50, 100), risk_budget=RiskBudget(share=0.001)))
    explanation = why(release)
    assert re.search(
        r"waits for about [\d,]+ more requests to the canary, .+ at the rate of this step\.", explanation.verdict
    )
    assert "a person is asked" in lines(explanation, "What it waits for")


def test_no_time_is_forecast_when_no_requests_come(tmp_path: Path) -> None:
    """Half a minute after the last request there is no rate."""
    release = after(tmp_path / "ledger.db", 30, spec=with_(steps=(5, 25, 50, 100), risk_budget=RiskBudget(share=0.001)))
    verdict = why(release, now_s=release.seen_s + 30).verdict
    assert re.search(r"waits for about [\d,]+ more requests to the canary; none came for 3\d s\.", verdict), verdict


def test_a_paused_release_says_who_paused_it_and_why(tmp_path: Path) -> None:
    """It waits for that person."""
    explanation = why(after(tmp_path / "ledger.db", 15, then=c.Pause("bob", "lunch")))
    assert "waits for a person" in explanation.verdict
    assert "paused by bob: lunch" in lines(explanation, "Worth knowing")


def test_a_release_paused_before_its_first_step_waits_for_a_person(tmp_path: Path) -> None:
    """This holds before and after its first answer. It said that it waits for its first ready answer."""
    paused = after(tmp_path / "ledger.db", 1, then=c.Pause("ann"))
    assert "waits for a person: it is paused (`kanaria resume`)" in one_sentence(paused)


@pytest.mark.parametrize(
    ("seconds", "then", "says"),
    [
        (1, None, "Nothing, unless you want to: `kanaria pause` or `kanaria abort`."),
        (15, None, "Nothing, unless you want to: `kanaria pause`, `kanaria promote` or `kanaria abort`."),
        (1, c.Pause("ann"), "`kanaria resume` lets it go on, `kanaria abort` ends it."),
        (15, c.Pause("ann"), "`kanaria resume` lets it go on, `kanaria abort` ends it."),
    ],
)
def test_only_commands_that_are_accepted_now_are_advised(
    tmp_path: Path, seconds: float, then: c.Command | None, says: str
) -> None:
    """A starting version cannot be promoted, and a paused release cannot be paused."""
    assert advice(after(tmp_path / "ledger.db", seconds, then=then)) == (says,)


def test_a_starting_release_says_what_it_waits_for(tmp_path: Path) -> None:
    """Its limit is the startup deadline."""
    assert "waits for its first ready answer" in one_sentence(after(tmp_path / "ledger.db", 1))


def test_past_its_deadline_a_release_waits_for_a_person_or_proof(tmp_path: Path) -> None:
    """No person has to answer: the release continues when the proof comes."""
    release = after(
        tmp_path / "ledger.db",
        80,
        spec=with_(steps=(5, 25, 50, 100), risk_budget=RiskBudget(share=0.0003), step_deadline=20.0),
    )
    assert re.search(r"waits for a person, or for about [\d,]+ more requests to the canary", why(release).verdict)


def test_a_metric_outage_is_explained(tmp_path: Path) -> None:
    """`why` gives its start and end, and says that nothing was decided meanwhile."""
    world, controller = digits_world(tmp_path / "ledger.db")
    controller.execute(c.StartRelease("digits:v2", SPEC, "ann"))
    for is_up in (True, False, True):
        world.is_source_up = is_up
        world.live(controller, 10)
    controller.close()
    text = lines(why(newest(tmp_path / "ledger.db")), "Worth knowing")
    assert re.search(r"No metrics from \d\d:\d\d:\d\d to \d\d:\d\d:\d\d UTC \(\d+ s\)", text)


def test_an_explanation_is_structured_data(silently_wrong: Timeline) -> None:
    """`kanaria why --json` has the same text: a verdict, and topics with lines."""
    explanation = asdict(why(silently_wrong))
    assert set(explanation) == {"verdict", "topics"}
    assert all(topic["title"] and topic["lines"] for topic in explanation["topics"])


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.005, "0.5 %"),
        (0.0123, "1.2 %"),
        (0.12345, "12.3 %"),
        (0.00005, "0.005 %"),
        (0.99996, "99.996 %"),
    ],
)
def test_shares_have_two_significant_digits(ratio: float, words: str) -> None:
    """They have no trailing zeros."""
    assert share(ratio) == words


@pytest.mark.parametrize(("ratio", "words"), [(0.01201, "1.3 %"), (0.012, "1.2 %"), (0.0, "0.0001 %"), (2.0, "100 %")])
def test_bounds_are_rounded_up(ratio: float, words: str) -> None:
    """1.21 % never becomes "fewer than 1.2 %", and nothing is "fewer than 0 %"."""
    assert share_up(ratio) == words


@pytest.mark.parametrize(
    ("percent", "words"), [(5, "5 %"), (12.5, "12.5 %"), (1.07, "1.07 %"), (100 - 12.34, "87.66 %"), (100.0, "100 %")]
)
def test_weights_are_written_as_they_are_set(percent: float, words: str) -> None:
    """They have up to two decimals and no trailing zeros."""
    assert weight(percent) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.5, "0.5 s"), (41, "41 s"), (120, "2 min"), (161.6, "2 min 42 s"), (7199.9, "2 h"), (11_100, "3 h 5 min")],
)
def test_durations_use_their_largest_units(seconds: float, words: str) -> None:
    """They never end in 60 s or 60 min."""
    assert span(seconds) == words


@pytest.mark.parametrize(
    ("log_e", "words"),
    [
        (0.0, "most harmless canaries"),
        (10.34, "at most once in 30,000 releases"),
        (40.0, "at most once in 1,000,000,000 releases"),
    ],
)
def test_evidence_is_written_as_odds(log_e: float, words: str) -> None:
    """The sentence explains log e to a reader who does not know it."""
    assert words in odds(log_e)


@pytest.mark.parametrize("seconds", [4.0, 6.5])
def test_a_version_promoted_from_the_shadow_had_no_time_in_traffic(tmp_path: Path, seconds: float) -> None:
    """The gateway gets its split a moment after the decision, which read "after -0.016 s of users' traffic"."""
    sentence = one_sentence(after(tmp_path / "ledger.db", seconds, then=c.PromoteNow("ann")))
    assert sentence == "digits:v2 was promoted by ann before it took any traffic."


@pytest.mark.parametrize("hangs_s", [0.0, 0.5])
@pytest.mark.parametrize("holdback", [0.0, 0.05])
def test_the_explanation_of_a_promotion_does_not_change_later(tmp_path: Path, holdback: float, hangs_s: float) -> None:
    """Counts of the watch have their own topic and change no other number.

    With a holdback, requests that the previous version answered in the watch were counted in the steps.
    """
    path = tmp_path / "ledger.db"
    world, controller = digits_world(path)
    controller.execute(c.StartRelease("digits:v2", with_(holdback=holdback, watch=60.0), "ann"))
    while controller.snapshot.deployment.stable != "digits:v2":
        world.live(controller, 1)
    told, counted = set(), set()
    for _ in range(3):
        world.live(controller, 10)
        explained = why(newest(path))
        told.add((explained.verdict, *(lines(explained, title) for title in ("What it cost", "The other signals"))))
        counted.add(lines(explained, "Since its promotion"))
        world.edit("digits:v2", hangs=hangs_s > 0)
        world.live(controller, hangs_s)
        world.edit("digits:v2", hangs=False)
    controller.close()
    assert (len(told), len(counted)) == (1, 3)
    assert (newest(path).canary_saved > 0, newest(path).saved_in_steps) == (hangs_s > 0, 0)


def test_the_cost_of_a_version_promoted_without_traffic_does_not_grow(tmp_path: Path) -> None:
    """It was promoted from the shadow or restored. Counts of the watch are not a cost of its release."""
    path = tmp_path / "ledger.db"
    world, controller = digits_world(path)
    controller.execute(c.StartRelease("digits:v2", with_(watch=30.0), "ann"))
    world.live(controller, 6)
    controller.execute(c.PromoteNow("ann"))
    told = []
    for number, then in ((1, None), (2, c.Restore("digits:v1", "bob"))):
        if then:
            world.live_until_ended(controller)
            controller.execute(then)
        for _ in range(2):
            world.live(controller, 8)
            told.append(lines(why(newest(path, number)), "What it cost"))
    controller.close()
    assert told == ["No user's request reached it before it had all traffic."] * 4


def test_an_asked_person_is_advised_to_decide(tmp_path: Path) -> None:
    """The advice says what happens without a decision; "nothing" would be wrong."""
    path = tmp_path / "ledger.db"
    world, controller = digits_world(path, classes=NO_SEVENS)
    held = LIVE.model_copy(update={"signals": Signals({"class": Classes(on_fail="hold")})})
    controller.execute(c.StartRelease("digits:v2", held, "ann"))
    while not (active := controller.snapshot.deployment.active) or not active.asked:
        world.live(controller, 1)
    controller.close()
    told = lines(why(newest(path)), "What to do")
    assert told.startswith("Decide: `kanaria promote`, `kanaria rollback` or `kanaria abort`.")
    assert "If nobody decides, it is rolled back in 4 min" in told


def test_without_any_request_the_release_says_how_to_send_some(tmp_path: Path) -> None:
    """Before, in and after the warm-up, and at a weight, "never seen" for every signal does not help."""
    for number, spec in enumerate((SPEC, LIVE, with_(warmup=60.0))):
        path = tmp_path / f"{number}.db"
        world, controller = digits_world(path)
        world.rps = 0
        world.counters.clear()
        controller.execute(c.StartRelease("digits:v2", spec, "ann"))
        world.live(controller, 20)
        controller.close()
        assert "waits for requests: none arrive; `kanaria loadtest demo` sends some." in one_sentence(newest(path))


def test_refused_requests_are_not_reported_as_missing(tmp_path: Path) -> None:
    """A person looked for a fault in the clients' network, but their key was wrong. An answered request ends it."""
    path = tmp_path / "ledger.db"
    world, controller = digits_world(path)
    world.rps = 0
    world.counters.clear()
    world.router.turned_away = Refused(1000, 5)
    controller.execute(c.StartRelease("digits:v2", SPEC, "ann"))
    world.live(controller, 5)
    world.router.turned_away = Refused(1040, 5)
    world.live(controller, 15)
    said = "refused 40 requests for a missing or wrong key (`kanaria key list` shows the keys that it accepts)"
    shown = build_status("digits", controller.snapshot, newest(path)).release
    assert shown is not None
    assert "waits for requests that reach a version: in " in shown.sentence
    for words in (
        shown.sentence,
        shown.waits_for or "",
        one_sentence(newest(path)),
        lines(why(newest(path)), "Worth knowing"),
        lines(why(newest(path)), "What to do"),
    ):
        assert (said in words, "none arrive" in words) == (True, False), words
    world.router.turned_away = Refused(3, 2)
    world.live(controller, 10)
    shown = build_status("digits", controller.snapshot, newest(path)).release
    assert shown is not None
    assert "refused 3 requests" in shown.sentence, "counted since the gateway restarted"
    assert "and answered 2 with another 4xx status, such as 404 for a path that no version has" in shown.sentence
    world.rps = 120
    world.live(controller, 6)
    shown = build_status("digits", controller.snapshot, newest(path)).release
    controller.close()
    assert shown is not None
    for words in (shown.sentence, shown.waits_for or "", one_sentence(newest(path))):
        assert "refused" not in words
    assert len([note for note in newest(path).notes if note.topic == "requests_refused"]) == 1


def test_requests_refused_from_some_time_on_are_reported_with_what_is_missing(tmp_path: Path) -> None:
    """This happens when a key is withdrawn."""
    path = tmp_path / "ledger.db"
    world, controller = digits_world(path, error_ratio=0.002)
    controller.execute(c.StartRelease("digits:v2", UNPROVEN, "ann"))
    world.live(controller, UNPROVEN_S)
    world.rps, world.router.turned_away = 0, Refused(7)
    world.live(controller, 6)
    world.router.turned_away = Refused(19)
    world.live(controller, 20)
    shown = build_status("digits", controller.snapshot, newest(path)).release
    controller.close()
    assert shown is not None
    assert re.search(r"about .* more requests to the canary; none came for .* s; in .* refused \d+", shown.sentence)


def test_each_period_of_refused_requests_is_noted(tmp_path: Path) -> None:
    """At the second one in a release, `why` said only that no requests came, although `status` gave the reason."""
    path = tmp_path / "ledger.db"
    world, controller = digits_world(path, error_ratio=0.002)
    controller.execute(c.StartRelease("digits:v2", UNPROVEN, "ann"))
    world.live(controller, UNPROVEN_S)
    for before in (0, 500):
        world.rps, world.router.turned_away = 0, Refused(before)
        world.live(controller, 6)
        world.router.turned_away = Refused(before + 1 + before // 5)
        world.live(controller, 20)
        said = one_sentence(newest(path))
        assert f"refused {'101 requests' if before else '1 request'} for a missing" in said
        assert re.search(r", as seen at [\d:]{8} UTC\.$", said), "there may be more by now; only `status` counts them"
        world.rps = 120
        world.live(controller, 6)
        assert "refused" not in one_sentence(newest(path))
    controller.close()
    assert len([note for note in newest(path).notes if note.topic == "requests_refused"]) == 2


def test_a_release_does_not_wait_for_a_deadline_that_has_passed(tmp_path: Path) -> None:
    """Without requests a person is asked. At weight 0 nobody is asked, and the first request continues the release."""
    path = tmp_path / "ledger.db"
    world, controller = digits_world(path)
    world.rps = 0
    world.counters.clear()
    controller.execute(c.StartRelease("digits:v2", LIVE.model_copy(update={"step_deadline": 30.0}), "ann"))
    world.live(controller, 50)
    at_a_weight = newest(path)
    while controller.snapshot.deployment.release and controller.snapshot.deployment.release.weight_percent:
        world.live(controller, 1)
    world.live(controller, 60)
    controller.close()
    without = newest(path)
    assert at_a_weight.state.asked
    assert "waits for a person, or for requests: none arrive; `kanaria loadtest demo` sends" in one_sentence(
        at_a_weight
    )
    assert "has 0 % of the traffic and waits for requests: none arrive; `kanaria loadtest demo`" in one_sentence(
        without
    )
    for release in (at_a_weight, without):
        assert "more of measured time" not in lines(why(release), "What it waits for")
    told = lines(why(without), "What to do")
    assert told.startswith("Send requests: none was counted. `kanaria loadtest demo` sends some.\nNothing else, unless")


def test_a_release_that_a_person_rolls_back_without_a_request_had_no_users_traffic(tmp_path: Path) -> None:
    """It said "after 21 s of users' traffic", and that none of its requests was counted."""
    path = tmp_path / "ledger.db"
    world, controller = digits_world(path)
    world.rps = 0
    controller.execute(c.StartRelease("digits:v2", LIVE, "ann"))
    world.live(controller, 20)
    controller.execute(c.RollbackNow("bob", "customers complain"))
    world.live_until_ended(controller)
    controller.close()
    said = one_sentence(newest(path))
    assert re.fullmatch(
        r"digits:v2 was rolled back after \S+ s with a share of the traffic by bob: customers complain; "
        r"none of its requests was counted\.",
        said,
    ), said


def test_a_release_that_a_person_promotes_without_a_request_had_no_users_traffic(tmp_path: Path) -> None:
    """It had a share of the traffic, but no request came."""
    path = tmp_path / "ledger.db"
    world, controller = digits_world(path)
    world.rps = 0
    controller.execute(c.StartRelease("digits:v2", LIVE, "ann"))
    world.live(controller, 20)
    controller.execute(c.PromoteNow("bob"))
    world.live(controller, 2)
    controller.close()
    said = one_sentence(newest(path))
    assert re.fullmatch(
        r"digits:v2 was promoted by bob after \S+ s with a share of the traffic; none of its requests was counted\.",
        said,
    ), said


def test_it_does_not_say_that_none_arrive_if_only_the_canary_gets_none(tmp_path: Path) -> None:
    """Stable's requests are counted, so a load test would not help."""
    path = tmp_path / "ledger.db"
    world, controller = digits_world(path)
    controller.execute(c.StartRelease("digits:v2", LIVE, "ann"))
    world.rps = 2
    world.live(controller, 8)
    controller.close()
    assert "none arrive" not in one_sentence(newest(path))


def test_a_release_that_must_be_better_gives_up_without_labels(tmp_path: Path) -> None:
    """It is safe, but no labels can prove it better, so it stops before the step to all traffic."""
    path = tmp_path / "ledger.db"
    release = finished(path, SPEC.model_copy(update={"require": "better", "on_deadline": "rollback"}))
    assert release.outcome == "rolled_back"
    assert "no labels prove it better, which the plan requires" in release.decisions[-2].reason


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("its answers lack `label`", "Its answers lack `label`"),
        ("toy:v1 itself answers otherwise", "toy:v1 itself answers otherwise"),
        ("note: it", "Note: it"),
        ("", ""),
    ],
)
def test_a_sentence_starts_with_a_capital_letter_unless_it_starts_with_a_tag(text: str, says: str) -> None:
    """`Toy:v1` is a different version from `toy:v1`."""
    assert sentence(text) == says
