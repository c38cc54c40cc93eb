"""Metric profiles: data that says where a release's counters come from.

A profile names the series for each signal, the labels that distinguish the versions, and the labels that identify a
counting process (a pod). Its selectors are written like those of a plan's own signals.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rollout.errors import SpecError
from rollout.mistakes import Place, Section, contradiction, mistakes, read_yaml, shown
from rollout.signals.catalogue import catalogue
from rollout.signals.custom import CustomSignal
from rollout.signals.selectors import Matcher, Selector, matcher, selector

Kind = Literal["share", "share of each", "each", "durations", "bounds"]
Unit = Literal["s", "ms"]

# The signals that can be counted from a metric store, and how each is counted.
KINDS: Mapping[str, Kind] = {
    "errors": "share",
    "rejected": "share",
    "route": "share of each",
    "latency": "durations",
    "class": "each",
    "low_confidence": "bounds",
    "wrong_label": "share",
}
_KEYS: Mapping[Kind, tuple[frozenset[str], ...]] = {
    "share": (frozenset({"bad", "of"}), frozenset({"good", "of"}), frozenset({"good", "bad"})),
    "share of each": (frozenset({"bad", "of", "each"}),),
    "each": (frozenset({"of", "each"}),),
    "durations": (frozenset({"histogram", "unit"}),),
    "bounds": (frozenset({"histogram"}),),
}
_EXAMPLES: Mapping[Kind, str] = {
    "share": "{of: requests_total, bad: 'requests_total{code=~\"5..\"}'}",
    "share of each": "{of: requests_total, bad: 'requests_total{code=~\"5..\"}', each: route}",
    "each": "{of: predictions_total, each: label}",
    "durations": "{histogram: request_duration_seconds, unit: s}",
    "bounds": "{histogram: confidence}",
}
_PER_SECOND: Mapping[Unit, float] = {"s": 1000.0, "ms": 1.0}
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_FIELD = re.compile(r"\{([^{}]*)\}")
_FIELDS = ("namespace", "rollout", "version")
# Labels in which copies of one series differ when two Prometheus replicas, or two jobs, scrape the same pod.
REPLICA_LABELS = ("prometheus_replica", "replica", "__replica__", "prometheus", "job")
# Labels that say who scraped a pod or in which cluster it is, and labels with which each scraper describes its target.
# A scraper that sets a label which the pod exports as well renames the pod's label with the prefix `exported_`.
SCRAPER_LABELS = ("job", "cluster")
TARGET_LABELS = ("instance", "service", "endpoint", "container", "node", "cluster")
EXPORTED_PREFIX = "exported_"
_ROOT = Section(
    ("about", "extends", "versions", "where", "leave_out", "process", "signals"),
    "versions: {pod_hash: '{version}'}",
    "or nothing",
)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Counted(_Part):
    """The series of one signal."""

    of: str | None = None
    bad: str | None = None
    good: str | None = None
    each: str | None = None
    histogram: str | None = None
    unit: Unit | None = None

    @field_validator("of", "bad", "good", "histogram")
    @classmethod
    def _is_selector(cls, text: str | None) -> str | None:
        if text is not None:
            selector(text)
        return text

    @field_validator("each")
    @classmethod
    def _is_label(cls, label: str | None) -> str | None:
        if label is not None and not _LABEL.fullmatch(label):
            raise ValueError("write the name of a label, such as `route`")
        return label

    @property
    def keys(self) -> frozenset[str]:
        """The keys that the profile gives."""
        return frozenset(key for key in type(self).model_fields if getattr(self, key) is not None)


class Profile(_Part):
    """Where the counters of a release come from."""

    name: str
    about: str = ""
    versions: dict[str, str] = Field(min_length=1)
    where: dict[str, str] = {}
    leave_out: dict[str, str] = {}
    process: tuple[str, ...] = Field(default=("pod",), min_length=1)
    signals: dict[str, Counted] = Field(min_length=1)

    @field_validator("versions", "where")
    @classmethod
    def _are_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        for label, text in labels.items():
            if not _LABEL.fullmatch(label):
                raise ValueError(f"`{label}` is not the name of a label: letters, digits and `_`")
            unknown = [name for name in _FIELD.findall(text) if name not in _FIELDS]
            if unknown:
                fields = ", ".join(f"{{{name}}}" for name in _FIELDS)
                raise ValueError(f"`{{{unknown[0]}}}` is not known: write {fields}")
        return labels

    @field_validator("leave_out")
    @classmethod
    def _are_expressions(cls, labels: dict[str, str]) -> dict[str, str]:
        for label, expression in labels.items():
            if not _LABEL.fullmatch(label):
                raise ValueError(f"`{label}` is not the name of a label: letters, digits and `_`")
            if matcher(label, "!~", expression).takes({}) is False or "`" in expression:
                raise ValueError(
                    f"`{expression}` also leaves out all series without `{label}`: write an expression that does not "
                    "match an empty value"
                )
        return labels

    @field_validator("process")
    @classmethod
    def _are_names(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        for label in labels:
            if not _LABEL.fullmatch(label):
                raise ValueError(f"`{label}` is not the name of a label: letters, digits and `_`")
        return labels

    @model_validator(mode="after")
    def _is_whole(self) -> "Profile":
        if not any("{version}" in text for text in self.versions.values()):
            raise contradiction(
                f"no label in `versions` holds `{{version}}`: {shown(self.versions)}",
                "let one of them tell the versions apart, such as `rollouts_pod_template_hash: '{version}'`",
            )
        if any("{version}" in text for text in self.where.values()):
            raise contradiction("`where` holds `{version}`", "move that label to `versions`")
        if "errors" not in self.signals:
            raise contradiction(
                f"`signals` has {', '.join(self.signals)}, and no `errors`",
                f"add them, such as `errors: {_EXAMPLES['share']}`: every verdict needs them",
            )
        for name, counted in self.signals.items():
            kind = KINDS.get(name)
            if kind is None:
                raise contradiction(
                    f"`signals.{name}` cannot come from a profile", f"a profile can give: {', '.join(KINDS)}"
                )
            if counted.keys not in _KEYS[kind]:
                given = ", ".join(f"`{key}`" for key in sorted(counted.keys)) or "nothing"
                raise contradiction(f"`signals.{name}` has {given}", f"write `{name}: {_EXAMPLES[kind]}`")
        return self

    def counters(self, own: Mapping[str, CustomSignal]) -> "tuple[SeriesOf, ...]":
        """The series to count for each signal, including a plan's own signals except means of numbers."""
        left_out = tuple(matcher(label, "!~", expression) for label, expression in self.leave_out.items())
        built_in = (_series_of(name, counted).without(left_out) for name, counted in self.signals.items())
        return (*built_in, *(_series_of_own(name, options) for name, options in own.items() if not options.between))

    def labels(self, names: "Names", version: str) -> dict[str, str]:
        """The labels that all series of one version have."""
        fields = {"namespace": names.namespace, "rollout": names.rollout, "version": version}
        return {label: _filled(text, fields) for label, text in (*self.where.items(), *self.versions.items())}


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one release in its data plane, which fill the fields of a profile."""

    namespace: str
    rollout: str
    canary: str
    stable: str


@dataclass(frozen=True, slots=True)
class SeriesOf:
    """The series of one signal, in the form that counting needs."""

    signal: str  # a family, without a key
    of: Selector  # all events; for a histogram its buckets
    bad: Selector | None = None
    is_good: bool = False  # `bad` counts the good events
    is_whole: bool = True  # False: `of` counts only the good events, and no series counts all
    each: str | None = None  # label whose values are keys
    is_histogram: bool = False
    is_bad_above: bool = True  # for a histogram: the events above a bound are bad, else those within it
    per_bound: float = 1.0  # factor from a bound to its key
    bound: float | None = None  # the only bound that counts; then the signal has no keys

    def named(self, bound: float) -> str:
        """The signal of one bound of a histogram, with its key."""
        if self.bound is not None:
            return self.signal if bound == self.bound else ""
        return f"{self.signal}:{round(bound * self.per_bound, 6):g}"

    def without(self, left_out: tuple[Matcher, ...]) -> "SeriesOf":
        """The same signal, restricted to the series that these matchers accept as well."""
        of = Selector(self.of.name, (*self.of.matchers, *left_out))
        bad = Selector(self.bad.name, (*self.bad.matchers, *left_out)) if self.bad else None
        return replace(self, of=of, bad=bad)

    def counts(self, labels: Mapping[str, str]) -> bool:
        """Whether a series counts towards all events."""
        return _takes(self.of, labels) or (not self.is_whole and self.is_part(labels))

    def is_part(self, labels: Mapping[str, str]) -> bool:
        """Whether a series counts the events of `bad`."""
        return self.bad is not None and _takes(self.bad, labels)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the series to read."""
        return (self.of.name, self.bad.name) if self.bad else (self.of.name,)


