"""What validation finds: each fault says what is wrong, what was seen and what to do."""

from collections.abc import Iterator
from dataclasses import dataclass

from contract.answer_types import Label, Labels
from contract.errors import KanariaError
from contract.model_files import SCHEMA_FILE, Schema


@dataclass(frozen=True, slots=True)
class Fault:
    """Something to fix before the model can be served."""

    what: str
    saw: str
    do: str


class FaultFound(KanariaError):
    """A fault that makes further checks impossible."""

    @property
    def fault(self) -> Fault:
        return Fault(self.what, self.saw, self.do)


def label_faults(place: str, schema: Schema, label: Label) -> Iterator[Fault]:
    """A fault if no answer can have `label`."""
    if isinstance(schema.answer, Labels):
        if label not in schema.answer.labels:
            do = f"use the labels of {SCHEMA_FILE} (as text), or add this one there"
            yield Fault(f"{place} has a label that no answer can have", repr(label), do)
    elif isinstance(label, str):
        yield Fault(f"{place} has a text where answers are numbers", repr(label), "write the number")
