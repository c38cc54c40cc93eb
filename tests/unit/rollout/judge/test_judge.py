"""The judge as the controller uses it: verdicts and their priority, what blocks PASS, and replay."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.judge import JudgeConfig, OwnNoise, Pair, SignalRule, Verdict, Window
from rollout.judge.judge import Judge
from rollout.signals.catalogue import catalogue

RULES = catalogue().rules

CONFIG = JudgeConfig(rules=RULES)

Counts = tuple[int, int, int, int]  # bad and total of stable, then of canary
HEALTHY: Counts = (1, 900, 0, 100)
TERRIBLE: Counts = (1, 900, 30, 100)
SUSPECT: Counts = (3, 900, 6, 20)


def window(tick: int, signal: str, counts: Counts) -> Window:
    return Window(5.0 * tick, 5.0, signal, Pair(*counts[:2]), Pair(*counts[2:]))


def judge_of(*ticks: dict[str, Counts], config: JudgeConfig = CONFIG, phi: dict[str, float] | None = None) -> Judge:
    """A judge that has seen `ticks`; each tick has counts by signal."""
    judge = Judge(config, {signal: OwnNoise.alike(one) for signal, one in (phi or {}).items()})
    for i, tick in enumerate(ticks, 1):
        judge.observe([window(i, signal, counts) for signal, counts in tick.items()])
    return judge


def verdict_of(judge: Judge, *, next_weight: float | None = 0.25, expected: Sequence[str] = ()) -> Verdict:
    return judge.judgement(next_weight=next_weight, expected=expected).verdict


def with_rules(**rules: SignalRule) -> JudgeConfig:
    return replace(CONFIG, rules={**RULES, **rules})


# ---- PASS


def test_a_healthy_canary_passes_when_the_budget_is_proven_to_hold() -> None:
    """A thousand clean canary requests bound the excess near 0.6 %, which at 25 % of traffic is within 0.5 % of all."""
    judgement = judge_of(*[{"errors": HEALTHY}] * 10).judgement(next_weight=0.25)
    assert judgement.verdict is Verdict.PASS
    assert 0.25 * judgement.signals["errors"].excess_upper <= CONFIG.risk_budget


def test_the_same_evidence_does_not_pass_a_larger_step() -> None:
    """Evidence that suffices for 5 % may not suffice for 100 %."""
    judge = judge_of(*[{"errors": HEALTHY}] * 3)
    assert (verdict_of(judge, next_weight=0.05), verdict_of(judge, next_weight=1.0)) == (
        Verdict.PASS,
        Verdict.INCONCLUSIVE,
    )


def test_a_suspicious_signal_blocks_pass_although_the_budget_holds() -> None:
    """The errors are fine, but latency looks worse than chance explains, so the canary waits."""
    judge = judge_of(*[{"errors": HEALTHY}] * 10, *[{"errors": HEALTHY, "latency:100": SUSPECT}] * 2)
    judgement = judge.judgement(next_weight=0.05)
    assert judgement.signals["errors"].verdict is Verdict.PASS
    assert (judgement.verdict, judgement.signals["latency:100"].verdict) == (Verdict.INCONCLUSIVE,) * 2


def test_without_a_next_step_pass_means_that_nothing_is_suspicious() -> None:
    """At the last step there is no risk budget to check; a canary without suspicious signals passes."""
    assert verdict_of(judge_of({"errors": HEALTHY}), next_weight=None) is Verdict.PASS


@given(
    ticks=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 500)), max_size=6),
    next_weight=st.sampled_from([None, 0.01, 0.5, 1.0]),
)
def test_without_canary_requests_there_is_never_a_pass(ticks: list[tuple[int, int]], next_weight: float | None) -> None:
    """This holds for any amount of stable traffic and any next weight."""
    judge = judge_of(*[{"errors": (min(bad, total), total, 0, 0)} for bad, total in ticks])
    assert verdict_of(judge, next_weight=next_weight) is Verdict.NO_DATA


# ---- NO_DATA


def test_without_windows_the_verdict_is_no_data() -> None:
    """A judge that saw no window never passes."""
    assert [verdict_of(judge_of(), next_weight=w) for w in (None, 0.5)] == [Verdict.NO_DATA] * 2


@pytest.mark.parametrize("expected", ["latency", "latency:100", "wrong_label"])
def test_an_expected_signal_without_data_holds_the_release(expected: str) -> None:
    """It may be expected by signal or by family, and may be seen without traffic or never."""
    judge = judge_of(*[{"errors": HEALTHY, "latency:100": (3, 900, 0, 0)}] * 10)
    judgement = judge.judgement(next_weight=0.05, expected=[expected])
    assert judgement.verdict is Verdict.NO_DATA
    assert expected in judgement.reason


def test_an_expected_signal_that_was_never_seen_is_listed() -> None:
    """A page or a script finds it among the signals."""
    judgement = judge_of({"errors": HEALTHY}).judgement(next_weight=0.05, expected=["wrong_label"])
    assert judgement.signals["wrong_label"].verdict is Verdict.NO_DATA


def test_a_budgeted_family_must_have_data_before_a_step() -> None:
    """Good latency says nothing about errors."""
    assert verdict_of(judge_of(*[{"latency:100": HEALTHY}] * 10)) is Verdict.NO_DATA


def test_without_stable_traffic_the_verdict_is_no_data() -> None:
    """Kayenta issue 799: errors on the canary, and no requests on stable to compare with."""
    judge = judge_of(*[{"errors": (0, 0, bad, 1000)} for bad in (1, 4, 2, 3, 1)])
    assert verdict_of(judge) is Verdict.NO_DATA


# ---- INCONCLUSIVE


def test_inconclusive_gives_the_number_of_requests_still_needed() -> None:
    """The number decreases as evidence comes in."""
    early, later = (judge_of(*[{"errors": HEALTHY}] * n).judgement(next_weight=1.0) for n in (1, 5))
    assert early.verdict is later.verdict is Verdict.INCONCLUSIVE
    assert 0 < later.signals["errors"].more_requests_needed < early.signals["errors"].more_requests_needed < math.inf


# ---- FAIL


def test_a_terrible_canary_fails_within_three_windows() -> None:
    """The cap on one window's evidence makes three windows the minimum."""
    at = [verdict_of(judge_of(*[{"errors": TERRIBLE}] * n)) for n in (2, 3)]
    assert at == [Verdict.INCONCLUSIVE, Verdict.FAIL]