def parse_profile(text: str, *, name: str, known: Mapping[str, Mapping[str, Any]] | None = None) -> Profile:
    """The profile in a file's text.

    Args:
        text: YAML.
        name: the profile's name.
        known: contents of other profiles by name; the profile may extend one of them, and its own keys replace theirs.

    Raises: SpecError.
    """
    data = profile_data(text, name=name)
    base = data.pop("extends", None)
    if base is not None:
        if base not in (known or {}):
            raise SpecError(
                f"profile {name} extends an unknown profile",
                saw=shown(base),
                do=f"extend one of: {', '.join(known or {})}",
            )
        data = {**(known or {})[base], **data}
    if missing := [key for key in ("versions", "signals") if key not in data]:
        raise SpecError(
            f"profile {name} is incomplete",
            saw=f"no {' and no '.join(f'`{key}`' for key in missing)}",
            do="add it, or write `extends: bentoml` to take it from another profile",
        )
    try:
        return Profile.model_validate({**data, "name": name})
    except ValidationError as error:
        signals = data.get("signals")
        sections: dict[Place, Section] = {(): _ROOT} | {
            ("signals", str(each)): Section(tuple(Counted.model_fields), _example(str(each)), "or delete the line")
            for each in (signals if isinstance(signals, Mapping) else ())
        }
        found = mistakes(error, sections, {})
        raise SpecError(
            f"profile {name} is not valid",
            saw="; ".join(each.saw for each in found),
            do="; ".join(each.do if len(found) == 1 else f"`{each.place}`: {each.do}" for each in found),
        ) from error


