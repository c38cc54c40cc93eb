"""Whether a model keeps its contract, and what to do where not: `python -m service.validation FOLDER CLASS`.

A process of its own, because it runs somebody's code; `kanaria validate` starts it. Knows no HTTP and no BentoML.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import orjson

from service.contract import GOLDEN_FILE, REFERENCE_FILE, SAMPLES_FILE, Golden, Reference, Sample
from service.validation.answers import answers, golden_faults, load
from service.validation.faults import Fault, FaultFound
from service.validation.files import line_faults, pickles, read_records, read_schema

ASKED_SAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Found:
    """What was found out about a model."""

    faults: tuple[Fault, ...]
    golden: int = 0  # golden requests that were replayed
    samples: int = 0  # samples that were asked
    right: int = 0  # and answered rightly


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
        faults += golden_faults(model, golden)
        asked = samples[:ASKED_SAMPLES]
        told = answers(model, [sample.features for sample in asked])
    except FaultFound as found:
        return Found((found.fault,))
    right = sum(schema.answer.is_same(one.label, sample.label) for one, sample in zip(told, asked, strict=True))
    return Found(tuple(faults), len(golden), len(asked), right)


def main() -> None:
    """Print what was found as one JSON object, for `kanaria validate`."""
    parser = argparse.ArgumentParser(prog="python -m service.validation", description=__doc__)
    parser.add_argument("folder", type=Path, help="the model's files")
    parser.add_argument("implementation", help="the class that loads them, package.module:Class")
    arguments = parser.parse_args()
    print(orjson.dumps(check(arguments.folder, arguments.implementation)).decode())


if __name__ == "__main__":
    main()