def test_fail_names_the_signal_with_the_most_evidence() -> None:
    """It also gives the time of the decision."""
    judgement = judge_of(*[{"errors": HEALTHY, "latency:100": TERRIBLE}] * 6).judgement(next_weight=0.05)
    assert (judgement.verdict, judgement.failed_signal) == (Verdict.FAIL, "latency:100")
    assert judgement.signals["latency:100"].decided_at_s == 15.0
    assert judgement.signals["errors"].decided_at_s is None


def test_fail_is_final() -> None:
    """Later good requests do not change it, nor do expected signals without data."""
    judge = judge_of(*[{"errors": TERRIBLE}] * 3, *[{"errors": (900, 900, 0, 100)}] * 30)
    judgement = judge.judgement(next_weight=0.01, expected=["latency"])
    assert judgement.verdict is judgement.signals["errors"].verdict is Verdict.FAIL
    assert judgement.log_e < judgement.threshold


def test_one_signal_may_fail_the_canary_at_its_own_threshold() -> None:
    """Its threshold is what it needs when all other signals give no evidence."""
    signal = judge_of({"errors": HEALTHY, "latency:50": HEALTHY}).judgement(next_weight=None).signals["latency:50"]
    assert signal.threshold == pytest.approx(math.log(100 / (0.15 / 0.55)))


def test_too_few_bad_events_never_fail() -> None:
    """Two failures of the canary are not a regression, whatever e-value they give."""
    unlucky: Counts = (0, 9_000_000, 1, 100)
    assert verdict_of(judge_of(*[{"errors": unlucky}] * 2, config=replace(CONFIG, alpha=0.5))) is not Verdict.FAIL


@pytest.mark.parametrize("counts", [(90, 900, 0, 100), (90, 900, 40, 100)])
def test_a_class_fails_on_a_fall_as_on_a_rise(counts: Counts) -> None:
    """A class that vanishes is as suspicious as one that quadruples."""
    assert verdict_of(judge_of(*[{"class:7": counts}] * 8)) is Verdict.FAIL


def test_fewer_errors_do_not_fail() -> None:
    """Errors are tested one-sided; a better canary passes."""
    assert verdict_of(judge_of(*[{"errors": (90, 900, 0, 100)}] * 20), next_weight=0.05) is Verdict.PASS


def test_dispersion_delays_fail() -> None:
    """The same windows do not suffice if stable's own errors come in clusters of four."""
    ticks = [{"errors": (9, 900, 6, 100)}] * 4
    assert [verdict_of(judge_of(*ticks, phi=phi)) for phi in ({}, {"errors": 4.0})] == [
        Verdict.FAIL,
        Verdict.INCONCLUSIVE,
    ]


