"""Check whether a model keeps the contract, and say what to fix: `python -m service.validation FOLDER CLASS`.

It has its own process, because it runs the code of the model's author. It starts no server.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import orjson

from contract.model_files import GOLDEN_FILE, REFERENCE_FILE, SAMPLES_FILE, Golden, Reference, Sample
from service.validation.answers import answers, golden_faults, load, value_faults
from service.validation.faults import Fault, FaultFound
from service.validation.files import line_faults, pickles, read_records, read_schema
from service.validation.remarks import Remark, remarks

ASKED_SAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Found:
    """The result of checking a model."""

    faults: tuple[Fault, ...]
    golden: int = 0  # golden requests that were replayed
    samples: int = 0  # samples that were answered
    right: int = 0  # samples that were answered correctly
    remarks: tuple[Remark, ...] = ()


def check(folder: Path, implementation: str) -> Found:
    """Check the model in `folder`, which the class `implementation` loads, as `package.module:Class`."""
    try:
        faults = [*pickles(folder)]
        schema = read_schema(folder)
        golden, samples = read_records(folder, GOLDEN_FILE, Golden), read_records(folder, SAMPLES_FILE, Sample)
        reference = read_records(folder, REFERENCE_FILE, Reference)
        faults += line_faults(schema, golden, samples, reference)
        if faults:
            return Found(tuple(faults))
        model = load(folder, implementation)
        faults += [*golden_faults(model, golden), *value_faults(model, golden)]
        asked = samples[:ASKED_SAMPLES]
        given = answers(model, [schema.numbers(sample.features) for sample in asked])
    except FaultFound as found:
        return Found((found.fault,))
    right = sum(schema.answer.is_same(one.label, sample.label) for one, sample in zip(given, asked, strict=True))
    return Found(tuple(faults), len(golden), len(asked), right, tuple(remarks(schema, reference)))


def main() -> None:
    """Print the result as one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m service.validation", description=__doc__)
    parser.add_argument("folder", type=Path, help="the model's files")
    parser.add_argument("implementation", help="the class that loads them, package.module:Class")
    arguments = parser.parse_args()
    print(orjson.dumps(check(arguments.folder, arguments.implementation)).decode())


if __name__ == "__main__":
    main()
