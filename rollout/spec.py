"""The plan of a release: rollout.yaml, checked once and immutable from then on.

Durations are seconds and shares are ratios inside; people may write `10m` and `0.5%`.
"""

import re
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from contract.http import ANSWER_TIMEOUT_S, API_KEY_HEADER, CALLER_HEADER, OWN_CALLER
from contract.own_answers import NO_ANSWERS, OwnAnswers, RouteAnswers
from rollout.errors import SpecError
from rollout.format import span
from rollout.judge import JudgeConfig, SignalRule, SignalWords
from rollout.mistakes import Place, Section, contradiction, mistakes, read_yaml, shown
from rollout.observe import BY_DEFAULT, Observe
from rollout.signals.catalogue import AFFECTED_USERS, PAIRED, SEGMENT, catalogue
from rollout.signals.options import OnFail, PairedLabel, WrongLabel
from rollout.signals.plan import Signals, former_places, sections
from rollout.signals.segments import ABSENT, LONGEST_SEGMENT, MOST_SEGMENTS, OTHER, is_name
from rollout.units import (
    KEPT_IN_A_LEDGER,
    WRITTEN_BY_A_PERSON,
    ComparedOrNone,
    MinorityOrNone,
    Ratio,
    RequestsOrNone,
    Seconds,
    SecondsOrNone,
    ratio_in,
)

SHADOW: Literal["shadow"] = "shadow"
AUTO_START_PERCENT = 1  # the first automatic step
Step = Literal["shadow"] | int | float  # a weight in percent, of at most two decimals

_SECRETS = ("authorization", "proxy-authorization", "cookie", API_KEY_HEADER)
_AUTO_STEPS = 8
_PLACE = r"/\S*( \S+)?"  # what callers may lose: a route, and a field of it
_FEWEST_WINDOWS = 3  # no canary fails on fewer, see `JudgeConfig.window_cap`


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Guards(_Part):
    """Absolute limits, whatever stable does."""

    error_ratio: Ratio = 0.2


class Golden(_Part):
    """Which requests a canary is asked before its first one from a user."""

    requests: Literal["own", "recorded"] = "own"  # those of its model, or also those that `kanaria record` kept
    leave_out: tuple[str, ...] = ()  # routes whose recorded requests are not asked again

    @field_validator("leave_out", mode="before")
    @classmethod
    def _routes(cls, routes: Any) -> Any:
        is_list = isinstance(routes, list | tuple)
        if not is_list or not all(isinstance(route, str) and re.fullmatch(r"/\S*", route) for route in routes):
            raise ValueError("write a list of routes such as [/orders, /users/{id}]")
        return routes


def _golden(value: Any) -> Any:
    return value if isinstance(value, dict | Golden) else {"requests": value}


class RiskBudget(_Part):
    """How much harm a canary may do before it is promoted."""

    share: Ratio = 0.005  # of all requests, at the weight that the canary gets
    requests: RequestsOrNone = None  # of users, in the whole release


def _risk_budget(value: Any, info: ValidationInfo) -> Any:
    return value if isinstance(value, dict | RiskBudget) else RiskBudget(share=ratio_in(value, info))


def _header(written: Any) -> str | None:
    """The name of a header as `header:x-user-id` writes it, in small letters; None where it is none."""
    match = re.fullmatch(r"(?:header:)?([A-Za-z0-9-]+)", written) if isinstance(written, str) else None
    return match[1].lower() if match else None


