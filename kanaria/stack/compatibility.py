"""Compares two models: can callers of one version be sent to the other without a change?

Reads the files of both models and never runs a model's code.
"""

import errno
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated

from pydantic import Field, JsonValue, ValidationError

from contract.answer_types import AnswerKind, Labels, Number
from contract.complaints import complaints
from contract.model_files import GOLDEN_FILE, SCHEMA_FILE, Feature, Schema
from contract.plain_files import read_within
from contract.records import Record
from kanaria.errors import SetupError

_NAMED = 5  # names in one sentence
_LARGEST_SCHEMA, _LARGEST_GOLDEN = 16 * 2**20, 128 * 2**20  # bytes
_MOST_PARTS = 2**20  # lists and objects in the golden requests: each needs much more memory than its two characters
_BESIDE = "serve it as a separate stack, with its own ports and state folder (`kanaria --home FOLDER up TAG`)"
_SAME = "keep stable's columns in its schema: `preprocess` of its class may drop or derive columns"
_FILLED = "put new columns at the end and give them values in `defaults` of its schema for today's callers"
_KINDS = {bool: "true or false", str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}


class GoldenRequest(Record):
    """A golden request of any version. Its answers may have fields that this Kanaria does not know."""

    features: list[JsonValue]
    # Without `fail_fast`, millions of errors could fill the memory.
    predictions: Annotated[list[dict[str, JsonValue]], Field(fail_fast=True)]


@dataclass(frozen=True, slots=True)
class Interface:
    """What callers of one model can rely on."""

    schema: Schema
    golden: tuple[GoldenRequest, ...]

    @classmethod
    def read(cls, folder: Path) -> "Interface":
        """Read a model's files. Raises SetupError."""
        try:
            schema = Schema.model_validate_json(_content(folder, SCHEMA_FILE, _LARGEST_SCHEMA), extra="ignore")
            lines = BytesIO(_golden(folder))
            return cls(schema, tuple(GoldenRequest.model_validate_json(line, extra="ignore") for line in lines))
        except (OSError, ValidationError) as error:
            said = complaints(error, Schema, whole="a line") if isinstance(error, ValidationError) else [str(error)]
            raise SetupError(
                f"the model in {folder} does not keep the contract",
                saw="; ".join(said[:_NAMED]),
                do=f"train it again so that it writes {SCHEMA_FILE} and {GOLDEN_FILE}",
            ) from error

    @property
    def answer(self) -> dict[str, str]:
        """The fields of an answer's row and the type of each, in words."""
        row = next((row for request in self.golden for row in request.predictions), {})
        return {field: _KINDS.get(type(value), "nothing") for field, value in row.items()}


def _golden(folder: Path) -> bytes:
    """The golden requests. Raises OSError, also if they are too many."""
    found = _content(folder, GOLDEN_FILE, _LARGEST_GOLDEN)
    if found.count(b"[") + found.count(b"{") > _MOST_PARTS:
        raise OSError(errno.EFBIG, f"it has more than {_MOST_PARTS:,} lists and objects", GOLDEN_FILE)
    return found


def _content(folder: Path, name: str, most: int) -> bytes:
    """The content of a file. Raises OSError, also for a link: errors about the content are shown on public pages."""
    return read_within(folder, name, most=most)


def differences(canary: Interface, stable: Interface) -> tuple[str, ...]:
    """What would break for callers of `stable`: first inputs, then answers."""
    theirs = {column.name for column in stable.schema.features}
    shared = len(theirs & {column.name for column in canary.schema.features})
    if 2 * shared < len(theirs):
        return (f"it is a different model: it has {shared or 'none'} of stable's {len(theirs)} features; {_BESIDE}",)
    return (*_refused_input(canary.schema, stable.schema), *_missing_answers(canary, stable))


