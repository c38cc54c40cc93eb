"""Checks the files of a model's folder: none is missing, none is a pickle, none contradicts the schema.

This runs no code of the model.
"""

import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from contract.answer_types import Labels
from contract.complaints import complaints
from contract.model_files import (
    GOLDEN_FILE,
    REFERENCE_FILE,
    SAMPLES_FILE,
    SCHEMA_FILE,
    Golden,
    Reference,
    Sample,
    Schema,
    Value,
)
from contract.records import Record, RecordT
from service.validation.faults import Fault, FaultFound, label_faults

_PICKLE = re.compile(rb"\x80[\x02-\x05][^\x00]")  # safetensors may begin with the same two bytes, but a null follows

_SAVED = "save_model(folder, model, held_out, truth)"
_WRITTEN_WITH = {
    SCHEMA_FILE: "Schema(...).write(folder)",
    GOLDEN_FILE: _SAVED,
    SAMPLES_FILE: _SAVED,
    REFERENCE_FILE: _SAVED,
}


def pickles(folder: Path) -> Iterator[Fault]:
    """Faults for files that are pickles: loading one can run any code."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            is_pickle = _PICKLE.match(file.read(3)) is not None
        if not is_pickle and zipfile.is_zipfile(path):  # torch.save writes pickles into a zip file
            with zipfile.ZipFile(path) as packed:
                is_pickle = any(name.endswith(".pkl") for name in packed.namelist())
        if is_pickle:
            do = "save the weights with safetensors.torch.save_file"
            yield Fault(f"{path.relative_to(folder)} is a pickle, which could run any code", str(path), do)


def read_schema(folder: Path) -> Schema:
    """Read the schema. Raises FaultFound."""
    try:
        return Schema.read(folder)
    except FileNotFoundError:
        raise _missing(folder, SCHEMA_FILE, _WRITTEN_WITH[SCHEMA_FILE]) from None
    except ValidationError as error:
        saw, do = _first(error, Schema), f"write it with {_WRITTEN_WITH[SCHEMA_FILE]}"
        raise FaultFound(f"{SCHEMA_FILE} is not a schema", saw=saw, do=do) from None


def read_records(folder: Path, name: str, record: type[RecordT]) -> list[RecordT]:
    """Read the records of a file, at least one. Raises FaultFound."""
    do = f"write it with {_WRITTEN_WITH[name]}"
    try:
        lines = (folder / name).read_bytes().splitlines()
    except FileNotFoundError:
        raise _missing(folder, name, _WRITTEN_WITH[name]) from None
    records: list[RecordT] = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(record.model_validate_json(line))
        except ValidationError as error:
            what = f"{name} line {number} is not a {record.__name__}"
            raise FaultFound(what, saw=_first(error, record), do=do) from None
    if not records:
        raise FaultFound(f"{name} is empty", saw="no line", do=do)
    return records


def line_faults(
    schema: Schema, golden: Sequence[Golden], samples: Sequence[Sample], reference: Sequence[Reference]
) -> Iterator[Fault]:
    """The lines of the three files that contradict the schema."""
    for number, request in enumerate(golden, start=1):
        place = f"{GOLDEN_FILE} line {number}"
        for row in request.features:
            yield from _row_faults(place, schema, row)
        for answer in request.predictions:
            yield from label_faults(place, schema, answer.label)
        if len(request.features) != len(request.predictions):
            saw = f"{len(request.predictions)} predictions to {len(request.features)} rows"
            yield Fault(f"{place} does not have one answer per row", saw, "write one prediction per row, in order")
    for number, sample in enumerate(samples, start=1):
        place = f"{SAMPLES_FILE} line {number}"
        yield from _row_faults(place, schema, sample.features)
        yield from label_faults(place, schema, sample.label)
        tolerance = 0.0 if isinstance(schema.answer, Labels) else schema.answer.tolerance
        if sample.tolerance != tolerance:
            do = f"write it with {_SAVED}, after the schema"
            yield Fault(f"{place} has another tolerance than {SCHEMA_FILE}", f"{sample.tolerance:g}", do)

    plain = len(schema.logged_as("plain"))
    for number, known in enumerate(reference, start=1):
        place = f"{REFERENCE_FILE} line {number}"
        yield from label_faults(place, schema, known.prediction.label)
        yield from label_faults(place, schema, known.truth)
        if len(known.features) != plain:
            do = f"write it with {_WRITTEN_WITH[REFERENCE_FILE]}, after the schema"
            saw = str(len(known.features))
            yield Fault(f"{place} does not have the {plain} features that are logged plain", saw, do)


def _row_faults(place: str, schema: Schema, row: Sequence[Value]) -> Iterator[Fault]:
    if len(row) != len(schema.features):
        do = f"write the {len(schema.features)} features of {SCHEMA_FILE} in their order, or correct {SCHEMA_FILE}"
        yield Fault(f"{place} has another number of features", str(len(row)), do)
        return
    for feature, value in zip(schema.features, row, strict=True):
        try:
            feature.number(value)
        except ValueError as error:
            shown = f"{value:g}" if isinstance(value, float) else repr(value)
            if value is None:
                do = f"set `may_be_missing` in {SCHEMA_FILE}, or drop the row"
            elif feature.categories:
                do = f"add it to `categories` in {SCHEMA_FILE}, or drop the row"
            else:
                do = f"widen the bounds in {SCHEMA_FILE}, or drop the row"
            yield Fault(f"{place}: {feature.name} has a value that no request may have", f"{shown}, {error}", do)


def _missing(folder: Path, name: str, written_with: str) -> FaultFound:
    there = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    return FaultFound(f"{name} is missing", saw=f"{there} in {folder}", do=f"let training call {written_with}")


def _first(error: ValidationError, record: type[Record]) -> str:
    return complaints(error, record, whole="the whole of it")[0]
