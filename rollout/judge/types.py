"""Input and output of the judge: counts, settings, verdicts.

The ledger stores windows and judgements as they are: a change of their fields needs a migration of the ledger.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, NoReturn


class Verdict(enum.Enum):
    """What one analysis concluded. NO_DATA and INCONCLUSIVE are never a pass."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    INCONCLUSIVE = "inconclusive"
    NO_DATA = "no_data"
    FAIL = "fail"

    def __bool__(self) -> NoReturn:
        raise TypeError("a Verdict is not a yes or no; write `verdict is Verdict.PASS`")


class Pair(NamedTuple):
    """`bad` out of `total` events; in JSON `[bad, total]`."""

    bad: int
    total: int

    def __add__(self, other: "Pair") -> "Pair":  # type: ignore[override] # counts add up; pairs are never joined
        # Not `Pair(...)`, which takes twice as long: adding counts is the judge's most frequent operation.
        return tuple.__new__(Pair, (self[0] + other[0], self[1] + other[1]))

    def less(self, part: "Pair") -> "Pair":
        """The events that are not in `part`, a subset of these."""
        return Pair(self.bad - part.bad, self.total - part.total)


_NOTHING = Pair(0, 0)


def sum_of(pairs: Sequence[Pair]) -> Pair:
    """The sum of all pairs, much faster than adding one after another; (0, 0) for none."""
    return Pair(*map(sum, zip(*pairs, strict=True))) if pairs else _NOTHING


class Numbers(NamedTuple):
    """`total` events that are numbers, their `sum` and the sum of their `squares`; in JSON a list in this order."""

    total: int
    sum: float
    squares: float

    def __add__(self, other: "Numbers") -> "Numbers":  # type: ignore[override] # sums add up; see Pair
        return tuple.__new__(Numbers, (self[0] + other[0], self[1] + other[1], self[2] + other[2]))

    @property
    def mean(self) -> float:
        """The mean; there must be at least one number."""
        return self.sum / self.total

    def negated(self) -> "Numbers":
        """The same numbers with the other sign."""
        return Numbers(self.total, -self.sum, self.squares)


class BothNumbers(NamedTuple):
    """The numbers of both sides."""

    stable: Numbers
    canary: Numbers


class BothPairs(NamedTuple):
    """The counts of both sides."""

    stable: Pair
    canary: Pair


@dataclass(slots=True)  # not frozen: that takes five times as long, and a judge makes hundreds of thousands
class Window:
    """New events of one signal in one window; no event is ever in two windows. Do not change its fields."""

    end_s: float  # Unix seconds
    window_s: float  # length, seconds
    signal: str  # a family such as `errors`, or a family and a key: `latency:100`
    stable: Pair
    canary: Pair
    numbers: BothNumbers | None = None  # where events are numbers: then no event of the pairs is bad
    callers: Mapping[str, BothPairs] | None = None  # the same events by the caller who labelled them; None: not known

    def of(self, side: Literal["stable", "canary"]) -> "Window":
        """The counts of one side, as if they were stable's and there were no canary."""
        if side == "stable" and not self.canary.total:
            return self
        numbers = BothNumbers(getattr(self.numbers, side), Numbers(0, 0.0, 0.0)) if self.numbers else None
        return Window(self.end_s, self.window_s, self.signal, getattr(self, side), _NOTHING, numbers)

    def without(self, caller: str) -> "Window":
        """The counts without the labels of one caller."""
        if self.callers is None or caller not in self.callers:
            return self
        own = self.callers[caller]
        return replace(self, stable=self.stable.less(own.stable), canary=self.canary.less(own.canary), callers=None)


@dataclass(frozen=True, slots=True)
class SignalWords:
    """The words for one signal, as in "3 of 812 `unit` `event`".

    The words of a family may hold `{key}`, the part after the colon in a signal's name, and `{stable}`.
    """

    title: str
    unit: str
    event: str
    family_title: str = ""  # where no key is known
    family_event: str = ""
    place: str = ""  # which part of all bad answers these are, as in "were `place`"; empty: none

    def of(self, key: str = "", *, stable: str = "stable") -> "SignalWords":
        """The words of one signal of the family; `stable` is the name of the version compared with."""
        title, event = self.title, self.event
        if not key:
            title, event = self.family_title or title, self.family_event or event
        title, unit, event = (text.format(key=key, stable=stable) for text in (title, self.unit, event))
        return SignalWords(title, unit, event, place=self.place.format(key=key))


