"""Turns pydantic's errors into plain English: where the mistake is, what was found, and what to write instead."""

import difflib
import reprlib
from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from contract.plain_text import one_line

_LONGEST = 60  # characters of a value that are shown
_REPR = reprlib.Repr()
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = _LONGEST
_REPR.maxstring = _REPR.maxother = 10_000
_MOST = 200  # complaints that are listed one by one
TOO_MANY = "too_many"  # the type of the one complaint that replaces more than `_MOST`

# `{...}` is filled in from the complaint.
_ADVICE = {
    "bool_parsing": "write `true` or `false`",
    "bool_type": "write `true` or `false`",
    "dataclass_type": "write keys with values",
    "dict_type": "write keys with values",
    "enum": "write {expected}",
    "extra_forbidden": "there is no such key",
    "finite_number": "write a finite number",
    "float_parsing": "write a number such as 1.25",
    "float_type": "write a number such as 1.25",
    "greater_than": "write a number above {gt}",
    "greater_than_equal": "write a number of at least {ge}",
    "int_from_float": "write a whole number",
    "int_parsing": "write a whole number",
    "int_type": "write a whole number",
    "is_instance_of": "write keys with values",
    "json_invalid": "it is not JSON: {error}",
    "json_type": "it is not JSON",
    "less_than": "write a number below {lt}",
    "less_than_equal": "write a number of at most {le}",
    "list_type": "write a list in brackets, such as [25, 100]",
    "literal_error": "write {expected}",
    "mapping_type": "write keys with values",
    "missing": "it is missing",
    "model_attributes_type": "write keys with values",
    "model_type": "write keys with values",
    "none_required": "leave it out",
    "path_type": "write a path",
    "string_too_long": "write at most {max_length} characters",
    "string_too_short": "write at least {min_length} characters",
    "string_type": "write a text, in quotes if it looks like a number",
    "too_long": "write at most {max_length} of them",
    "too_short": "write at least {min_length} of them",
    "tuple_type": "write a list in brackets, such as [25, 100]",
    "url_parsing": "write an address such as http://127.0.0.1:3000",
    "url_scheme": "begin it with {expected_schemes}",
    "url_type": "write an address such as http://127.0.0.1:3000",
    "value_error": "{error}",
}


def listed(error: ValidationError) -> list[ErrorDetails]:
    """Every complaint. More than 200 are replaced by one that gives their number.

    pydantic makes a dictionary for every complaint at once: a million of them, from a body of some megabytes, would
    take gigabytes.
    """
    if (count := error.error_count()) > _MOST:
        return [ErrorDetails(type=TOO_MANY, loc=(), msg=f"{count:,} mistakes are in it", input=None)]
    return error.errors(include_url=False)


def advice(details: ErrorDetails) -> str:
    """What to do about one complaint; pydantic's own words if `_ADVICE` has none."""
    if (text := _ADVICE.get(details["type"])) is None:
        return details["msg"]
    said = text.format_map({name: _number(value) for name, value in details.get("ctx", {}).items()})
    return said.replace("'", "`") if details["type"] == "literal_error" else said


def _number(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() else f"{value:g}"
    return value


def complaints(error: ValidationError, model: type[BaseModel], *, whole: str) -> list[str]:
    """Each complaint as one clause: where it is, what to write, what was found.

    Args:
        model: the model that was read; an unknown key is compared with its fields.
        whole: the name of the value as a whole.
    """
    return list(dict.fromkeys(_clause(details, model, whole) for details in listed(error)))


def first_complaint(error: ValidationError, *, whole: str) -> str:
    """The first complaint as one clause, without the value found, which may be a secret."""
    first = listed(error)[0]
    place = f"`{'.'.join(map(str, first['loc']))}`" if first["loc"] else whole
    return one_line(f"{place}: {advice(first)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` with the known name nearest to `name`, or an empty text."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean `{near[0]}`?" if near else ""


def _clause(details: ErrorDetails, model: type[BaseModel], whole: str) -> str:
    loc = details["loc"]
    place = f"`{'.'.join(map(str, loc))}`" if loc else whole
    if details["type"] == "extra_forbidden":
        known = [name for part in _parts(model, loc[:-1]) for name in part.model_fields]
        return f"{place} is not a key here{nearest(str(loc[-1]), known)}"
    if details["type"] == "missing":
        return f"{place} is missing"
    shown = _REPR.repr(details["input"])  # only the beginning: there may be millions of values
    shown = shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."
    return f"{place}: {advice(details)}, not {shown}" if loc else f"{whole}: {advice(details)}"


def _parts(kind: Any, loc: tuple[int | str, ...]) -> Iterator[type[BaseModel]]:
    """The models that may stand at `loc` within `kind`. A part of `loc` that is not a field is an index or a tag."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if not loc:
            yield kind
        elif (field := kind.model_fields.get(str(loc[0]))) is not None:
            yield from _parts(field.annotation, loc[1:])
        else:
            yield from _parts(kind, loc[1:])
        return
    for inner in get_args(kind):
        yield from _parts(inner, loc)
