"""The traffic to simulate: what users send, how noisy it is, and how a bad canary answers it."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from contract.complaints import advice
from rollout.errors import RolloutError
from rollout.signals.options import Classes, Latency, LowConfidence, PairedLabel, Rejected, WrongLabel
from rollout.simulate.noise import Noise
from rollout.simulate.traffic import Behaviour, Scenario
from rollout.spec import RolloutSpec
from rollout.units import Seconds

_BETTER = 0.5  # share of stable's wrong labels, if the plan requires a better version and no flag is given
_P99_SIGMAS = 2.3263  # standard normal quantile
_NUMBER = r"(\d*\.?\d+)"


class QuestionError(RolloutError):
    """Traffic or a regression that cannot be simulated."""


@dataclass(frozen=True, slots=True)
class Change:
    """How the bad canary differs from stable: by a factor, or by an added share of the requests."""

    factor: float = 1.0
    added: float = 0.0

    def of(self, ratio: float) -> float:
        """The changed ratio. The added share applies to requests that were good."""
        return self.factor * ratio + self.added * (1 - ratio)


def _share(value: Any) -> Any:
    match = re.fullmatch(_NUMBER + r"\s*%", value.strip()) if isinstance(value, str) else None
    return float(match[1]) / 100 if match else value


def _factor(value: Any) -> Any:
    match = re.fullmatch(_NUMBER + r"\s*x?", value.strip()) if isinstance(value, str) else None
    return float(match[1]) if match else value


def _change(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if match := re.fullmatch(_NUMBER + r"\s*x", value.strip()):
        return Change(factor=float(match[1]))
    if match := re.fullmatch(r"\+\s*" + _NUMBER + r"\s*%", value.strip()):
        return Change(added=float(match[1]) / 100)
    raise ValueError("write a factor such as 5x, or a share of the requests such as +2%")


def _classes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value.isdecimal() and 2 <= int(value) <= 1000:
        return (1 / int(value),) * int(value)
    shares = [_share(part.strip()) for part in value.split(",")]
    if len(shares) < 2 or not all(isinstance(share, float) and share > 0 for share in shares):
        raise ValueError("write the number of classes, 2 to 1000, or the share of each, such as 60%,30%,10%")
    return tuple(share / sum(shares) for share in shares)


def _shift(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+)\s*=\s*" + _NUMBER + r"\s*%", value.strip())
    if match is None or not 0 < float(match[2]) < 100:
        raise ValueError("write the number of a class, from 0, and its new share, such as 3=40%")
    return int(match[1]), float(match[2]) / 100


Share = Annotated[float, BeforeValidator(_share), Field(ge=0, le=0.9, allow_inf_nan=False)]
ChangeOrNone = Annotated[Change | None, BeforeValidator(_change)]


class Question(BaseModel):
    """Every field is a flag of `kanaria simulate`; its help gives meanings and units."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rps: Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)] = 20.0
    base: Share = 0.001
    rejected: Share = 0.0
    median: Seconds = 0.02
    p99: Seconds = 0.1
    classes: Annotated[tuple[float, ...], BeforeValidator(_classes)] = (0.1,) * 10
    low_confidence: Share = 0.02
    labels: Share = 0.0
    wrong: Share = 0.05
    own: Share = 0.02

    worse: ChangeOrNone = None
    stricter: ChangeOrNone = None
    slower: ChangeOrNone = None
    shift: Annotated[tuple[int, float] | None, BeforeValidator(_shift)] = None
    wronger: ChangeOrNone = None
    better: Annotated[float | None, BeforeValidator(_factor), Field(ge=0, lt=1)] = None
    own_worse: ChangeOrNone = None
    after: Seconds | None = None

    drift: Annotated[float, BeforeValidator(_factor), Field(ge=1, le=1000, allow_inf_nan=False)] = 1.0
    shared_bursts: Share = 0.0
    own_bursts: Share = 0.0
    burst: Seconds = 5.0
    retries: Annotated[float, BeforeValidator(_factor), Field(ge=1, le=1000, allow_inf_nan=False)] = 1.0
    history: Annotated[Seconds, Field(le=86_400)] = 1800.0

    @model_validator(mode="after")
    def _fits(self) -> "Question":
        if self.p99 <= self.median:
            raise ValueError("--p99 must be longer than --median")
        if self.shift and self.shift[0] >= len(self.classes):
            raise ValueError(f"--shift: the classes are numbered 0 to {len(self.classes) - 1}")
        for flag, change, ratio in (
            ("--worse", self.worse, self.base),
            ("--stricter", self.stricter, self.rejected),
            ("--wronger", self.wronger, self.wrong),
            ("--own-worse", self.own_worse, self.own),
        ):
            if change and not ratio < change.of(ratio) < 1:
                raise ValueError(f"{flag} must raise {ratio:.4%}, to less than 100 %; it gives {change.of(ratio):.4%}")
        if self.better is not None and not (self.labels and self.wrong):
            raise ValueError("--better needs labels, some of them wrong on stable: --labels 10% --wrong 5%")
        if self.slower and self.slower.factor < 1:
            raise ValueError("--slower must be a factor above 1, or a share")
        return self