class SegmentsBy(_Part):
    """The header by which requests are told apart, and its values where the plan lists them."""

    header: str
    values: tuple[str, ...] = ()  # none: those that stable's requests show first

    @field_validator("header", mode="before")
    @classmethod
    def _no_secret(cls, header: Any) -> Any:
        name = _header(header)
        if name is None:
            raise ValueError("write `none` or `header:x-tenant`")
        if name in _SECRETS:
            raise ValueError("its values are secrets, and segments stand in reports; name another header")
        return name

    @field_validator("values", mode="before")
    @classmethod
    def _are_names(cls, values: Any) -> Any:
        is_list = isinstance(values, list | tuple) and all(isinstance(each, str) for each in values)
        if not is_list or len(values) > MOST_SEGMENTS or len({*values}) < len(values):
            raise ValueError(f"list at most {MOST_SEGMENTS} different values as text, such as [acme, '42']")
        if odd := [value for value in values if not is_name(value)]:
            raise ValueError(
                f"{shown(odd[0])} cannot be a segment: it has 1 to {LONGEST_SEGMENT} letters, digits and `.-_@:/+`, "
                f"begins with one of the former, and is neither `{OTHER}` nor `{ABSENT}`"
            )
        return values


def _segments(written: Any) -> Any:
    if written is None or written == "none":
        return None
    return {"header": written} if isinstance(written, str) else written


