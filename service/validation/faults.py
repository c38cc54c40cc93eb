"""What validation finds: faults in the shape of every error here, what happened, what was seen, what to do."""

from collections.abc import Iterator
from dataclasses import dataclass

from service.contract import SCHEMA_FILE, Schema
from service.kinds import Label, Labels


@dataclass(frozen=True, slots=True)
class Fault:
    """Something to put right before the model can be served."""

    what: str
    saw: str
    do: str


class FaultFound(Exception):
    """A fault that keeps the rest from being checked."""

    def __init__(self, what: str, *, saw: object, do: str) -> None:
        super().__init__(what)
        self.fault = Fault(what, str(saw), do)


def label_faults(place: str, schema: Schema, label: Label) -> Iterator[Fault]:
    """A label that no answer can have."""
    if isinstance(schema.answer, Labels):
        if label not in schema.answer.labels:
            do = f"use the labels of {SCHEMA_FILE} (as text), or add this one there"
            yield Fault(f"{place} has a label that no answer can have", repr(label), do)
    elif isinstance(label, str):
        yield Fault(f"{place} has a text where answers are numbers", repr(label), "write the number")