@dataclass(frozen=True, slots=True)
class NumberRule:
    """How a signal whose events are numbers is judged by its mean."""

    between: tuple[float, float]  # the smallest and the largest number; others were clipped to these
    worse: Literal["higher", "lower"] = "higher"
    tolerance: float = 0.0  # harmless difference of the means towards `worse`, in the numbers' own unit
    budget: float | None = None  # PASS needs next weight x worst difference within this, in the unit; None: no budget
    unit: str = ""
    per_tenfold: float | None = None  # if the numbers are logarithms: the increase that stands for ten times as much
    one: float = 0.0  # if they are logarithms: the number that stands for 1 `unit`

    def __post_init__(self) -> None:
        object.__setattr__(self, "between", tuple(self.between))

    @property
    def upwards(self) -> float:
        """The factor, 1 or -1, that makes higher numbers worse."""
        return 1.0 if self.worse == "higher" else -1.0


@dataclass(frozen=True, slots=True)
class SignalRule:
    """How one family of signals (the part of the name before `:`) is judged."""

    kernel: Literal["rare", "exact", "bounded", "means"]
    weight: float  # the family's share of the combined evidence, relative to the families present; 0: no FAIL
    tolerance: float = 1.25  # harmless multiple of stable's bad rate (rare) or odds (exact), at least 1
    # Harmless additive excess (rare; None: a tenth of the risk budget), or the harmless share itself (bounded).
    margin: float | None = None
    two_sided: bool = False  # a fall counts as harm, like a rise
    budgeted: bool = False  # PASS needs this family's excess bounded by the risk budget
    on_fail: Literal["rollback", "hold"] = "rollback"
    gross_tolerance: float | None = None  # harm proven beyond this multiple is rolled back even where on_fail is "hold"
    gross_margin: float | None = None  # the same for a share (bounded)
    is_bad_answer: bool = False  # its events are errors or rejections, which other signals count by route or segment
    is_only_different: bool = False  # its events say that the versions differ, not which of them is right
    is_to_be_proven: bool = False  # PASS needs proof that the share is within the limit (bounded)
    is_of_labels: bool = False  # its events are labelled answers
    tells_better: bool = False  # its events say which version is right, so they may prove that the canary is better
    words: SignalWords | None = None  # None: texts use the signals' names
    numbers: NumberRule | None = None  # for the kernel `means`

    @property
    def limit(self) -> float | None:
        """The harmless share of bad events; None where the canary is compared with stable."""
        return self.margin if self.kernel == "bounded" else None


@dataclass(frozen=True, slots=True)
class JudgeConfig:
    """All settings of one release's judge. The defaults are those of docs/decisions and the tests."""

    alpha: float = 0.01  # chance that a harmless canary is ever failed
    alpha_pass: float = 0.01  # chance that the bound is ever below the mean excess of the windows so far
    risk_budget: float = 0.005  # weight x worst-case excess stays within this share of requests
    budget_requests: float | None = None  # requests x worst-case excess stays within this number; None: no such limit
    odds_ratios: tuple[float, ...] = (1.5, 2.5, 5.0, 12.0, 40.0)
    fine_ratio: float = 1.15  # replaces the last odds ratio in a window of at least `plenty`, for the kernel `rare`
    plenty: float = 2000.0  # requests in a window, harmonic size of both sides: 1 / (1 / stable + 1 / canary)
    window_cap: float = 10.0  # one window multiplies the evidence by at most this
    min_bad: int = 3  # no FAIL on fewer bad events than this
    amber: float = 10.0  # e-value from which PASS is blocked
    rules: Mapping[str, SignalRule] = field(default_factory=dict)  # by family; a signal without one is refused
    trusted_callers: frozenset[str] = frozenset()  # their labels count even if no other caller confirms them
    may_lack: frozenset[str] = frozenset()  # budgeted families that PASS needs only once a window of theirs was seen

    def most_excess(self, step: "Ask") -> float:
        """The largest excess of the canary's bad ratio for which `step` is within the budgets."""
        by_share = self.risk_budget / step.weight
        if self.budget_requests is None or not step.requests:
            return by_share
        return min(by_share, self.budget_requests / step.requests)


@dataclass(frozen=True, slots=True)
class Difference:
    """The means of a signal whose events are numbers, with bounds on the true difference, in the numbers' own unit."""

    least: float  # lower bound on canary's mean minus stable's: EVER too high with a chance of at most `alpha_pass`
    most: float  # upper bound, EVER too low with the same chance
    worst: float  # the bound on the side of harm, as a distance: positive is harm
    stable: float | None = None  # mean; None: no numbers
    canary: float | None = None
    budget: float | None = None  # see NumberRule


