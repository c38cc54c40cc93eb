"""No single caller's labels decide: a rollback, and a proof of improvement, must hold without each caller."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest

from rollout.judge import JudgeConfig, Judgement, Pair, Verdict, Window
from rollout.judge.carried import carried
from rollout.judge.judge import Judge
from rollout.judge.types import BothPairs
from rollout.signals.options import WrongLabel
from rollout.signals.plan import Signals
from rollout.spec import RolloutSpec

LIAR, OWNER = "liar", "default"
FIVE = ("a", "b", "c", "d", LIAR)
CONFIG = RolloutSpec(signals=Signals.model_validate({"wrong_label": WrongLabel(after=60.0)})).judge_config()


class World:
    """Labels by caller in each window; each honest caller labels `labels` answers of each version per window."""

    def __init__(self, *honest: str, stable: float = 0.05, canary: float = 0.05, seed: int = 1) -> None:
        self.rng, self.wrong = np.random.default_rng(seed), {"stable": stable, "canary": canary}
        self.honest, self.labels = honest, 100 // len(honest)
        self.lies: Mapping[str, float] | None = None  # by version: the share that the liar calls wrong
        self.harmed: Mapping[str, float] = {}  # by caller: the share of the canary's answers to it that is wrong

    def windows(self, count: int = 200) -> Iterator[Window]:
        for number in range(1, count + 1):
            callers = {name: self._said(name) for name in self.honest}
            if self.lies:
                callers[LIAR] = BothPairs(*(Pair(round(8 * self.lies[side]), 8) for side in ("stable", "canary")))
            every = [sum((pairs[side] for pairs in callers.values()), Pair(0, 0)) for side in (0, 1)]
            yield Window(5.0 * number, 5.0, "wrong_label", every[0], every[1], callers=callers)

    def _said(self, caller: str) -> BothPairs:
        ratios = self.wrong["stable"], self.harmed.get(caller, self.wrong["canary"])
        return BothPairs(*(Pair(int(self.rng.binomial(self.labels, ratio)), self.labels) for ratio in ratios))


def judged(world: World, *, config: JudgeConfig = CONFIG, is_known: bool = True) -> list[Judgement]:
    """The judgements up to a rollback. If not `is_known`, the judge does not know whose labels are whose."""
    judge, found = Judge(config), list[Judgement]()
    for window in world.windows():
        judge.observe([window if is_known else replace(window, callers=None)])
        found.append(judge.judgement(next_weight=None))
        if found[-1].verdict is Verdict.FAIL and found[-1].on_fail == "rollback":
            break
    return found


def outcome_of(world: World, *, config: JudgeConfig = CONFIG, is_known: bool = True) -> str:
    last = judged(world, config=config, is_known=is_known)[-1]
    return last.on_fail if last.verdict is Verdict.FAIL else last.verdict.value


@pytest.mark.parametrize("callers", [3, 5, 20])
def test_harm_that_all_callers_report_is_rolled_back(callers: int) -> None:
    """This is hardly later than with pooled labels, as leaving out one caller loses only that caller's share."""
    world = World(*(f"caller-{number}" for number in range(callers)), canary=0.15)
    again = World(*(f"caller-{number}" for number in range(callers)), canary=0.15)
    apart, together = judged(world), judged(again, is_known=False)
    assert (apart[-1].verdict, apart[-1].on_fail, apart[-1].without) == (Verdict.FAIL, "rollback", None)
    assert len(together) <= len(apart) <= 3 * len(together)


def test_a_caller_who_calls_a_good_canary_wrong_cannot_roll_it_back() -> None:
    """With pooled labels this took less than a minute. Now a person is asked and told what the caller says."""
    world, again = World(*FIVE[:-1]), World(*FIVE[:-1])
    world.lies = again.lies = {"stable": 0.0, "canary": 1.0}
    assert outcome_of(again, is_known=False) == "rollback"
    last = judged(world)[-1]
    assert (last.verdict, last.on_fail) == (Verdict.FAIL, "hold")
    assert last.without is not None
    assert (last.without.caller, last.without.log_e < last.threshold) == (LIAR, True)
    assert "but callers disagree: by the labels of `liar` 100 % of the canary's and 0 % of stable's are wrong" in (
        last.reason
    )
    assert last.reason.endswith("without them there is no sign of harm")


