"""Validates the judge's questions: request bodies, and the part of a plan that a profile can serve."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from rollout.errors import SpecError
from rollout.judge import JudgeConfig
from rollout.mistakes import read_yaml
from rollout.signals.plan import SignalSelection
from rollout.signals.profile import Names, Profile, SeriesOf, impossible
from rollout.spec import RolloutSpec, parse_spec

# RFC 1123, as in Kubernetes. A data plane's name of a version may be a path, such as Envoy's `httproute/shop/web`.
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(\.{_LABEL.pattern})*")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*([:/][A-Za-z0-9][A-Za-z0-9._-]*)*")
_LONGEST_PLAN = 20_000  # characters; longer ones take long to read
_PERCENT = re.compile(r"[0-9]+(\.[0-9]+)?%?")


def _named(pattern: re.Pattern[str], longest: int, what: str) -> AfterValidator:
    def checked(name: str) -> str:
        if len(name) > longest or not pattern.fullmatch(name):
            raise ValueError(f"write {what}, of at most {longest} characters")
        return name

    return AfterValidator(checked)


Namespace = Annotated[str, _named(_LABEL, 63, "a namespace: lower-case letters, digits and `-`")]
Name = Annotated[str, _named(_SUBDOMAIN, 253, "a name of Kubernetes: lower-case letters, digits, `-` and `.`")]
Version = Annotated[
    str, _named(_VERSION, 253, "a version's name: letters, digits, `-`, `_` and `.`, in parts between `/` or `:`")
]


def _percent(given: Any) -> Any:
    """A weight. Argo Rollouts sends it as a text."""
    if isinstance(given, bool) or given == "":
        raise ValueError("write the next weight in percent, such as 25; leave out `to_percent` to ask only about harm")
    if isinstance(given, str):
        if not _PERCENT.fullmatch(given):
            raise ValueError("write the next weight in percent, such as 25")
        return float(given.removesuffix("%"))
    return given


Percent = Annotated[float, BeforeValidator(_percent), Field(gt=0, le=100, allow_inf_nan=False)]


def _plan(given: Any) -> Any:
    if given is not None and not isinstance(given, dict | str):
        raise ValueError("write a plan as an object, or as a text in YAML")
    if len(given if isinstance(given, str) else json.dumps(given)) > _LONGEST_PLAN:
        raise ValueError(f"write a plan of at most {_LONGEST_PLAN:,} characters")
    return given


class JudgeBody(BaseModel):
    """The body of `POST /v1/judge`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    namespace: Namespace
    rollout: Name
    canary: Version
    stable: Version
    to_percent: Percent | None = None
    profile: str = "service"
    plan: Annotated[Any, BeforeValidator(_plan)] = None

    @property
    def names(self) -> Names:
        return Names(self.namespace, self.rollout, self.canary, self.stable)

    @property
    def digest(self) -> str:
        """A digest of what decides a verdict besides the samples. Raises SpecError if the plan is not YAML."""
        plan = read_yaml(self.plan, name="plan") if isinstance(self.plan, str) else self.plan
        judged_by = json.dumps([self.stable, self.profile, plan or {}], sort_keys=True, default=str)
        return hashlib.sha256(judged_by.encode()).hexdigest()[:12]


class FlaggerBody(BaseModel):
    """The body of Flagger's webhooks; fields of later versions are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: Name
    namespace: Namespace
    phase: str = ""
    checksum: str = Field(default="", max_length=200)
    metadata: dict[str, str] = {}

    def question(self) -> JudgeBody:
        """The same question in the form of Argo Rollouts. Raises ValidationError."""
        asked = {key: self.metadata[key] for key in ("to_percent", "profile", "plan") if key in self.metadata}
        names = {"canary": self.name, "stable": f"{self.name}-primary", "rollout": self.name}
        return JudgeBody.model_validate({"namespace": self.namespace, **names, **asked})


@dataclass(frozen=True, slots=True)
class Plan:
    """The part of a plan that a profile can serve."""

    spec: RolloutSpec
    config: JudgeConfig
    selection: SignalSelection
    expected: tuple[str, ...]  # signals that must be counted before a step passes

    @classmethod
    def of(cls, text: str, profile: Profile) -> "Plan":
        """Read the plan of a request. Raises SpecError, also for signals that the profile cannot give."""
        spec = parse_spec(text, name="plan")
        named = _signals(text)
        if missing := sorted(impossible(profile, named, spec.signals.own)):
            raise SpecError(
                f"the profile {profile.name} cannot give signals that the plan names",
                saw=", ".join(f"`{name}`" for name in missing),
                do=f"leave them out of the plan: this profile gives {', '.join(profile.signals)}",
            )
        _refuse_what_needs_a_controller(spec)
        kept = spec.signals.only(*profile.signals, *spec.signals.own)
        spec = spec.model_copy(update={"signals": kept})
        return cls(spec, spec.judge_config(), kept.selection(), kept.expected())

    def counters(self, profile: Profile) -> tuple[SeriesOf, ...]:
        """The series to count. Signals that the plan leaves out are not counted."""
        judged = {row for row, options in self.spec.signals.root.items() if options is not None}
        own = {f"{options.counter.name}": options for options in self.spec.signals.own.values()}
        return tuple(each for each in profile.counters(own) if each.signal in judged or each.signal in own)


def _refuse_what_needs_a_controller(spec: RolloutSpec) -> None:
    """Raise SpecError for limits that this judge cannot keep: it sees neither users nor the number of requests."""
    impossible_keys = {
        "sticky": spec.sticky is not None,
        "risk_budget.requests": spec.risk_budget.requests is not None,
        "require: better": spec.require == "better",
    }
    if found := [key for key, is_given in impossible_keys.items() if is_given]:
        raise SpecError(
            "the plan has limits that only Kanaria's own controller can keep",
            saw=", ".join(f"`{key}`" for key in found),
            do="leave them out of the plan that you send to the judge",
        )


def _signals(text: str) -> Mapping[str, Any]:
    """The section `signals` of a plan, parsed but not validated."""
    data = read_yaml(text, name="plan")
    signals = data.get("signals") if isinstance(data, dict) else None
    return {name: options for name, options in signals.items() if name != "custom"} if isinstance(signals, dict) else {}