def remarks(canary: Interface, stable: Interface) -> tuple[str, ...]:
    """What is new and does not break callers."""
    own, known = canary.schema.answer, stable.schema.answer
    is_counted_otherwise = isinstance(own, Number) and isinstance(known, Number) and own != known
    labels = _only_in(_labels(own), _labels(known))
    known_features = {column.name for column in stable.schema.features}
    filled = [
        f"`{name}` with {json.dumps(value)}"
        for name, value in canary.schema.defaults.items()
        if name not in known_features
    ]
    fields = [field for field in canary.answer if field not in stable.answer]
    return (
        *((f"fills requests of stable's callers: {', '.join(filled)}",) if filled else ()),
        *((f"new labels: {', '.join(labels)}",) if labels else ()),
        *((f"new fields in each answer: {', '.join(fields)}",) if fields else ()),
        *(("other bins or tolerance; both versions are counted by stable's",) if is_counted_otherwise else ()),
    )


def _refused_input(canary: Schema, stable: Schema) -> Iterator[str]:
    names, known = [column.name for column in canary.features], [column.name for column in stable.features]
    if names[: len(known)] != known or not canary.defaults.keys() >= set(names[len(known) :]):
        yield f"other features: {_changed(names, known)}"
        return
    for mine, theirs in zip(canary.features, stable.features, strict=False):
        yield from _refused_values(mine, theirs)
    if lacking := [name for name in stable.defaults if name not in canary.defaults]:
        yield f"its schema has no `defaults` for {_named(lacking)}, which stable's callers may leave out"
    if canary.max_rows < stable.max_rows:
        yield f"it accepts at most {canary.max_rows} rows in a request, stable {stable.max_rows}"


def _refused_values(mine: Feature, theirs: Feature) -> Iterator[str]:
    if bool(mine.categories) != bool(theirs.categories):
        yield f"feature `{mine.name}` accepts {_kind(mine)}; stable accepts {_kind(theirs)}"
    elif lacking := _only_in(theirs.categories, mine.categories):
        yield f"feature `{mine.name}` does not accept {_named(lacking)}, which stable accepts"
    elif not mine.categories and (mine.minimum > theirs.minimum or mine.maximum < theirs.maximum):
        yield (
            f"feature `{mine.name}` accepts {mine.minimum:g} to {mine.maximum:g}, "
            f"stable {theirs.minimum:g} to {theirs.maximum:g}"
        )
    if theirs.may_be_missing and not mine.may_be_missing:
        yield f"feature `{mine.name}` may not be missing; on stable it may"


def _kind(feature: Feature) -> str:
    return "categories" if feature.categories else "numbers"


def _changed(names: list[str], known: list[str]) -> str:
    """How the columns differ. Rows are positional, so the order counts too."""
    dropped, added = [name for name in known if name not in names], [name for name in names if name not in known]
    if not dropped and not added:
        at = next(i for i, (mine, theirs) in enumerate(zip(names, known, strict=True)) if mine != theirs)
        return f"in another order, column {at} is `{names[at]}`; on stable it is `{known[at]}`"
    parts = [f"{what} {_named(some)}" for what, some in (("without", dropped), ("with", added)) if some]
    do = _SAME if dropped else _FILLED
    return f"{' and '.join(parts)}; {len(names)} columns; stable has {len(known)}; {do}"


def _named(names: Sequence[str]) -> str:
    """The first names, and the number of the others."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(f"`{name}`" for name in names[:_NAMED]) + more


def _only_in(names: Sequence[str], others: Sequence[str]) -> list[str]:
    """Those of `names` that are not in `others`, in their order."""
    known = frozenset(others)
    return [name for name in names if name not in known]


def _labels(answer: AnswerKind) -> tuple[str, ...]:
    return answer.labels if isinstance(answer, Labels) else ()


def _missing_answers(canary: Interface, stable: Interface) -> Iterator[str]:
    own, known = canary.schema.answer, stable.schema.answer
    if own.kind != known.kind:
        yield f"it answers with a {own.kind}, stable with a {known.kind}"
        return
    missing = _only_in(_labels(known), _labels(own))
    if missing:
        more = f" and {len(missing) - _NAMED} more labels" if len(missing) > _NAMED else ""
        yield f"it can never answer {', '.join(repr(label) for label in missing[:_NAMED])}{more}"
    for field, kind in stable.answer.items():
        if field not in canary.answer:
            yield f"its answers lack `{field}`"
        elif canary.answer[field] != kind:
            yield f"`{field}` of its answers is {canary.answer[field]}; on stable it is {kind}"
