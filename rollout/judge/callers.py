"""The evidence without the labels of one caller: no verdict may rest on the labels of a single caller.

Every caller is left out in turn. Let E be the evidence of all labels and E_k the evidence without those of caller k. A
rollback needs E and every E_k to prove harm. This event is contained in "E proves harm", so alpha holds whatever the
E_k are. If caller k sends wrong labels, E_k is an e-process of the other callers' labels, and caller k decides nothing.

Callers who may roll back anyway are trusted and never left out. Nor is a caller left out where too few others would
remain to confirm that caller's labels.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from rollout.judge.logarithms import log_sum
from rollout.judge.pool import Pool
from rollout.judge.types import BothPairs, Window, Without

_FEWEST_OTHERS = 2  # callers that must remain; one trusted caller is enough


@dataclass(slots=True)
class _LeftOut:
    """The evidence without one caller."""

    pool: Pool
    log_share: float  # log of its weight in `CallersApart.log_e`


@dataclass(frozen=True, slots=True)
class Disagreement:
    """The labels of one caller disagree with those of all other callers."""

    proof: Pool  # the evidence that proves harm
    without: Without  # the caller whose labels differ most from the others', and the evidence without them
    signal: str  # the signal in which they differ most
    own: BothPairs  # that caller's labels of the signal
    others: BothPairs  # all other callers' labels of it


class CallersApart:
    """The evidence without each caller's labels, kept from the caller's first label on.

    Args:
        trusted: callers who are never left out.
    """

    def __init__(self, trusted: Collection[str]) -> None:
        self._trusted = trusted
        self._labels: Counter[tuple[str, str]] = Counter()  # number of labels by caller and side
        self._without: dict[str, _LeftOut] = {}

    def meet(self, tick: Sequence[Window], all_labels: Pool, names: Sequence[str]) -> None:
        """Start a copy of the evidence for each caller who is new in this tick, before the tick's counts are used.

        Args:
            all_labels: the evidence of all labels so far; none of them is a new caller's.
            names: its signals that count labels.
        """
        for window in tick:
            for caller, pairs in (window.callers or {}).items():
                self._labels[caller, "stable"] += pairs.stable.total
                self._labels[caller, "canary"] += pairs.canary.total
                if caller not in self._trusted and caller not in self._without:
                    self._take(caller, all_labels.apart(names))

    def _take(self, caller: str, pool: Pool) -> None:
        fraction = 1 / (1 + len(self._without))
        log_won = self._mixed() if self._without else pool.log_e()
        for each in self._without.values():
            each.log_share += math.log1p(-fraction)
        self._without[caller] = _LeftOut(pool, log_won + math.log(fraction) - pool.log_e())

    @property
    def are_apart(self) -> bool:
        """Whether any caller's evidence is kept separately."""
        return bool(self._without)

    def pools(self) -> Iterator[tuple[str, Pool]]:
        """The evidence without each caller, including callers who are not left out."""
        for caller, left_out in self._without.items():
            yield caller, left_out.pool

    def left_out(self) -> dict[str, Pool]:
        """The evidence without each caller who is left out, by the caller's name."""
        known = {
            caller
            for caller, side in self._labels
            if side == "stable" and min(self._labels[caller, "stable"], self._labels[caller, "canary"]) > 0
        }
        has_trusted = not known.isdisjoint(self._trusted)
        return {
            caller: each.pool
            for caller, each in self._without.items()
            if has_trusted or len(known - {caller}) >= _FEWEST_OTHERS
        }

    def log_e(self) -> float:
        """Log e-value of all `left_out` together: a weighted mean; each new caller gets a share of the wealth."""
        return self._mixed() if self.left_out() else 0.0

    def least_to_fail(self, *, rollback_only: bool = False) -> Without | None:
        """The caller without whose labels the evidence that may FAIL is smallest; None: nobody is left out."""
        return min(self._to_fail(rollback_only=rollback_only), key=lambda each: each.log_e, default=None)

    def most_to_fail(self) -> Without | None:
        """The caller without whose labels that evidence is largest; None: nobody is left out."""
        return max(self._to_fail(), key=lambda each: each.log_e, default=None)

    def _to_fail(self, *, rollback_only: bool = False) -> list[Without]:
        pools = self.left_out().items()
        return [Without(name, log_sum(pool.to_fail(rollback_only=rollback_only).values())) for name, pool in pools]

    def of_signal(self, name: str) -> list[Without]:
        """The evidence of one signal of labels without each caller."""
        return [Without(caller, pool.log_e_of(name)) for caller, pool in self.left_out().items()]

    def disagreement(self, every: Pool, names: Sequence[str], threshold: float, amber: float) -> Disagreement | None:
        """The disagreement between callers, where some of these evidences prove harm and another shows none.

        Harm that all callers see is still proven in one evidence before the others. So the others get more time, until
        the largest evidence is `amber` times what proves harm.

        Args:
            every: the evidence of all labels.
            names: the signals that count labels.
            threshold: log e-value that proves harm.
            amber: e-value from which a signal is suspicious.

        Returns: None where callers do not disagree, or where it is too early to say.
        """
        least, most = self.least_to_fail(), self.most_to_fail()
        if least is None or most is None:
            return None
        sign, of_all = math.log(amber), log_sum(every.to_fail().values())
        of_most = min(most.log_e, self.log_e())
        proof = every if of_all >= of_most else self._without[most.caller].pool
        is_shown = _shows(every, names, sign)
        is_overdue = max(of_all, of_most) >= threshold + sign
        rests_on_one = is_overdue and is_shown and not _shows(self._without[least.caller].pool, names, sign)
        is_hidden = of_all < threshold <= of_most and (is_overdue or not is_shown)
        return self._odd_one(proof, every, names) if rests_on_one or is_hidden else None

    def _odd_one(self, proof: Pool, every: Pool, names: Sequence[str]) -> Disagreement:
        """The caller whose labels differ most from all others'. This only names a caller; it is no proof."""
        found = []
        for caller, pool in self.left_out().items():
            for name in names:
                others = BothPairs(pool.signals[name].stable, pool.signals[name].canary)
                both = every.signals[name].stable, every.signals[name].canary
                own = BothPairs(*(all_of.less(part) for all_of, part in zip(both, others, strict=True)))
                without = Without(caller, log_sum(pool.to_fail().values()))
                found.append((_unlike(own, others), Disagreement(proof, without, name, own, others)))
        return max(found, key=lambda each: each[0])[1]

    def _mixed(self) -> float:
        return log_sum(each.log_share + each.pool.log_e() for each in self._without.values())


def _shows(pool: Pool, names: Sequence[str], log_e: float) -> bool:
    return any(pool.log_e_of(name) >= log_e for name in names)


def _unlike(own: BothPairs, others: BothPairs) -> float:
    """By how many standard deviations one caller's labels make the canary look better or worse than the others' do."""
    scores = []
    for mine, theirs in zip(own, others, strict=True):
        share = (theirs.bad + 0.5) / (theirs.total + 1)
        scores.append((mine.bad - mine.total * share) / math.sqrt(max(1, mine.total) * share * (1 - share)))
    return abs(scores[1] - scores[0])
