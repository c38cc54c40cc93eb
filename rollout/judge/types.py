"""What goes into the judge and what comes out: counts, settings, verdicts. No behaviour."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NoReturn


class Verdict(enum.Enum):
    """What one analysis concluded. NO_DATA and INCONCLUSIVE are not kinds of success."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    INCONCLUSIVE = "inconclusive"
    NO_DATA = "no_data"
    FAIL = "fail"

    def __bool__(self) -> NoReturn:
        raise TypeError("a Verdict is not a yes or no; write `verdict is Verdict.PASS`")


@dataclass(frozen=True, slots=True)
class Pair:
    """`bad` of `total` events."""

    bad: int
    total: int

    def __add__(self, other: "Pair") -> "Pair":
        return Pair(self.bad + other.bad, self.total + other.total)


@dataclass(frozen=True, slots=True)
class Window:
    """New events of one signal in one window; no event is ever in two windows."""

    end_s: float  # Unix seconds
    window_s: float  # length, seconds
    signal: str  # `errors`, `latency:<le_ms>`, `class:<k>`, `low_confidence`, `wrong_label`, `disagreement`
    stable: Pair
    canary: Pair


@dataclass(frozen=True, slots=True)
class SignalRule:
    """How one family of signals (the part of the name before `:`) is judged."""

    kernel: Literal["rare", "exact", "bounded"]
    weight: float  # the family's share of the combined evidence, relative to the families present; 0: no FAIL
    tolerance: float = 1.25  # harmless multiple of stable's bad rate (rare) or odds (exact), at least 1
    # Harmless additive excess (rare), None: a tenth of the risk budget; or the harmless share itself (bounded).
    margin: float | None = None
    two_sided: bool = False  # a fall is as suspicious as a rise
    budgeted: bool = False  # PASS needs this family's excess bounded by the risk budget
    on_fail: Literal["rollback", "hold"] = "rollback"
    gross_tolerance: float | None = None  # harm proven beyond this multiple is rolled back even where on_fail is "hold"

    @property
    def limit(self) -> float | None:
        """The harmless share of bad events; None where the canary is compared with stable."""
        return self.margin if self.kernel == "bounded" else None


DEFAULT_RULES: Mapping[str, SignalRule] = MappingProxyType(
    {
        "errors": SignalRule(kernel="rare", weight=0.4, budgeted=True),
        "latency": SignalRule(kernel="exact", weight=0.15),
        "class": SignalRule(kernel="exact", weight=0.15, tolerance=1.5, two_sided=True),
        "low_confidence": SignalRule(kernel="exact", weight=0.1, tolerance=1.5),
        "wrong_label": SignalRule(kernel="exact", weight=0.1),
        "disagreement": SignalRule(kernel="bounded", weight=0.1, margin=0.1),
    }
)


@dataclass(frozen=True, slots=True)
class JudgeConfig:
    """All settings of one release's judge. The defaults are those of docs/decisions and the tests."""

    alpha: float = 0.01  # chance that a harmless canary is ever failed
    alpha_pass: float = 0.01  # chance that the excess bound is ever wrong
    risk_budget: float = 0.005  # weight x worst-case excess stays within this share of requests
    odds_ratios: tuple[float, ...] = (1.5, 2.5, 5.0, 12.0, 40.0)
    window_cap: float = 10.0  # one window multiplies the evidence by at most this
    horizon_windows: int = 1440  # windows over which the harm may start
    min_bad: int = 3  # no FAIL on fewer bad events than this
    amber: float = 10.0  # evidence from which PASS is blocked
    rules: Mapping[str, SignalRule] = field(default_factory=lambda: DEFAULT_RULES)


@dataclass(frozen=True, slots=True)
class SignalJudgement:
    """The evidence of one signal so far."""

    verdict: Verdict
    log_e: float  # natural log of the e-value against "harmless"
    threshold: float  # log_e at which this signal alone is enough to FAIL
    stable: Pair
    canary: Pair
    excess_upper: float | None  # bound on canary's excess bad ratio, confidence 1 - alpha_pass; None: not budgeted
    more_requests_needed: float | None  # canary requests until PASS; inf: never at this base rate; None: not asked
    decided_at_s: float | None  # when it first reached FAIL, Unix seconds
    phi: float = 1.0  # dispersion that tempers the evidence, 1 = independent requests
    canary_per_s: float = 0.0  # canary requests a second, of late
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
