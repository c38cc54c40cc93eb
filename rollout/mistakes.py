"""What is wrong with a plan, in plain English: what stands where, and what to write instead.

PyYAML takes a twentieth of a command to import. Who reads a plan from the ledger does without, so it is
imported where YAML is read or written.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from contract.complaints import TOO_MANY, advice, listed, nearest
from rollout.errors import SpecError

Place = tuple[str, ...]

_LONGEST = 80  # characters of a value that are shown

_UNKNOWN_KEY = ("extra_forbidden", "invalid_key")
_OF_A_KEY = "[key]"  # where pydantic complains about a key, and not about what stands there
_NOT_A_SECTION = ("model_type", "dict_type")


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the plan that has keys of its own."""

    keys: tuple[str, ...]
    example: str  # of what may stand there
    without: str  # what to do for a plan without it


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong."""

    place: str
    saw: str
    do: str


def read_yaml(text: str, *, name: str, do: str = "correct it there") -> Any:
    """What a file holds, not checked. Raises SpecError where it is no YAML.

    Args:
        name: of the file, for the error.
        do: what its author should do.
    """
    import yaml  # noqa: PLC0415 - see above

    from contract import bounded_yaml  # noqa: PLC0415 - likewise

    try:
        return bounded_yaml.load(text)
    except bounded_yaml.TooDeep as error:
        raise SpecError(f"{name} is nested too deeply", saw=str(error), do="take them apart") from error
    except bounded_yaml.TooLarge as error:
        raise SpecError(f"{name} is too large", saw=str(error), do="write less, and aliases out") from error
    except yaml.YAMLError as error:
        saw = " ".join(str(error).split())
        if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark):
            saw = f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
        raise SpecError(f"{name} is not YAML", saw=saw, do=do) from error


def contradiction(saw: str, do: str) -> PydanticCustomError:
    """An error for a validator to raise, where the value alone does not show what is wrong."""
    return PydanticCustomError("contradiction", "{do}", {"saw": saw, "do": do})


def mistakes(error: ValidationError, sections: Mapping[Place, Section], former: Mapping[Place, Place]) -> list[Mistake]:
    """Every mistake that `error` is about.

    Args:
        sections: the parts of the plan, by place.
        former: places as they are written in this plan, where it uses a former name, by today's place.
    """
    found = (_mistake(details, sections, former) for details in listed(error))
    return list(dict.fromkeys(found))


def shown(value: Any) -> str:
    """A value as YAML writes it."""
    if isinstance(value, bool):
        others = "`on` and `yes`" if value else "`off` and `no`"
        return f"`{str(value).lower()}` (YAML reads {others} as that, too)"
    import yaml  # noqa: PLC0415 - see above

    try:
        text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False, allow_unicode=True)
    except RecursionError:
        return "nested too deeply to be shown"
    text = text.removesuffix("\n").removesuffix("\n...")
    return f"`{text}`" if len(text) <= _LONGEST else f"`{text[:_LONGEST]}...`"


def _mistake(details: ErrorDetails, sections: Mapping[Place, Section], former: Mapping[Place, Place]) -> Mistake:
    kind, context = details["type"], details.get("ctx", {})
    if kind == TOO_MANY:
        return Mistake("", details["msg"], "correct those that you find, and try again: each of at most 200 is named")
    is_key = kind in _UNKNOWN_KEY  # and a key may be a number
    loc = (*details["loc"][:-1], details["input"]) if kind == "invalid_key" else details["loc"]
    today = tuple(_part(part) for part in loc if is_key or not isinstance(part, int))
    written = next((there + today[len(now) :] for now, there in former.items() if today[: len(now)] == now), today)
    place = ".".join(part for part in written if part != _OF_A_KEY)
    if kind == "contradiction":
        saw = context["saw"] if place in context["saw"] else f"in `{place}` {context['saw']}"
        return Mistake(place, saw, context["do"])
    if is_key and today[:-1] in sections:
        return Mistake(place, f"`{place}` does not exist", _existing(today[-1], sections[today[:-1]], written[:-1]))
    entry = next((f"entry {part + 1} of " for part in details["loc"] if isinstance(part, int)), "")
    saw = f"{entry}`{place}` is {shown(details['input'])}"
    if kind in _NOT_A_SECTION and today in sections:
        return Mistake(place, saw, f"write keys such as `{sections[today].example}`, {sections[today].without}")
    return Mistake(place, saw, advice(details))


def _part(part: Any) -> str:
    return str(part).lower() if isinstance(part, bool) else str(part)


def _existing(key: str, section: Section, place: Place) -> str:
    """The keys that there are, and what a person may have meant by `key`."""
    whole = f"`{'.'.join(place)}`" if place else "a plan"
    return f"the keys of {whole} are: {', '.join(section.keys)}{nearest(key, section.keys)}"
