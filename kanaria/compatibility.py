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


class Answer(_File):
    """What a row is answered with."""

    kind: str
    labels: tuple[str, ...] = ()  # of an answer that is a label
    tolerance: float | None = None  # of one that is a number
    edges: tuple[float, ...] = ()


class Contract(_File):
    """Of schema.json: what a request may hold and what kind of answer it gets."""

    features: tuple[Column, ...]
    answer: Answer
    max_rows: int


class GoldenRequest(_File):
    """One line of golden.jsonl: the rows of a request, and what is answered to each."""

    features: list[JsonValue]
    predictions: list[dict[str, JsonValue]]


@dataclass(frozen=True, slots=True)
class Interface:
    """All that callers of one model can rely on."""

    contract: Contract
    golden: tuple[GoldenRequest, ...]

    @classmethod
    def read(cls, folder: Path) -> "Interface":
        """Read a model's files. Raises SetupError."""
        try:
            contract = Contract.model_validate_json((folder / "schema.json").read_bytes())
            lines = (folder / "golden.jsonl").read_bytes().splitlines()
            return cls(contract, tuple(GoldenRequest.model_validate_json(line) for line in lines))
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
    return (*_refused_input(canary.contract, stable.contract), *_missing_answers(canary, stable))


def remarks(canary: Interface, stable: Interface) -> tuple[str, ...]:
    """What is new and breaks nobody."""
    own, known = canary.contract.answer, stable.contract.answer
    is_counted_otherwise = (own.tolerance, own.edges) != (known.tolerance, known.edges)
    labels = [label for label in own.labels if label not in known.labels]
    fields = [field for field in canary.answer if field not in stable.answer]
    return (
        *((f"new labels: {', '.join(labels)}",) if labels else ()),
        *((f"new fields in each answer: {', '.join(fields)}",) if fields else ()),
        *(("other bins or tolerance; both versions are counted by stable's",) if is_counted_otherwise else ()),
    )


def _refused_input(canary: Contract, stable: Contract) -> Iterator[str]:
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
    own, known = canary.contract.answer, stable.contract.answer
    if own.kind != known.kind:
        yield f"it answers with a {own.kind}, stable with a {known.kind}"
        return
    missing = [label for label in known.labels if label not in own.labels]
    if missing:
        yield f"it can never answer {', '.join(repr(label) for label in missing)}"
    for field, kind in stable.answer.items():
        if field not in canary.answer:
            yield f"its answers lack `{field}`"
        elif canary.answer[field] != kind:
            yield f"`{field}` of its answers is {canary.answer[field]}, with stable {kind}"