# ---- rollback or hold


def test_a_family_may_ask_for_a_person_instead_of_a_rollback() -> None:
    """The class shares of a better model may differ too."""
    config = with_rules(**{"class": replace(RULES["class"], on_fail="hold")})
    judgement = judge_of(*[{"errors": HEALTHY, "class:7": (90, 900, 30, 100)}] * 10, config=config).judgement(
        next_weight=0.05
    )
    assert (judgement.verdict, judgement.failed_signal, judgement.on_fail) == (Verdict.FAIL, "class:7", "hold")


def test_a_gross_shift_is_rolled_back_although_the_family_asks_for_a_person() -> None:
    """A better model does not move a share from 10 % to 90 %."""
    config = with_rules(**{"class": replace(RULES["class"], on_fail="hold", gross_tolerance=4.0)})
    gross, moderate = (
        judge_of(*[{"class:7": (90, 900, bad, 100)}] * 10, config=config).judgement(next_weight=None)
        for bad in (90, 25)
    )
    assert (gross.verdict, gross.on_fail) == (Verdict.FAIL, "rollback")
    assert (moderate.verdict, moderate.on_fail) == (Verdict.FAIL, "hold")


def test_a_hold_becomes_a_rollback_when_another_signal_proves_harm() -> None:
    """A person was asked about the classes; then errors come."""
    config = with_rules(**{"class": replace(RULES["class"], on_fail="hold")})
    judge = judge_of(
        *[{"errors": HEALTHY, "class:7": (90, 900, 40, 100)}] * 10,
        *[{"errors": TERRIBLE, "class:7": HEALTHY}] * 6,
        config=config,
    )
    judgement = judge.judgement(next_weight=None)
    assert (judgement.failed_signal, judgement.on_fail) == ("errors", "rollback")


# ---- the same windows give the same judgement

counts_of = st.tuples(st.integers(0, 60), st.integers(60, 900), st.integers(0, 20), st.integers(20, 100))
ticks_of = st.lists(
    st.dictionaries(st.sampled_from(["errors", "latency:50", "latency:100", "class:a", "class:b"]), counts_of),
    max_size=8,
)


def windows_of(ticks: Sequence[dict[str, Counts]]) -> list[Window]:
    return [window(i, signal, counts) for i, tick in enumerate(ticks, 1) for signal, counts in tick.items()]


@given(ticks=ticks_of, portion=st.integers(1, 8))
def test_replay_gives_the_identical_judgement(ticks: list[dict[str, Counts]], portion: int) -> None:
    """A controller that was killed replays its whole ledger at once, after judging it tick by tick before."""
    at_once, in_portions = Judge(CONFIG), Judge(CONFIG)
    at_once.observe(windows_of(ticks))
    windows = windows_of(ticks)
    for start in range(1, len(ticks) + 1, portion):
        in_portions.observe([w for w in windows if start <= w.end_s / 5 < start + portion])
        in_portions.judgement(next_weight=0.5)
    assert at_once.judgement(next_weight=0.5) == in_portions.judgement(next_weight=0.5)


@given(ticks=ticks_of, names=st.permutations(["class:a", "class:b", "class:c"]))
def test_the_names_of_classes_do_not_matter(ticks: list[dict[str, Counts]], names: list[str]) -> None:
    """Other class names change only names."""
    renamed = dict(zip(["class:a", "class:b", "class:c"], names, strict=True))
    one, other = Judge(CONFIG), Judge(CONFIG)
    one.observe(windows_of(ticks))
    other.observe(windows_of([{renamed.get(name, name): counts for name, counts in tick.items()} for tick in ticks]))
    a, b = one.judgement(next_weight=0.05), other.judgement(next_weight=0.05)
    assert (a.verdict, a.log_e) == (b.verdict, pytest.approx(b.log_e, abs=1e-9))


@given(ticks=ticks_of)
def test_empty_windows_change_no_verdict(ticks: list[dict[str, Counts]]) -> None:
    """A tick without events leaves all evidence unchanged."""
    with_gaps = [tick for busy in ticks for tick in (busy, dict.fromkeys(busy, (0, 0, 0, 0)))]
    one, other = Judge(CONFIG), Judge(CONFIG)
    one.observe(windows_of(ticks))
    other.observe(windows_of(with_gaps))
    a, b = one.judgement(next_weight=0.05), other.judgement(next_weight=0.05)
    assert (a.verdict, a.log_e) == (b.verdict, pytest.approx(b.log_e, abs=1e-9))


