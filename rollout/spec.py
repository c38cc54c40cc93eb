"""What a release should do: rollout.yaml, checked once and immutable from then on.

Pure. Durations are seconds and shares are ratios inside; people may write `10m` and `0.5%`.
"""

import re
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from rollout.affected import AFFECTED_USERS
from rollout.errors import SpecError
from rollout.judge import DEFAULT_RULES, JudgeConfig, SignalRule
from rollout.signals import CONFIDENCE_BOUNDS, LATENCY_BOUNDS_MS, SignalSelection

SHADOW: Literal["shadow"] = "shadow"
Step = Literal["shadow"] | int | float  # a weight in percent, of at most two decimals

_AUTO_STEPS = 8
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(value: Any) -> Any:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", value.strip()) if isinstance(value, str) else None
    if isinstance(value, str) and match is None:
        raise ValueError("write a duration such as 30s, 10m or 1h")
    return float(match[1]) * _UNITS_S[match[2]] if match else value


def _ratio(value: Any) -> Any:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value.strip()) if isinstance(value, str) else None
    if isinstance(value, str) and match is None:
        raise ValueError("write a share such as 0.5%")
    return float(match[1]) / 100 if match else value


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=7 * 86400, allow_inf_nan=False)]
Ratio = Annotated[float, BeforeValidator(_ratio), Field(gt=0, lt=1, allow_inf_nan=False)]
OnFail = Literal["rollback", "hold"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Errors(_Part):
    """Answers with a 5xx status, timeouts and lost connections included."""

    tolerance: float = Field(default=DEFAULT_RULES["errors"].tolerance, ge=1)
    on_fail: OnFail = "rollback"


class Latency(_Part):
    """Answers slower than each bound."""

    slower_than_ms: tuple[int, ...] = (25, 50, 100, 250, 500, 1000)
    tolerance: float = Field(default=DEFAULT_RULES["latency"].tolerance, ge=1)
    on_fail: OnFail = "rollback"

    @field_validator("slower_than_ms")
    @classmethod
    def _measured(cls, bounds: tuple[int, ...]) -> tuple[int, ...]:
        unknown = sorted(set(bounds) - set(LATENCY_BOUNDS_MS))
        if unknown or not bounds:
            raise ValueError(f"the gateway measures {list(LATENCY_BOUNDS_MS)} ms; choose among these")
        return bounds


class Predictions(_Part):
    """How often each class is predicted. A better model may move these shares, so a person decides.

    But for a gross shift: harm proven beyond `gross` times stable's odds is rolled back without asking.
    """

    tolerance: float = Field(default=DEFAULT_RULES["class"].tolerance, ge=1)
    on_fail: OnFail = "hold"
    gross: float | None = Field(default=4.0, ge=1)


class LowConfidence(_Part):
    """Answers whose confidence is under a bound."""

    below: float = 0.5
    tolerance: float = Field(default=DEFAULT_RULES["low_confidence"].tolerance, ge=1)
    on_fail: OnFail = "rollback"

    @field_validator("below")
    @classmethod
    def _measured(cls, below: float) -> float:
        if below not in CONFIDENCE_BOUNDS:
            raise ValueError(f"the service measures confidence at {list(CONFIDENCE_BOUNDS)}; choose one of these")
        return below


class Labels(_Part):
    """Answers that the truth, where it came back, proved wrong."""

    required: bool = False  # no promotion before labels came
    tolerance: float = Field(default=DEFAULT_RULES["wrong_label"].tolerance, ge=1)
    on_fail: OnFail = "rollback"


class Disagreement(_Part):
    """Answers to mirrored requests that differ from stable's. A better model differs too: some are harmless."""

    at_most: Ratio = 0.1
    on_fail: OnFail = "rollback"


class Signals(_Part):
    """What is judged; write `name: null` to leave one out, but for the errors."""

    errors: Errors = Errors()  # cannot be left out: the guard and every step's proof rest on them
    latency: Latency | None = Latency()
    predictions: Predictions | None = Predictions()
    low_confidence: LowConfidence | None = LowConfidence()
    labels: Labels | None = Labels()
    disagreement: Disagreement | None = Disagreement()

    def selection(self) -> SignalSelection:
        """Which counters the metric source has to read."""
        return SignalSelection(
            latency_ms=self.latency.slower_than_ms if self.latency else (),
            predictions=self.predictions is not None,
            low_confidence_below=self.low_confidence.below if self.low_confidence else None,
            labels=self.labels is not None,
            disagreement=self.disagreement is not None,
        )

    def expected(self) -> tuple[str, ...]:
        """Families that must have shown canary traffic before a step may pass."""
        always = {"errors": self.errors, "latency": self.latency, "class": self.predictions}
        late = ("wrong_label",) if self.labels and self.labels.required else ()
        return (*(family for family, part in always.items() if part), *late)

    def rules(self) -> dict[str, SignalRule]:
        """The judge's rule for each family that is judged."""
        parts = {
            "errors": self.errors,
            "latency": self.latency,
            "class": self.predictions,
            "low_confidence": self.low_confidence,
            "wrong_label": self.labels,
        }
        rules = {
            family: replace(DEFAULT_RULES[family], tolerance=part.tolerance, on_fail=part.on_fail)
            for family, part in parts.items()
            if part
        }
        if self.predictions:
            rules["class"] = replace(rules["class"], gross_tolerance=self.predictions.gross)
        if self.disagreement:
            limit, on_fail = self.disagreement.at_most, self.disagreement.on_fail
            rules["disagreement"] = replace(DEFAULT_RULES["disagreement"], margin=limit, on_fail=on_fail)
        return rules


class Guards(_Part):
    """Absolute limits, whatever stable does."""

    error_ratio: Ratio = 0.2


class RolloutSpec(_Part):
    """One release's plan. Source of every field's meaning: docs/rollout-yaml.md."""

    steps: tuple[Step, ...] | Literal["auto"] = (SHADOW, 1, 5, 25, 50, 100)
    step_deadline: Seconds = 600.0
    on_deadline: OnFail = "hold"
    soak: Seconds = 10.0
    risk_budget: Ratio = 0.005
    alpha: Ratio = 0.01
    window: Seconds = 5.0
    watch: Seconds = 900.0
    startup_deadline: Seconds = 120.0
    down_after: Seconds = 10.0
    sticky: str | None = None
    on_drift: Literal["report", "rollback"] = "report"
    signals: Signals = Signals()
    guards: Guards = Guards()

    @field_validator("steps", mode="before")
    @classmethod
    def _rising(cls, steps: Any) -> Any:
        if steps == "auto":
            return steps
        if not isinstance(steps, list | tuple) or any(
            isinstance(step, bool) or not isinstance(step, int | float | str) for step in steps
        ):
            raise ValueError("write `auto`, or a list such as [shadow, 5, 25, 50, 100]")
        weights = [step for step in steps if step != SHADOW]
        if SHADOW in steps[1:] or any(isinstance(weight, str) for weight in weights):
            raise ValueError("`shadow` can only be the first step, and every other step is a percentage")
        if any(weight != round(weight, 2) for weight in weights):
            raise ValueError("a weight has at most two decimals, for example [1, 12.25, 50, 100]")
        if not weights or weights[0] < 1 or weights[-1] != 100 or any(a >= b for a, b in pairwise(weights)):
            raise ValueError("must rise from at least 1 to exactly 100, for example [shadow, 5, 25, 50, 100]")
        if any(50 < weight < 100 for weight in weights):
            raise ValueError("between 50 and 100 too little stable traffic is left to compare with; go from 50 to 100")
        return steps

    @field_validator("sticky", mode="before")
    @classmethod
    def _sticky(cls, sticky: Any) -> Any:
        if sticky in (None, "none"):
            return None
        match = re.fullmatch(r"(?:header:)?([A-Za-z0-9-]+)", str(sticky))
        if match is None:
            raise ValueError("write `none` or `header:x-user-id`")
        return match[1].lower()

    @model_validator(mode="after")
    def _times_fit(self) -> "RolloutSpec":
        if self.soak >= self.step_deadline:
            raise ValueError("`soak` must be shorter than `step_deadline`, or no step could ever end")
        if self.window >= self.step_deadline:
            raise ValueError("`window` must be shorter than `step_deadline`, or nothing could be measured in time")
        return self

    @property
    def _steps_at_most(self) -> int:
        """Steps that a release can have; automatic ones double from 1 to 50, then 100."""
        return _AUTO_STEPS if self.steps == "auto" else len(self.steps)

    def judge_config(self) -> JudgeConfig:
        """The judge's settings for this release."""
        return JudgeConfig(
            alpha=self.alpha,
            risk_budget=self.risk_budget,
            horizon_windows=max(1, round(self._steps_at_most * self.step_deadline / self.window)),
            rules=self._rules(),
        )

    def expected(self, *, in_shadow: bool = False) -> tuple[str, ...]:
        """Families that must have shown canary traffic before a step may pass; of the shadow, compared answers too."""
        compared = ("disagreement",) if in_shadow and self.signals.disagreement else ()
        return (*self.signals.expected(), *compared, *((AFFECTED_USERS,) if self.sticky else ()))

    def _rules(self) -> dict[str, SignalRule]:
        rules = self.signals.rules()
        if self.sticky is None:
            return rules
        # One user whose requests keep failing is one accident: what may FAIL is each user's first failure. What PASS
        # bounds stays every failure, for each is harm.
        errors = rules["errors"]
        return rules | {"errors": replace(errors, weight=0.0), AFFECTED_USERS: replace(errors, budgeted=False)}


def parse_spec(text: str, *, name: str = "rollout.yaml") -> RolloutSpec:
    """Check a rollout.yaml. `name` is what errors call it. Raises SpecError."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(f"{name} is not YAML", saw=str(error).replace("\n", " "), do="mend the file") from error
    if not isinstance(data, dict | None):
        raise SpecError(f"{name} must hold `key: value` lines", saw=type(data).__name__, do="start with `steps: auto`")
    try:
        return RolloutSpec.model_validate(data or {})
    except ValidationError as error:
        places = [(".".join(str(part) for part in e["loc"]), e) for e in error.errors()]
        lines = [
            f"`{place or 'the file'}`: {e['msg'].removeprefix('Value error, ')}, not {e['input']!r:.80}"
            for place, e in places
        ]
        raise SpecError(
            f"{name} cannot be followed",
            saw="; ".join(dict.fromkeys(lines)),
            do=f"correct {', '.join(dict.fromkeys(place or 'the file' for place, _ in places))}",
        ) from error
