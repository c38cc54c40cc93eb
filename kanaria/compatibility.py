"""Whether callers of one version can be sent to another: a pure comparison of what two models accept and answer.

Reads the plain JSON files of the model contract (docs/decisions/0003-model-contract.md), never a model's code.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, JsonValue, ValidationError

from kanaria.errors import SetupError

_KINDS = {bool: "true or false", str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}


class _File(BaseModel):
    """What is read here of a model's file; it may hold more."""


class Column(_File):
    """One input column and the values that it accepts."""

    name: str
    minimum: float
    maximum: float


class AcceptedInput(_File):
    """Of schema.json: what a request may hold, and the labels of an answer."""

    features: tuple[Column, ...]
    labels: tuple[str, ...] = ()
    max_rows: int


class GoldenRequest(_File):
    """One line of golden.jsonl: the rows of a request, and what is answered to each."""

    features: list[JsonValue]
    predictions: list[dict[str, JsonValue]]


@dataclass(frozen=True, slots=True)
class Interface:
    """All that callers of one model can rely on."""

    accepts: AcceptedInput
    golden: tuple[GoldenRequest, ...]

    @classmethod
    def read(cls, folder: Path) -> "Interface":
        """Read a model's files. Raises SetupError."""
        try:
            accepts = AcceptedInput.model_validate_json((folder / "schema.json").read_bytes())
            lines = (folder / "golden.jsonl").read_bytes().splitlines()
            return cls(accepts, tuple(GoldenRequest.model_validate_json(line) for line in lines))
        except (OSError, ValidationError) as error:
            raise SetupError(
                f"the model in {folder} does not keep the contract",
                saw=str(error),
                do="train it again so that it writes schema.json and golden.jsonl",
            ) from error

    @property
    def answer(self) -> dict[str, str]:
        """The fields of a row's answer and the kind of each."""
        row = next((row for request in self.golden for row in request.predictions), {})
        return {field: _KINDS.get(type(value), "nothing") for field, value in row.items()}


def differences(canary: Interface, stable: Interface) -> tuple[str, ...]:
    """What would break for callers of `stable`, in the order in which they would meet it."""
    return (*_refused_input(canary.accepts, stable.accepts), *_missing_answers(canary, stable))


def remarks(canary: Interface, stable: Interface) -> tuple[str, ...]:
    """What is new and breaks nobody."""
    labels = [label for label in canary.accepts.labels if label not in stable.accepts.labels]
    fields = [field for field in canary.answer if field not in stable.answer]
    return (
        *((f"new labels: {', '.join(labels)}",) if labels else ()),
        *((f"new fields in each answer: {', '.join(fields)}",) if fields else ()),
    )


def _refused_input(canary: AcceptedInput, stable: AcceptedInput) -> Iterator[str]:
    names, known = [column.name for column in canary.features], [column.name for column in stable.features]
    if names != known:
        yield f"other features: {_changed(names, known)}"
        return
    for mine, theirs in zip(canary.features, stable.features, strict=True):
        if mine.minimum > theirs.minimum or mine.maximum < theirs.maximum:
            yield (
                f"feature `{mine.name}` accepts {mine.minimum:g} to {mine.maximum:g}, "
                f"stable {theirs.minimum:g} to {theirs.maximum:g}"
            )
    if canary.max_rows < stable.max_rows:
        yield f"at most {canary.max_rows} rows in a request, stable takes {stable.max_rows}"


def _changed(names: list[str], known: list[str]) -> str:
    """Rows are positional, so that the order counts too."""
    dropped, added = [name for name in known if name not in names], [name for name in names if name not in known]
    if not dropped and not added:
        at = next(i for i, (mine, theirs) in enumerate(zip(names, known, strict=True)) if mine != theirs)
        return f"in another order, column {at} is `{names[at]}`, with stable `{known[at]}`"
    parts = [
        f"{what} {', '.join(f'`{name}`' for name in some)}"
        for what, some in (("without", dropped), ("with", added))
        if some
    ]
    return f"{' and '.join(parts)}; {len(names)} columns, with stable {len(known)}"


def _missing_answers(canary: Interface, stable: Interface) -> Iterator[str]:
    missing = [label for label in stable.accepts.labels if label not in canary.accepts.labels]
    if missing:
        yield f"it can never answer {', '.join(repr(label) for label in missing)}"
    for field, kind in stable.answer.items():
        if field not in canary.answer:
            yield f"its answers lack `{field}`"
        elif canary.answer[field] != kind:
            yield f"`{field}` of its answers is {canary.answer[field]}, with stable {kind}"