def profile_data(text: str, *, name: str) -> dict[str, Any]:
    """The content of a profile's file, not checked. Raises SpecError where it is not a mapping."""
    data = read_yaml(text, name=f"profile {name}")
    if not isinstance(data, dict):
        raise SpecError(
            f"profile {name} must consist of `key: value` lines",
            saw=shown(data),
            do="copy one of the built-in profiles, and change what differs; or write `extends: bentoml`",
        )
    if "name" in data:
        raise SpecError(
            f"profile {name} has `name`",
            saw=shown(data["name"]),
            do="leave it out: the name of the file is the name of the profile",
        )
    return data


def _example(signal: str) -> str:
    return _EXAMPLES[KINDS.get(signal, "share")]


def _series_of(name: str, counted: Counted) -> SeriesOf:
    if counted.histogram is not None:
        return SeriesOf(
            name,
            _buckets(counted.histogram),
            is_histogram=True,
            is_bad_above=KINDS[name] == "durations",
            per_bound=_PER_SECOND[counted.unit] if counted.unit else 1.0,
        )
    if counted.of is None:
        return SeriesOf(name, selector(counted.good or ""), bad=selector(counted.bad or ""), is_whole=False)
    part = counted.bad or counted.good
    return SeriesOf(
        name,
        selector(counted.of),
        bad=selector(part) if part else None,
        is_good=counted.good is not None,
        each=counted.each,
    )


def _series_of_own(name: str, options: CustomSignal) -> SeriesOf:
    if options.histogram is not None:
        is_above = options.above is not None
        bound = options.above if options.above is not None else options.below
        return SeriesOf(
            name, _buckets(options.histogram), is_histogram=True, is_bad_above=is_above, bound=float(bound or 0.0)
        )
    part = selector(options.bad or options.good or "")
    return SeriesOf(name, selector(options.of or ""), bad=part, is_good=options.good is not None)


def _takes(selected: Selector, labels: Mapping[str, str]) -> bool:
    return labels.get("__name__") == selected.name and selected.takes(labels)


def _buckets(histogram: str) -> Selector:
    parsed = selector(histogram)
    return Selector(f"{parsed.name}_bucket", parsed.matchers)


def _filled(text: str, fields: Mapping[str, str]) -> str:
    return _FIELD.sub(lambda found: fields[found[1]], text)


def impossible(profile: Profile, named: Mapping[str, Any], own: Mapping[str, CustomSignal]) -> Iterator[str]:
    """The signals that a plan names and that this profile cannot provide.

    Args:
        named: the `signals` of the plan as written; a value of None leaves the signal out.
        own: the plan's own signals.
    """
    known = catalogue().in_plans
    former = {row.former_name: row.name for row in known.values() if row.former_name}
    for name, options in named.items():
        today = former.get(name, name)
        if today in known and options is not None and today not in profile.signals:
            yield name
    labels = named.get("wrong_label")
    if isinstance(labels, Mapping) and labels.get("after") and "wrong_label" in profile.signals:
        yield "wrong_label.after"
    yield from (name for name, options in own.items() if options.between)