class Ask(NamedTuple):
    """A step that the judge is asked about."""

    weight: float  # canary share of the traffic, above 0 and up to 1
    requests: float = 0.0  # users' requests that the canary will have answered by the end of the step; 0: not known


@dataclass(frozen=True, slots=True)
class Without:
    """The evidence without the labels of one caller."""

    caller: str
    log_e: float  # natural log of the e-value against "harmless"


@dataclass(frozen=True, slots=True)
class SignalJudgement:
    """The evidence of one signal so far."""

    verdict: Verdict
    log_e: float  # natural log of the e-value against "harmless"
    threshold: float  # log_e at which this signal alone is enough to FAIL
    stable: Pair
    canary: Pair
    excess_upper: float | None = None  # bound on canary's mean excess bad ratio, see alpha_pass; None: no budget
    more_requests_needed: float | None = None  # canary requests until PASS; inf: never at this base rate; None: no step
    decided_at_s: float | None = None  # when it first reached FAIL, Unix seconds
    canary_per_s: float = 0.0  # canary requests a second, over the recent windows
    latest_s: float | None = None  # end of the last window with canary requests, Unix seconds
    limit: float | None = None  # the harmless share of bad events; None where the canary is compared with stable
    share_upper: float | None = None  # bound on the canary's share of bad events; None: PASS does not need it
    difference: Difference | None = None  # where events are numbers
    is_excused: bool = False  # it only says that the versions differ, and the canary is proven better
    # For labels by several callers: the caller without whom the evidence is smallest, and largest.
    least_without: Without | None = None
    most_without: Without | None = None

    @property
    def stable_ratio(self) -> float | None:
        return self.stable.bad / self.stable.total if self.stable.total else None

    @property
    def canary_ratio(self) -> float | None:
        return self.canary.bad / self.canary.total if self.canary.total else None


@dataclass(frozen=True, slots=True)
class Improvement:
    """The evidence that the canary's answers are right more often than stable's."""

    log_e: float  # natural log of the e-value against "not more often"
    threshold: float  # log_e that proves it
    is_proven: bool  # the threshold was reached, now or before


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict over all signals, with the evidence of each."""

    verdict: Verdict
    reason: str  # one sentence for a person
    log_e: float  # of the weighted mean over signals
    threshold: float  # log(1 / alpha)
    signals: Mapping[str, SignalJudgement]
    failed_signal: str | None = None  # the signal that contributes most, when FAIL
    failed_log_e: float | None = None  # the evidence that decided FAIL: of the signals that may cause `on_fail`
    on_fail: Literal["rollback", "hold"] = "rollback"  # the action for this FAIL
    # Canary requests until each of the later steps is proven, at the present share of the traffic; inf: never, or the
    # proof is long overdue; None: no later steps were given.
    later_needed: tuple[float, ...] | None = None
    answered: int | None = None  # users' requests that the canary answered; None: no budget in requests
    least_upper: float | None = None  # the smallest bound so far on the mean excess; valid if the excess is constant
    improvement: Improvement | None = None  # None: no signal can show it
    # For a FAIL that is left to a person: it rests on the labels of this one caller, or the canary would FAIL only
    # without them.
    without: Without | None = None
    # FAIL on a signal that only says that the versions differ, while labels arrive that say which version is right; not
    # where the plan asks for a rollback on the difference itself.
    may_be_better: bool = False

    @property
    def excess_upper(self) -> float:
        """Bound on the share of the canary's requests that are bad because of it, 0 to 1, over all signals."""
        bounds = [signal.excess_upper for signal in self.signals.values() if signal.excess_upper is not None]
        return max(bounds, default=1.0)

    def harmed_upper(self, coming: float = 0.0) -> float | None:
        """Bound on users' requests harmed so far and by `coming` more; None: no budget in requests."""
        if self.answered is None or self.least_upper is None:
            return None
        return self.least_upper * (self.answered + coming)

    @property
    def is_better(self) -> bool:
        """Whether it is proven that the canary's answers are right more often than stable's."""
        return self.improvement is not None and self.improvement.is_proven

    @property
    def is_unproven(self) -> bool:
        """Whether the next step needs more requests, or no number of requests can be enough."""
        return self.verdict is Verdict.INCONCLUSIVE and any(s.more_requests_needed for s in self.signals.values())

    @property
    def decisive_log_e(self) -> float:
        """The log evidence that decided FAIL; without a FAIL, that of all signals together."""
        return self.log_e if self.failed_log_e is None else self.failed_log_e