def test_a_caller_who_calls_a_bad_canary_right_cannot_hide_harm() -> None:
    """With pooled labels the canary passed; now it does not pass and a person is asked."""
    world, again = World(*FIVE[:-1], canary=0.1), World(*FIVE[:-1], canary=0.1)
    world.lies = again.lies = {"stable": 1.0, "canary": 0.0}
    assert outcome_of(again, is_known=False) == "pass"
    last = judged(world)[-1]
    assert (last.verdict, last.on_fail) == (Verdict.FAIL, "hold")
    assert last.without is not None
    assert (last.without.caller, last.without.log_e >= last.threshold) == (LIAR, True)
    assert last.reason.endswith("without them harm is proven")


def test_suspicion_without_one_callers_labels_blocks_pass() -> None:
    world = World(*FIVE[:-1], canary=0.1)
    world.lies = {"stable": 1.0, "canary": 0.0}
    every = judged(world)
    (first_hold,) = [number for number, each in enumerate(every) if each.verdict is Verdict.FAIL][:1]
    suspicious = [each for each in every[:first_hold] if each.verdict is Verdict.INCONCLUSIVE]
    assert suspicious
    assert "without the labels of `liar`" in suspicious[-1].reason


def test_harm_to_one_caller_alone_is_left_to_a_person() -> None:
    """Labels alone cannot distinguish it from a lie."""
    world = World(*FIVE)
    world.harmed = {"b": 0.5}
    last = judged(world)[-1]
    assert (last.on_fail, last.without.caller if last.without else None) == ("hold", "b")


def test_with_two_callers_none_is_left_out() -> None:
    """Each would be confirmed only by the other."""
    world, again = World("a"), World("a")
    world.lies = again.lies = {"stable": 0.0, "canary": 1.0}
    apart, together = judged(world), judged(again, is_known=False)
    assert [(each.verdict, each.reason) for each in apart] == [(each.verdict, each.reason) for each in together]
    assert apart[-1].on_fail == "rollback"


def test_the_owners_labels_are_trusted_and_confirm_any_caller() -> None:
    world = World(OWNER)
    world.lies = {"stable": 0.0, "canary": 1.0}
    assert outcome_of(world) == "hold"
    assert outcome_of(World("a", "b", OWNER, canary=0.15)) == "rollback"
    alone = World("a", "b", OWNER)
    alone.harmed = {OWNER: 0.9}
    assert outcome_of(alone) == "rollback"  # the owner may roll back without labels too


def test_better_must_be_proven_without_each_caller() -> None:
    world, again = World(*FIVE[:-1]), World(*FIVE[:-1])
    world.lies = again.lies = {"stable": 1.0, "canary": 0.0}
    assert judged(again, is_known=False)[-1].is_better
    assert not judged(world)[-1].is_better
    assert judged(World(*FIVE, stable=0.15))[-1].is_better


def test_evidence_that_rests_on_one_caller_is_not_carried() -> None:
    """Else two releases would add up the evidence of one caller, and the second would start with it."""
    world = World(*FIVE[:-1])
    world.lies = {"stable": 0.0, "canary": 1.0}
    every = judged(world)
    suspicious = next(each for each in every if each.log_e > 2.0)
    assert suspicious.verdict is not Verdict.FAIL
    assert carried(suspicious, {}) == {}
    (signal,) = suspicious.signals.values()
    assert carried(replace(suspicious, signals={"wrong_label": replace(signal, least_without=None)}), {}) != {}


def test_a_rollback_is_never_earlier_than_with_pooled_labels() -> None:
    """So a harmless canary is rolled back no more often than before."""
    for seed in range(10):
        worlds = [World(*FIVE, canary=0.12, seed=seed) for _ in range(2)]
        apart, together = judged(worlds[0]), judged(worlds[1], is_known=False)
        assert len(apart) >= len(together)


@pytest.mark.exhaustive
def test_few_of_many_harmless_canaries_are_held() -> None:
    runs = [outcome_of(World(*FIVE, seed=seed)) for seed in range(40)]
    assert runs.count("rollback") + runs.count("hold") <= 1
