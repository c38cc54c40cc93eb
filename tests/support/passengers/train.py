"""Train versions of the model into the BentoML model store: `python -m tests.support.passengers.train v1 v2`.

The data are the 1,309 passengers of the Titanic (Harrell & Cason 2017, OpenML 40945), a table that scikit-learn ships
for its own tests.
"""

import csv
import gzip
import sys
from importlib.resources import files
from pathlib import Path

import bentoml
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from torch import nn

from service.contract import Labels, Schema, Value, save_model
from tests.support.passengers.model import DEFAULTS, FEATURES, INPUTS, MORE_FEATURES, WEIGHTS_FILE, Passengers, inputs

LABELS = ("died", "survived")
SCHEMA = Schema(features=FEATURES, answer=Labels(labels=LABELS))
WIDER = Schema(features=(*FEATURES, *MORE_FEATURES), defaults=DEFAULTS, answer=SCHEMA.answer)
# The inputs that a version uses: v1 only the class, v3 two additional columns.
SEEN = {"v1": [0], "v2": list(range(INPUTS)), "v3": list(range(INPUTS + len(MORE_FEATURES)))}
_COLUMNS = {"siblings": "sibsp", "parents": "parch"}  # in the table, where they have other names


def table(schema: Schema = SCHEMA) -> tuple[list[list[Value]], list[str]]:
    """The values of each passenger, None where one is missing, and whether the passenger survived."""
    packed = files("sklearn.datasets.tests.data.openml.id_40945") / "data-v1-dl-16826755.arff.gz"
    lines = gzip.decompress(packed.read_bytes()).decode().splitlines()
    names = [line.split("'")[1] for line in lines if line.startswith("@attribute")]
    passengers = [
        dict(zip(names, row, strict=True)) for row in csv.reader(lines[lines.index("@data") + 1 :], escapechar="\\")
    ]
    columns = [(_COLUMNS.get(one.name, one.name), bool(one.categories)) for one in schema.features]
    rows = [[_value(passenger[name], is_word=is_word) for name, is_word in columns] for passenger in passengers]
    return rows, [LABELS[int(passenger["survived"])] for passenger in passengers]


def _value(text: str, *, is_word: bool) -> Value:
    if text == "?":
        return None
    return text if is_word else float(text)


def train_into(folder: Path, version: str) -> float:
    """Fit the model and write all files of the model contract; returns its share of right held-out rows, 0-1."""
    schema = WIDER if version == "v3" else SCHEMA
    rows, truth = table(schema)
    numbers = np.array([schema.numbers(row) for row in rows], np.float32)
    seen, held_out, known, held_out_truth = train_test_split(numbers, truth, test_size=0.4, random_state=0)
    save_file(_fitted(version, seen, known).state_dict(), folder / WEIGHTS_FILE)
    schema.write(folder)
    return save_model(folder, Passengers(folder), held_out, held_out_truth)


def _fitted(version: str, rows: NDArray[np.float32], truth: list[str]) -> nn.Linear:
    columns, seen = SEEN[version], inputs(rows).numpy()
    fit = LogisticRegression(max_iter=1000).fit(seen[:, columns], truth)
    network = nn.Linear(seen.shape[1], 2)
    with torch.no_grad():
        network.weight.zero_()
        network.bias.zero_()
        network.weight[1, columns] = torch.from_numpy(fit.coef_[0].astype(np.float32))
        network.bias[1] = float(fit.intercept_[0])
    return network


def main() -> None:
    for version in sys.argv[1:]:
        with bentoml.models.create(f"passengers:{version}") as model:
            right = train_into(Path(model.path), version)
        print(f"trained passengers:{version}, right about {right:.0%} of the held-out rows")


if __name__ == "__main__":
    main()