def parse_question(flags: Mapping[str, str | None]) -> Question:
    """The question from command-line flags; None: the default. Raises QuestionError."""
    given = {name: text for name, text in flags.items() if text is not None}
    if not any(name in given for name in ("worse", "stricter", "slower", "shift", "wronger", "own_worse")):
        given["worse"] = "5x"
    try:
        return Question.model_validate(given)
    except ValidationError as error:
        lines = []
        for e in error.errors():
            flag = "--" + str(e["loc"][0]).replace("_", "-") if e["loc"] else ""
            seen = f"{flag} {e['input']}: " if flag else ""
            lines.append(seen + advice(e))
        raise QuestionError(
            "this traffic cannot be simulated",
            saw="; ".join(dict.fromkeys(lines)),
            do="correct the flag; `kanaria simulate --help` has an example of each",
        ) from error


def scenario_of(question: Question, spec: RolloutSpec) -> Scenario:
    """The traffic of a release with a bad canary. Raises QuestionError for harm that `spec` does not judge."""
    _check_is_judged(question, spec)
    latency, signals = spec.signals.get(Latency), spec.signals
    bounds = sorted(latency.slower_than_ms) if latency else []
    stable = Behaviour(
        error_ratio=question.base,
        slow_ratios=tuple((bound, _slower(question, bound)) for bound in bounds),
        class_shares=question.classes if signals.get(Classes) else (),
        low_confidence_ratio=question.low_confidence if signals.get(LowConfidence) else None,
        wrong_label_ratio=question.wrong,
        rejected_ratio=question.rejected if signals.get(Rejected) else None,
        own_ratios=tuple((name, question.own) for name in _own_shares(spec)),
    )
    return Scenario(
        rps=question.rps,
        stable=stable,
        canary=_changed(stable, question),
        harm_after_s=question.after or 0.0,
        noise=Noise(
            shared_icc=question.shared_bursts,
            own_icc=question.own_bursts,
            burst_s=question.burst,
            retries=question.retries,
            drift=question.drift,
        ),
        window_s=spec.window,
        label_share=question.labels if signals.get(WrongLabel) else 0.0,
        are_labels_paired=bool(question.labels and signals.get(WrongLabel) and signals.get(PairedLabel)),
    )


def better_of(question: Question, scenario: Scenario, spec: RolloutSpec) -> Scenario | None:
    """The traffic of a release with a better canary; None if it is not asked for."""
    factor = question.better
    if factor is None and spec.require == "better":
        factor = _BETTER
    if factor is None:
        return None
    better = replace(scenario.stable, wrong_label_ratio=factor * question.wrong)
    return replace(scenario, canary=better, harm_after_s=0.0)


def _changed(stable: Behaviour, question: Question) -> Behaviour:
    canary = stable
    if question.worse:
        canary = replace(canary, error_ratio=question.worse.of(stable.error_ratio))
    if question.stricter:
        canary = replace(canary, rejected_ratio=question.stricter.of(question.rejected))
    if question.wronger:
        canary = replace(canary, wrong_label_ratio=question.wronger.of(stable.wrong_label_ratio))
    if question.own_worse:
        worse = question.own_worse.of(question.own)
        canary = replace(canary, own_ratios=tuple((name, worse) for name, _ in stable.own_ratios))
    if question.slower:
        factor, hit = question.slower.factor, Change(added=question.slower.added)
        bounds = [bound for bound, _ in stable.slow_ratios]
        canary = replace(
            canary, slow_ratios=tuple((bound, hit.of(_slower(question, bound / factor))) for bound in bounds)
        )
    if question.shift:
        label, share = question.shift
        others = (1 - share) / (1 - question.classes[label])
        canary = replace(
            canary,
            class_shares=tuple(share if other == label else others * was for other, was in enumerate(question.classes)),
        )
    return canary


def _own_shares(spec: RolloutSpec) -> list[str]:
    """The user's own signals that are shares of bad events."""
    return [name for name, options in spec.signals.own.items() if options.between is None]


def _slower(question: Question, bound_ms: float) -> float:
    """Share of stable's answers slower than a bound; log-normal."""
    sigma = math.log(question.p99 / question.median) / _P99_SIGMAS
    return math.erfc(math.log(bound_ms / 1000 / question.median) / (sigma * math.sqrt(2))) / 2


def _check_is_judged(question: Question, spec: RolloutSpec) -> None:
    signals = spec.signals.root
    for flag, is_asked, name in (
        ("--stricter", question.stricter, "rejected"),
        ("--slower", question.slower, "latency"),
        ("--shift", question.shift, "class"),
        ("--wronger", question.wronger, "wrong_label"),
    ):
        if is_asked and not signals[name]:
            raise QuestionError(
                f"{flag} asks for harm that the plan does not judge",
                saw=f"`signals: {{{name}: null}}`",
                do=f"judge `{name}` in the plan, or leave {flag} out",
            )
    if question.own_worse and not _own_shares(spec):
        raise QuestionError(
            "--own-worse asks for harm that the plan does not judge",
            saw="no share among the signals of your own",
            do="name one under `signals.custom` in the plan, or leave --own-worse out",
        )
    labels = spec.signals.get(WrongLabel)
    needs_labels = question.wronger or (labels and labels.required) or spec.require == "better"
    if needs_labels and not question.labels:
        raise QuestionError(
            "without labels wrong answers cannot be told from right ones",
            saw="--labels 0%",
            do="give the share of predictions whose true label arrives, such as `--labels 10%`",
        )
