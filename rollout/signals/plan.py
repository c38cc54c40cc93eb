"""The section `signals` of a plan: which signals are judged, and how."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    create_model,
)
from pydantic import field_validator as validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from contract.answer_types import class_name
from rollout.judge.types import BothPairs, SignalRule, Window, sum_of
from rollout.mistakes import Place, Section, contradiction
from rollout.signals.catalogue import Catalogue, Signal, catalogue
from rollout.signals.custom import PREFIX, CustomSignal, OwnCounter
from rollout.signals.options import LABELS_CAME, Options, WrongLabel

if TYPE_CHECKING:  # commands that only read must start quickly, so they load no library
    from rollout.judge.windows import Windows

Part = TypeVar("Part", bound=Options)

CUSTOM = "custom"  # the section of the plan with the user's own signals
_NOBODY = class_name("")  # the caller of labels whose caller is not known
_MOST_OWN = 10  # of the user's own signals: each takes a share of the evidence


def _own_name(name: Any) -> Any:
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name):
        raise ValueError("write a name of small letters, digits and `_`, such as `refusals`")
    return name


_OwnName = Annotated[str, BeforeValidator(_own_name)]


@dataclass(frozen=True, slots=True)
class SignalSelection:
    """Which counters a plan wants, and their names in its evidence."""

    keys: Mapping[str, frozenset[str] | None]  # by family; None: every key
    others: Mapping[str, str] = field(default_factory=dict)  # by the name of a counter, the family that it counts for
    by_caller: Mapping[str, str] = field(default_factory=dict)  # by family, the prefix of its counters by caller

    def name(self, counted: str) -> str | None:
        """The name of a counter in the release; None: the release does not want it."""
        if counted in self.others:
            return self.others[counted]
        family, _, key = counted.partition(":")
        if family not in self.keys or family in self.others.values():
            return None
        wanted, row = self.keys[family], catalogue().of(family)
        if row is None or (wanted is not None and key not in wanted):
            return None
        return counted if row.has_keys else family

    def of(self, every: Iterable[Window]) -> list[Window]:
        """The windows that the release wants, under its names for them."""
        windows = list(every)
        names = {counted: self.name(counted) for counted in {window.signal for window in windows}}
        wanted = set(names.values())
        callers = {family: _by_caller(begins, windows) for family, begins in self.by_caller.items() if family in wanted}
        return [
            _with_callers(window if signal == window.signal else replace(window, signal=signal), callers.get(signal))
            for window in windows
            if (signal := names[window.signal]) is not None
        ]

    def of_arrays(self, windows: "Windows") -> "Windows":
        """The same for windows in arrays, which have no callers."""
        names = {counted: name for counted in windows.signals if (name := self.name(counted)) is not None}
        return windows.of_signals(names).renamed(names.values())


def _by_caller(begins: str, every: Iterable[Window]) -> tuple[dict[str, BothPairs], BothPairs]:
    """The counts of each caller in windows whose names begin with `begins`, and the sum of them all."""
    callers = {
        each.signal.removeprefix(begins): BothPairs(each.stable, each.canary)
        for each in every
        if each.signal.startswith(begins) and each.signal != begins + _NOBODY
    }
    return callers, BothPairs(*(sum_of([both[side] for both in callers.values()]) for side in (0, 1)))


def _with_callers(window: Window, of_callers: tuple[dict[str, BothPairs], BothPairs] | None) -> Window:
    """The window with its counts by caller, if these cover all of its events; otherwise unchanged."""
    callers, together = of_callers or ({}, None)
    return replace(window, callers=callers) if callers and (window.stable, window.canary) == together else window


class Signals(RootModel[dict[str, SerializeAsAny[Options] | None]]):
    """The options of each signal by name; None: not judged. A signal that is not named has its default options.

    The user's own signals have their names in evidence, `custom.NAME`.
    """

    model_config = ConfigDict(frozen=True)

    root: dict[str, SerializeAsAny[Options] | None] = Field(default_factory=dict, validate_default=True)

    @validator("root", mode="plain")
    @classmethod
    def _known(cls, given: Any, info: ValidationInfo) -> dict[str, Options | None]:
        present = catalogue()
        if isinstance(given, Mapping):
            given = _by_present_name(given, present)
            given = _with_own_together(given)
        parts = _model(present).model_validate(given, context=info.context)
        built_in: dict[str, Options | None] = {name: getattr(parts, name) for name in present.in_plans}
        own = {f"{PREFIX}{name}": options for name, options in (getattr(parts, CUSTOM) or {}).items()}
        _check_own(own)
        return built_in | own

    def get(self, kind: type[Part]) -> Part | None:
        """The options of the signal with this `kind` of options; None where it is left out."""
        return next((part for part in self.root.values() if type(part) is kind), None)

    @property
    def own(self) -> Mapping[str, CustomSignal]:
        """The user's own signals."""
        return {name: options for name, options in self.root.items() if isinstance(options, CustomSignal)}

    @property
    def own_counters(self) -> tuple[OwnCounter, ...]:
        """The counters of the user's own signals."""
        return tuple(options.counter for options in self.own.values())

    def row(self, signal: str) -> Signal | None:
        """The row of a signal or of a family, in the catalogue or the user's own; None where there is none."""
        own = self.own
        if signal in own:
            return own[signal].row(signal, list(own).index(signal))
        return catalogue().of(signal)

    def without(self, *names: str) -> "Signals":
        """The same signals without these."""
        return Signals({**self.root, **dict.fromkeys(names)})

    def only(self, *names: str) -> "Signals":
        """The same signals without all others."""
        return self.without(*(name for name in self.root if name not in names))

    def selection(self) -> SignalSelection:
        """Which counters the judge needs."""
        return SignalSelection(
            {row.name: options.keys for row, options in self._judged()},
            {options.counted_as: row.name for row, options in self._judged() if options.counted_as},
            {row.name: options.by_caller for row, options in self._judged() if options.by_caller},
        )

    def labels_came(self, every: Iterable[Window]) -> list[Window]:
        """The labels that arrived, if they count only at an age: to show how many still wait. Not evidence."""
        labels = self.get(WrongLabel)
        if labels is None or not labels.after:
            return []
        counted = f"{LABELS_CAME}:{labels.after:.0f}"
        return [replace(window, signal=LABELS_CAME) for window in every if window.signal == counted]

    def expected(self, *, has_pairs: bool = False) -> tuple[str, ...]:
        """Families that must have shown canary traffic before a step may pass.

        Args:
            has_pairs: whether both versions answer some requests, in the shadow step or with `compare`.
        """
        return tuple(
            row.name
            for row, options in self._judged()
            if row.is_expected or options.is_required or (row.is_of_copies and has_pairs)
        )

    @property
    def of_callers(self) -> tuple[str, ...]:
        """Families of which one caller can cause any number of events: see `Signal.is_of_callers`."""
        return tuple(row.name for row, _ in self._judged() if row.is_of_callers)

    def rules(self) -> dict[str, SignalRule]:
        """The judge's rule for each family that is judged."""
        return {row.name: row.rule(options) for row, options in self._judged()}

    def idle_gross(self) -> dict[str, str]:
        """The signals on which a person decides whatever the size of the change, and why; see `Options.idle_gross`."""
        asked = {row.name: options for row, options in self._judged() if options.on_fail == "hold"}
        return {name: why for name, options in asked.items() if (why := options.idle_gross)}

    def key_in_words(self, family: str) -> str:
        """See `Options`."""
        options = self.root.get(family)
        return options.key_in_words if options else ""

    def _judged(self) -> Iterator[tuple[Signal, Options]]:
        for name, options in self.root.items():
            row = self.row(name) if options is not None else None
            if row is not None and options is not None:
                yield row, options