class RolloutSpec(_Part):
    """One release's plan. Source of every field's meaning: docs/rollout-yaml.md."""

    steps: tuple[Step, ...] | Literal["auto"] = (SHADOW, 1, 5, 25, 50, 100)
    step_deadline: Seconds = 600.0
    on_deadline: OnFail = "hold"
    soak: Seconds = 60.0
    risk_budget: Annotated[RiskBudget, BeforeValidator(_risk_budget)] = RiskBudget()
    alpha: Ratio = 0.01
    window: Seconds = 5.0
    warmup: SecondsOrNone = 60.0
    watch: Seconds = 900.0
    holdback: MinorityOrNone = 0.05
    compare: ComparedOrNone = 0.0
    observe: Observe = BY_DEFAULT
    startup_deadline: Seconds = 120.0
    down_after: Seconds = 10.0
    evidence_deadline: Seconds = 120.0
    sticky: str | None = None
    segments: Annotated[SegmentsBy | None, BeforeValidator(_segments)] = None
    on_drift: Literal["report", "rollback"] = "report"
    require: Literal["safe", "better"] = "safe"
    second_person: bool = False
    golden: Annotated[Golden, BeforeValidator(_golden)] = Golden()
    may_break: tuple[str, ...] = ()  # routes, or a route and a field, that callers of stable may lose
    signals: Signals = Field(default_factory=Signals)
    answers: OwnAnswers = NO_ANSWERS
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
            raise ValueError(
                "write `shadow` only as the first step, and every other step as a percentage without a sign"
            )
        if any(weight != round(weight, 2) for weight in weights):
            raise ValueError("write each weight with at most two decimals, for example [1, 12.25, 50, 100]")
        if not weights or weights[0] < 1 or weights[-1] != 100 or any(a >= b for a, b in pairwise(weights)):
            raise ValueError(
                "the weights must rise from at least 1 to exactly 100, for example [shadow, 5, 25, 50, 100]"
            )
        if any(50 < weight < 100 for weight in weights):
            raise ValueError("between 50 and 100 too little stable traffic is left to compare with; go from 50 to 100")
        return steps

    @field_validator("sticky", mode="before")
    @classmethod
    def _sticky(cls, sticky: Any, info: ValidationInfo) -> Any:
        if sticky in (None, "none"):
            return None
        header = _header(sticky)
        if header is None:
            raise ValueError("write `none` or `header:x-user-id`")
        # Where the gateway notes whose requests failed there is no key any more, but the name that it has.
        if header == API_KEY_HEADER:
            return CALLER_HEADER
        if header in _SECRETS and info.context != KEPT_IN_A_LEDGER:
            raise ValueError("its values are secrets, and the gateway notes whose requests failed; name another header")
        return header

    @model_validator(mode="before")
    @classmethod
    def _segments_are_judged_where_asked(cls, given: Any, info: ValidationInfo) -> Any:
        """Without segments there is no signal of theirs."""
        if not isinstance(given, dict) or given.get("segments") not in (None, "none"):
            return given
        signals = given.get("signals", {})
        if isinstance(signals, Signals):
            return given | {"signals": signals.without(SEGMENT)}
        if not isinstance(signals, dict):
            return given
        if signals.get(SEGMENT) is not None and info.context == WRITTEN_BY_A_PERSON:
            raise contradiction(
                f"`signals.{SEGMENT}` is there, and `segments` is none",
                "write `segments: header:x-tenant`, with the header that tells them apart",
            )
        return given | {"signals": {**signals, SEGMENT: None}}

    @field_validator("may_break", mode="before")
    @classmethod
    def _places(cls, places: Any) -> Any:
        is_list = isinstance(places, list | tuple)
        if not is_list or not all(isinstance(place, str) and re.fullmatch(_PLACE, place) for place in places):
            raise ValueError("write a list of routes, or of a route and a field: [/detect, /detect confidence]")
        return places

    @model_validator(mode="after")
    def _times_fit(self) -> "RolloutSpec":
        for key, seconds, reason in (
            ("soak", self.soak, "no step could ever end"),
            ("window", self.window, "nothing could be measured in time"),
        ):
            if seconds >= self.step_deadline:
                raise contradiction(
                    f"`{key}` is {span(seconds)}, `step_deadline` is {span(self.step_deadline)}",
                    f"`{key}` must be shorter than `step_deadline`, or {reason}",
                )
        if self.risk_budget.requests is not None and not self.has_shadow:
            raise contradiction(
                f"`risk_budget.requests` is {self.risk_budget.requests}, `steps` is {shown(_as_written(self.steps))}",
                "begin `steps` with `shadow`: only copies prove anything before the first request of a user",
            )
        labels = self.signals.get(WrongLabel)
        if labels and labels.required and labels.after >= self.step_deadline:
            raise contradiction(
                f"`signals.wrong_label` is required `after: {span(labels.after)}`, `step_deadline` is "
                f"{span(self.step_deadline)}",
                "`after` must be shorter than `step_deadline`, or no label could count in the first step",
            )
        if self.segments and self.sticky:
            raise contradiction(
                f"`segments` is header:{self.segments.header}, `sticky` is header:{self.sticky}",
                "leave one of the two out: where callers stay on one side, their segments cannot be compared",
            )
        required = next((name for name, options in self.signals.own.items() if options.required), None)
        if required and self.sticky and not self.has_shadow:
            raise contradiction(
                f"`signals.{required}` is required, `sticky` is header:{self.sticky}, `steps` is "
                f"{shown(_as_written(self.steps))}",
                "begin `steps` with `shadow`: where callers are sticky, signals of your own are judged only there",
            )
        if self.require == "better" and not any(rule.tells_better for rule in self.signals.rules().values()):
            raise contradiction(
                "`require` is better, and no signal can prove that",
                "judge `paired_label`, or `wrong_label` with `after`: they are about labels",
            )
        has_pairs = self.has_shadow or (self.compare and self.signals.get(PairedLabel))
        if self.require == "better" and not has_pairs and not (labels and labels.after):
            raise contradiction(
                f"`require` is better, `steps` is {shown(_as_written(self.steps))}",
                "begin `steps` with `shadow`, where labels tell the two apart, `compare` a share of the requests, or "
                "give `wrong_label` an `after`",
            )
        return self

    @model_validator(mode="after")
    def _compares_something(self) -> "RolloutSpec":
        if not self.compare:
            return self
        if self.steps != "auto" and not self.compared_weights:
            raise contradiction(
                f"`compare` is {self.compare:.0%}, `steps` is {shown(_as_written(self.steps))}, `holdback` is none",
                "add a step below 100, or let the version before keep a share with `holdback`: requests are compared "
                "while both versions answer some",
            )
        if not any(self.signals.root.get(name) for name in PAIRED):
            raise contradiction(
                f"`compare` is {self.compare:.0%}, and no signal judges what two versions answer to one request",
                f"judge {' or '.join(f'`{name}`' for name in PAIRED)}, or delete `compare`",
            )
        return self

    @property
    def compared_weights(self) -> tuple[float, ...]:
        """The canary's shares, percent, of the fixed steps and of the watch while both versions answer users."""
        steps = () if self.steps == "auto" else tuple(step for step in self.steps if not isinstance(step, str))
        live = [float(step) for step in steps if step < 100]
        return (*live, round(100 - 100 * self.holdback, 2)) if self.holdback else tuple(live)

    @property
    def _steps_at_most(self) -> int:
        """Steps that a release can have; automatic ones double from 1 to 50, then 100."""
        return _AUTO_STEPS if self.steps == "auto" else len(self.steps)

    @property
    def windows_at_most(self) -> int:
        """Windows of a release in which every step ends at its deadline."""
        return max(1, round(self._steps_at_most * self.step_deadline / self.window))

    @property
    def has_shadow(self) -> bool:
        """Whether the first step gives the canary copies of requests."""
        return self.steps != "auto" and self.steps[0] == SHADOW

    @property
    def preflight_deadline_s(self) -> float:
        """Longest time from the canary's start to the end of its preflight, seconds."""
        return (2 if self.golden.requests == "recorded" else 1) * self.startup_deadline

    @property
    def warmup_s(self) -> float:
        """For how long the canary's first copied requests are not judged, seconds; 0 without a shadow step."""
        return self.warmup if self.has_shadow else 0.0

    def soak_s(self, *, in_shadow: bool) -> float:
        """For how long a step is judged at least, seconds.

        The shadow also waits until requests that hang in it have failed: copies that are unanswered when it ends are
        evidence no more.
        """
        return max(self.soak, self._hangs_seen_s - self.warmup_s) if in_shadow else self.soak

    @property
    def shortest_s(self) -> float:
        """The shortest time from the first request to promotion, seconds."""
        in_shadow = self.steps != "auto" and self.steps[0] == SHADOW
        others = self._steps_at_most - in_shadow
        return self.warmup_s + in_shadow * self.soak_s(in_shadow=True) + others * self.soak

    @property
    def remark(self) -> str | None:
        """What this plan gives up by its times, in words for a person; None: nothing."""
        if self.soak >= self._hangs_seen_s:
            return None
        return (
            f"`soak` is {span(self.soak)}, but a request that hangs fails only after {span(ANSWER_TIMEOUT_S)}: after "
            f"the shadow, traffic may grow before such failures are counted; {span(self._hangs_seen_s)} prevents that"
        )

    @property
    def _hangs_seen_s(self) -> float:
        """After so long, requests that hung at the start of a step have failed and were judged."""
        return ANSWER_TIMEOUT_S + _FEWEST_WINDOWS * self.window

    def without_steps(self, *, may_break: tuple[str, ...] = ()) -> "RolloutSpec":
        """The plan for a version that gets all traffic at once: it waits for nothing, the one before keeps nothing.

        Args:
            may_break: what callers of the one before are known to lose.
        """
        signals = Signals(
            {
                name: options.model_copy(update={"required": False}) if options and options.is_required else options
                for name, options in self.signals.root.items()
            }
        )
        budget = RiskBudget(share=self.risk_budget.share)
        at_once = {
            "steps": (100,),
            "holdback": 0.0,
            "compare": 0.0,
            "risk_budget": budget,
            "require": "safe",
            "signals": signals,
            "golden": Golden(),  # who brings a version back is in a hurry
            "may_break": may_break,
        }
        return self.model_copy(update=at_once)

    def judge_config(self, *, tries: int = 1) -> JudgeConfig:
        """The judge's settings for a release.

        Args:
            tries: with this one, of the same two versions. PASS asks for more each time: `alpha` for the first, and for
                all others together `alpha` once more, 1/2 + 1/6 + 1/12 + ... of it.
        """
        return JudgeConfig(
            alpha=self.alpha,
            alpha_pass=self.alpha / max(1, tries * (tries - 1)),
            risk_budget=self.risk_budget.share,
            budget_requests=self.risk_budget.requests,
            rules=self._rules(),
            trusted_callers=frozenset((OWN_CALLER,)),  # the owner may roll back anyway
        )

    def expected(self, *, has_pairs: bool = False) -> tuple[str, ...]:
        """Families that need canary traffic before a step may pass, see `Signals.expected`."""
        return (*self.signals.expected(has_pairs=has_pairs), *((AFFECTED_USERS,) if self.sticky else ()))

    def words(self, signal: str, *, stable: str = "stable") -> SignalWords:
        """The words for `signal` in this release; `stable` is the name of the version compared with."""
        if signal in self.signals.own and (row := self.signals.row(signal)):
            return row.words.of(stable=stable)
        return catalogue().words(signal, key=self.signals.key_in_words(signal), stable=stable)

    def _rules(self) -> dict[str, SignalRule]:
        rules = self.signals.rules()
        if self.sticky is None:
            return rules
        # One user whose requests keep failing is one event: only each user's first failure may FAIL the canary. PASS
        # still bounds every failure, because each is harm.
        errors, users = rules["errors"], catalogue().of(AFFECTED_USERS)
        return rules | {
            "errors": replace(errors, weight=0.0),
            AFFECTED_USERS: replace(errors, budgeted=False, words=users.words if users else None),
        }