def test_the_rate_of_canary_requests_is_that_of_the_current_weight() -> None:
    """After the shadow, in which every request is copied, the canary gets far fewer."""
    judge = judge_of(*[{"errors": (0, 100, 0, 100)}] * 5)
    assert judge.judgement(next_weight=0.01).signals["errors"].canary_per_s == pytest.approx(20)
    judge.weight_changed()
    judge.observe([window(6, "errors", (0, 99, 0, 1))])
    assert judge.judgement(next_weight=0.05).signals["errors"].canary_per_s == pytest.approx(0.2)


# ---- what is refused


def test_an_unknown_family_is_refused() -> None:
    """A signal without a rule is an error and never ignored."""
    with pytest.raises(ValueError, match=r"no rule for signal 'happiness:high'; families with a rule: errors, "):
        judge_of({"happiness:high": HEALTHY})
    with pytest.raises(ValueError, match="no rule for signal 'happiness'"):
        judge_of().judgement(next_weight=None, expected=["happiness"])


def test_a_window_seen_already_is_refused() -> None:
    """No event may count twice."""
    judge = judge_of({"errors": HEALTHY})
    with pytest.raises(ValueError, match=r"errors: two windows end at 5\.0"):
        judge.observe([window(1, "errors", HEALTHY)])


@pytest.mark.parametrize("counts", [(-1, 900, 0, 100), (901, 900, 0, 100), (0, 900, 101, 100), (0, -5, 0, 0)])
def test_impossible_counts_are_refused(counts: Counts) -> None:
    """An undetected counter reset is not evidence."""
    with pytest.raises(ValueError, match=r"errors: (stable|canary) has -?\d+ bad of -?\d+ events"):
        judge_of({"errors": counts})


@pytest.mark.parametrize("next_weight", [0.0, -0.1, 25])
def test_a_weight_that_is_not_a_share_is_refused(next_weight: float) -> None:
    """For example, 25 is a percentage."""
    with pytest.raises(ValueError, match="next_weight is a share above 0 and up to 1"):
        judge_of({"errors": HEALTHY}).judgement(next_weight=next_weight)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (replace(CONFIG, alpha=0.0), "alpha must be between 0 and 1, got 0"),
        (replace(CONFIG, odds_ratios=(1.0, 2.0)), "odds_ratios must be above 1, got 1"),
        (replace(CONFIG, odds_ratios=()), "odds_ratios must be at least one number"),
        (replace(CONFIG, window_cap=1.0), "window_cap must be above 1"),
        (
            with_rules(errors=replace(RULES["errors"], tolerance=0.9)),
            "tolerance of errors must be at least 1",
        ),
        (with_rules(errors=replace(RULES["errors"], weight=-1)), "weight of errors must be at least 0"),
        (with_rules(disagreement=SignalRule(kernel="bounded", weight=1)), "margin of disagreement must be above 0"),
        (
            with_rules(disagreement=replace(RULES["disagreement"], two_sided=True)),
            "two_sided of disagreement must be false",
        ),
    ],
)
def test_settings_without_a_valid_error_rate_are_refused(config: JudgeConfig, complaint: str) -> None:
    """For example, with a tolerance under 1 the probability of a false FAIL has no bound."""
    with pytest.raises(ValueError, match=complaint):
        Judge(config)


def test_a_dispersion_below_one_is_refused() -> None:
    """It would multiply the evidence."""
    with pytest.raises(ValueError, match="clusters of errors must be at least 1"):
        Judge(CONFIG, {"errors": OwnNoise.alike(0.5)})


def test_a_user_dispersion_learned_later_widens_the_bound_for_pass() -> None:
    """Twice the dispersion makes the bound twice as wide, including earlier counts. FAIL is not affected."""
    judge = judge_of(*[{"errors": (0, 900, 0, 100)}] * 20)
    before = judge.judgement(next_weight=1.0)
    judge.temper_pass({"errors": 2.0})
    after = judge.judgement(next_weight=1.0)
    assert (before.verdict, after.verdict) == (Verdict.PASS, Verdict.INCONCLUSIVE)
    assert after.signals["errors"].excess_upper == pytest.approx(2 * before.signals["errors"].excess_upper, rel=0.01)
    assert after.log_e == before.log_e


def test_the_bound_for_pass_never_uses_less_dispersion_than_the_history() -> None:
    """Users who do not repeat their failures say nothing about bursts."""
    judge = judge_of({"errors": HEALTHY}, phi={"errors": 4.0})
    before = judge.judgement(next_weight=0.25)
    judge.temper_pass({"errors": 1.5})
    assert judge.judgement(next_weight=0.25) == before