def sections(given: Any) -> dict[Place, Section]:
    """The sections of a plan about signals, for error messages; `given` is the plan's `signals`."""
    rows = catalogue().in_plans
    whole = Section((*rows, CUSTOM), "{latency: {tolerance: 1.5}}", "or delete the line")
    example = "{bad: refusals_total, of: answers_total}"
    own = given.get(CUSTOM) if isinstance(given, Mapping) else None
    return (
        {("signals",): whole, ("signals", CUSTOM): Section((), f"{{refusals: {example}}}", "or delete the line")}
        | {("signals", name): _section(row) for name, row in rows.items()}
        | {
            ("signals", CUSTOM, str(name)): Section(tuple(CustomSignal.model_fields), example, "or delete the line")
            for name in (own if isinstance(own, Mapping) else ())
        }
    )


def _section(row: Signal) -> Section:
    keys = tuple(row.options.model_fields)
    shown = keys[:2][-1]  # not the first, `on_fail`, which every signal has
    without = (
        "or `null` to leave the signal out"
        if row.is_optional
        else f"or delete the line: {row.name} cannot be left out, because the guard and the proof of every step "
        "need them"
    )
    default = row.options.model_fields[shown].default
    return Section(keys, f"{{{shown}: {f'{default:.0%}' if 0 < default < 1 else default}}}", without)


