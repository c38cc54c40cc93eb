"""Decides when the evidence is enough to FAIL, and states the reason."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from rollout.judge import words
from rollout.judge.callers import CallersApart, Disagreement
from rollout.judge.evidence import SignalEvidence
from rollout.judge.logarithms import log_sum
from rollout.judge.pool import Pool
from rollout.judge.types import JudgeConfig, SignalJudgement, SignalRule, Without


@dataclass(frozen=True, slots=True)
class Failure:
    """A FAIL. It is final, except that a hold may still become a rollback."""

    signal: str
    reason: str
    log_e: float
    on_fail: Literal["rollback", "hold"]
    without: Without | None = None  # see `Judgement`


class Failing:
    """Watches the evidence of one release.

    Args:
        pool: the evidence of all signals and all labels.
        callers: the evidence without the labels of each caller.
        judged: returns the judgement of one signal.
    """

    def __init__(
        self,
        config: JudgeConfig,
        pool: Pool,
        callers: CallersApart,
        judged: Callable[[SignalEvidence], SignalJudgement],
    ) -> None:
        self._config, self._pool, self._callers, self._judged = config, pool, callers, judged
        self._threshold = -math.log(config.alpha)
        self.failure: Failure | None = None
        self.unconfirmed: str | None = None  # harm that is proven with all labels, but not yet without one caller's

    def detect(self, end_s: float) -> None:
        """Check the evidence after a tick that ended at `end_s`, Unix seconds."""
        self.unconfirmed = None
        if max(self._pool.log_e(), self._callers.log_e()) < self._threshold:
            return  # the evidence that may FAIL is a part of it, so it is smaller still
        evidence = self._pool.to_fail()
        for name, log_e in evidence.items():
            if min((log_e, *(pool.to_fail()[name] for pool in self._callers.left_out().values()))) >= self._threshold:
                self._pool.signals[name].decide(end_s)
        if self.failure and self.failure.on_fail == "rollback":
            if self._rule(self.failure.signal).is_only_different:
                self._detect_harm(end_s)
            return
        for_rollback = self._pool.to_fail(rollback_only=True)
        if log_sum(for_rollback.values()) >= self._threshold and self._is_confirmed(rollback_only=True):
            self.failure = self._fail(for_rollback, "rollback", end_s)
        elif self.failure is None:
            self._detect_disagreement(evidence, end_s)

    def _is_confirmed(self, *, rollback_only: bool = False) -> bool:
        """Whether harm is proven even without the labels of any single caller."""
        least = self._callers.least_to_fail(rollback_only=rollback_only)
        return least is None or least.log_e >= self._threshold

    def _detect_disagreement(self, evidence: Mapping[str, float], end_s: float) -> None:
        """Leave FAIL to a person where the plan says so, or where one caller's labels disagree with all others'."""
        is_proven = log_sum(evidence.values()) >= self._threshold
        if is_proven and self._is_confirmed():
            self.failure = self._fail(evidence, "hold", end_s)
        elif found := self._callers.disagreement(self._pool, self._of_labels(), self._threshold, self._config.amber):
            proof = found.proof.to_fail()
            self.failure = self._fail(proof, "hold", end_s, disagreement=found)
        elif is_proven and (least := self._callers.least_to_fail()):
            self.unconfirmed = words.unconfirmed(self._seen(evidence, self._pool), least)

    def _detect_harm(self, end_s: float) -> None:
        """Base FAIL on signals of harm if they suffice alone: labels may still excuse a mere difference."""
        pools = self._pool, *self._callers.left_out().values()
        found = [self._of_harm(pool.to_fail(rollback_only=True)) for pool in pools]
        if min(log_sum(harm.values()) for harm in found) >= self._threshold:
            self.failure = self._fail(found[0], "rollback", end_s)

    def _of_harm(self, evidence: Mapping[str, float]) -> dict[str, float]:
        return {name: log_e for name, log_e in evidence.items() if not self._rule(name).is_only_different}

    def _fail(
        self,
        evidence: Mapping[str, float],
        on_fail: Literal["rollback", "hold"],
        end_s: float,
        *,
        disagreement: Disagreement | None = None,
    ) -> Failure:
        leading = max(evidence, key=lambda name: evidence[name])
        self._pool.signals[leading].decide(end_s)
        log_e = log_sum(evidence.values())
        if disagreement is None:
            canary = {name: signal.canary for name, signal in self._pool.signals.items()}
            place = words.concentrated(leading, canary, self._config.rules)
            seen = "; ".join(filter(None, (self._seen(evidence, self._pool), place)))
            return Failure(leading, words.failed(seen, log_e), log_e, on_fail)
        seen, without = self._seen(evidence, disagreement.proof), disagreement.without
        said = words.disagreeing(without, disagreement.own, disagreement.others, self._threshold, self._config.amber)
        return Failure(leading, f"{seen}; {said}", log_e, on_fail, without)

    def _seen(self, evidence: Mapping[str, float], pool: Pool) -> str:
        """The counts of the signal with the most evidence, in words."""
        leading = max(evidence, key=lambda name: evidence[name])
        return words.seen(leading, self._rule(leading), self._judged(pool.signals[leading]))

    def _of_labels(self) -> list[str]:
        return [name for name in self._pool.signals if self._rule(name).is_of_labels]

    def _rule(self, name: str) -> SignalRule:
        return self._config.rules[name.partition(":")[0]]
