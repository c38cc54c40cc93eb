"""What goes into the judge and what comes out: counts, settings, verdicts.

The ledger stores windows and judgements as they are: a change of their fields takes a migration there.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
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
        # Not `Pair(...)`, which takes twice as long: a judge adds counts more often than it does anything else.
        return tuple.__new__(Pair, (self[0] + other[0], self[1] + other[1]))


@dataclass(frozen=True, slots=True)
class Window:
    """New events of one signal in one window; no event is ever in two windows."""

    end_s: float  # Unix seconds
    window_s: float  # length, seconds
    signal: str  # a family such as `errors`, or a family and a key: `latency:100`
    stable: Pair
    canary: Pair


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

    def of(self, key: str = "", *, stable: str = "stable") -> "SignalWords":
        """The words of one signal of the family; `stable` is the name of the version compared with."""
        title, event = self.title, self.event
        if not key:
            title, event = self.family_title or title, self.family_event or event
        filled = (text.format(key=key, stable=stable) for text in (title, self.unit, event))
        return SignalWords(*filled)


@dataclass(frozen=True, slots=True)
class SignalRule:
    """How one family of signals (the part of the name before `:`) is judged."""

    kernel: Literal["rare", "exact", "bounded"]
    weight: float  # the family's share of the combined evidence, relative to the families present; 0: no FAIL
    tolerance: float = 1.25  # harmless multiple of stable's bad rate (rare) or odds (exact), at least 1
    # Harmless additive excess (rare), None: a tenth of the risk budget; or the harmless share itself (bounded).
    margin: float | None = None
    two_sided: bool = False  # a fall counts as harm, like a rise
    budgeted: bool = False  # PASS needs this family's excess bounded by the risk budget
    on_fail: Literal["rollback", "hold"] = "rollback"
    gross_tolerance: float | None = None  # harm proven beyond this multiple is rolled back even where on_fail is "hold"
    words: SignalWords | None = None  # None: its signals are called by their names

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
    odds_ratios: tuple[float, ...] = (1.5, 2.5, 5.0, 12.0, 40.0)
    fine_ratio: float = 1.15  # in place of the last of them in a window of at least `plenty`, for the kernel `rare`
    plenty: float = 2000.0  # requests in a window, the harmonic sum of both sides: 1 / (1 / stable + 1 / canary)
    window_cap: float = 10.0  # one window multiplies the evidence by at most this
    min_bad: int = 3  # no FAIL on fewer bad events than this
    amber: float = 10.0  # evidence from which PASS is blocked
    rules: Mapping[str, SignalRule] = field(default_factory=dict)  # by family; a signal without one is refused


@dataclass(frozen=True, slots=True)
class SignalJudgement:
    """The evidence of one signal so far."""

    verdict: Verdict
    log_e: float  # natural log of the e-value against "harmless"
    threshold: float  # log_e at which this signal alone is enough to FAIL
    stable: Pair
    canary: Pair
    excess_upper: float | None = None  # bound on canary's mean excess bad ratio, see alpha_pass; None: no budget
    more_requests_needed: float | None = None  # of the canary until PASS; inf: never at this base rate; None: not asked
    decided_at_s: float | None = None  # when it first reached FAIL, Unix seconds
    canary_per_s: float = 0.0  # canary requests a second, over the recent windows
    latest_s: float | None = None  # end of the last window with canary requests, Unix seconds
    limit: float | None = None  # the harmless share of bad events; None where the canary is compared with stable

    @property
    def stable_ratio(self) -> float | None:
        return self.stable.bad / self.stable.total if self.stable.total else None

    @property
    def canary_ratio(self) -> float | None:
        return self.canary.bad / self.canary.total if self.canary.total else None


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict over all signals, with the evidence of each."""

    verdict: Verdict
    reason: str  # one sentence for a person
    log_e: float  # of the weighted mean over signals
    threshold: float  # log(1 / alpha)
    signals: Mapping[str, SignalJudgement]
    failed_signal: str | None = None  # the signal that contributes most, when FAIL
    failed_log_e: float | None = None  # the evidence that decided FAIL: of the signals that may ask for `on_fail`
    on_fail: Literal["rollback", "hold"] = "rollback"  # what that signal's rule asks for

    @property
    def decisive_log_e(self) -> float:
        """The evidence that decided FAIL, or else all evidence together."""
        return self.log_e if self.failed_log_e is None else self.failed_log_e