def former_places(given: Any) -> dict[Place, Place]:
    """Where `given`, the signals of a plan, uses the former name of a signal, by the place of today's name."""
    rows = catalogue().in_plans.values()
    names = given if isinstance(given, Mapping) else {}
    return {("signals", row.name): ("signals", row.former_name) for row in rows if row.former_name in names}


@lru_cache(maxsize=8)
def _model(present: Catalogue) -> type[BaseModel]:
    """A model that checks the options of all signals at once, so that every mistake is reported with its place."""
    fields: dict[str, Any] = {
        row.name: (row.options | None if row.is_optional else row.options, row.options())
        for row in present.in_plans.values()
    }
    fields[CUSTOM] = (Annotated[dict[_OwnName, CustomSignal], Field(max_length=_MOST_OWN)] | None, None)
    return create_model("Signals", __config__=ConfigDict(extra="forbid"), **fields)


def _with_own_together(given: Mapping[str, Any]) -> dict[str, Any]:
    """The same signals, with the user's own in one section `custom`, as people write them."""
    own = {name.removeprefix(PREFIX): options for name, options in given.items() if name.startswith(PREFIX)}
    others = {name: options for name, options in given.items() if not name.startswith(PREFIX)}
    if not own:
        return others
    return others | {CUSTOM: {name: options for name, options in own.items() if options is not None}}


def _check_own(own: Mapping[str, CustomSignal]) -> None:
    """Raise PydanticCustomError where two signals count the same events."""
    by_counter: dict[str, str] = {}
    for name, options in own.items():
        other = by_counter.setdefault(options.counter.name, name)
        if other != name:
            raise contradiction(
                f"`signals.{other}` and `signals.{name}` count the same events",
                "keep one of the two: each would take a share of the evidence",
            )


def _by_present_name(given: Mapping[Any, Any], present: Catalogue) -> dict[str, Any]:
    """The same options under today's names. Raises: ValidationError for an unknown name, or two names of one signal."""
    former = {row.former_name: row.name for row in present.in_plans.values() if row.former_name}
    faults = [
        InitErrorDetails(type=fault, loc=(str(name),), input=value)
        for name, value in given.items()
        if (fault := _fault(name, given, former, present))
    ]
    if faults:
        raise ValidationError.from_exception_data("Signals", faults)
    return {former.get(name, name): value for name, value in given.items()}


def _fault(
    name: Any, given: Mapping[Any, Any], former: Mapping[str, str], present: Catalogue
) -> PydanticCustomError | str | None:
    """The fault in the name of a signal; None where there is none."""
    if name in former:
        now = former[name]
        return _both(name, now) if now in given else None
    if name in present.in_plans or name == CUSTOM or str(name).startswith(PREFIX):
        return None
    family = str(name).partition(":")[0]
    if family != name and family in present.in_plans:
        return contradiction(
            f"`signals.{name}` is one signal of a family",
            f"write `{family}`: its options are those of the whole family",
        )
    return "extra_forbidden"


def _both(former: str, now: str) -> PydanticCustomError:
    return contradiction(
        f"the plan has both `signals.{former}` and `signals.{now}`",
        f"keep one of the two: `{former}` is the former name of `{now}`",
    )