def parse_spec(text: str, *, name: str = "rollout.yaml") -> RolloutSpec:
    """Parse and check a rollout.yaml. `name` is its name in errors. Raises SpecError."""
    data = read_yaml(text, name=name, do="correct it there or just before")
    if not isinstance(data, dict | None):
        saw = "a list" if isinstance(data, list) else f"only {shown(data)}"
        raise SpecError(f"{name} must hold `key: value` lines", saw=saw, do="start with `steps: auto`")
    try:
        return RolloutSpec.model_validate(data or {}, context=WRITTEN_BY_A_PERSON)
    except ValidationError as error:
        signals = (data or {}).get("signals")
        found = mistakes(error, _sections(signals, (data or {}).get("answers")), former_places(signals))
        do = [each.do if len(found) == 1 or not each.place else f"`{each.place}`: {each.do}" for each in found]
        raise SpecError(
            f"{name} is not a valid plan", saw="; ".join(each.saw for each in found), do="; ".join(do)
        ) from error


def _sections(signals: Any, answers: Any) -> dict[Place, Section]:
    """The parts of a plan that have keys; `signals` and `answers` are those of the plan."""
    whole = Section(tuple(RolloutSpec.model_fields), "steps: auto", "or nothing")
    guards = Section(tuple(Guards.model_fields), "{error_ratio: 20%}", "or delete the line")
    budget = Section(tuple(RiskBudget.model_fields), "{share: 0.5%, requests: 500}", "or a share alone")
    segments = Section(
        tuple(SegmentsBy.model_fields), "{header: x-tenant, values: [acme, beta]}", "or `header:x-tenant`"
    )
    of_answers = Section((), "{/detect: {label: label}}", "or delete the line")
    of_route = Section(tuple(RouteAnswers.model_fields), "{label: label, confidence: confidence}", "or delete the line")
    golden = Section(tuple(Golden.model_fields), "{requests: recorded, leave_out: [/orders]}", "or `own` alone")
    routes: dict[Place, Section] = {
        ("answers", str(route)): of_route for route in (answers if isinstance(answers, dict) else ())
    }
    fixed: dict[Place, Section] = {(): whole, ("guards",): guards, ("risk_budget",): budget, ("answers",): of_answers}
    return {**fixed, ("segments",): segments, ("golden",): golden, **routes, **sections(signals)}


def _as_written(steps: tuple[Step, ...] | str) -> Any:
    return steps if isinstance(steps, str) else list(steps)
