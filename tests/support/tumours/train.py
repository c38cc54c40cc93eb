"""Train versions of the model into the BentoML model store: `python -m tests.support.tumours.train v1 v2`.

The data are the breast cancer table of Wisconsin that scikit-learn ships (Wolberg, Street & Mangasarian 1993).
"""

import sys
from pathlib import Path

import bentoml
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from torch import nn

from service.contract import Feature, Labels, Schema, save_model
from tests.support.tumours.model import WEIGHTS_FILE, Tumours

# The columns that a version uses. v1 has learned almost nothing, v2 everything, and v3 lacks two columns.
COLUMNS = {"v1": [19], "v2": list(range(30)), "v3": list(range(30))}
LOST = [20, 22]  # the largest radius and perimeter

Rows = NDArray[np.float32]


def train_into(folder: Path, version: str) -> float:
    """Fit the model and write all files of the model contract; returns its share of right held-out rows, 0-1."""
    table = load_breast_cancer()
    rows, held_out, truth, held_out_truth = train_test_split(
        table.data.astype(np.float32), table.target, test_size=0.5, random_state=0, stratify=table.target
    )
    save_file(_fitted(version, rows, truth).state_dict(), folder / WEIGHTS_FILE)
    labels = ("malignant", "benign")
    features = tuple(
        Feature(name=name.replace(" ", "_"), minimum=0, maximum=10 * float(table.data[:, column].max()))
        for column, name in enumerate(table.feature_names)
    )
    Schema(features=features, answer=Labels(labels=labels)).write(folder)
    return save_model(folder, Tumours(folder), held_out, [labels[int(each)] for each in held_out_truth])


def _fitted(version: str, rows: Rows, truth: NDArray[np.int64]) -> nn.Linear:
    columns, spread = COLUMNS[version], rows.std(axis=0)
    # Balanced classes keep v1, which knows little, from always saying "benign".
    fit = LogisticRegression(max_iter=1000, class_weight="balanced").fit((rows / spread)[:, columns], truth)
    network = nn.Linear(rows.shape[1], 2)
    with torch.no_grad():
        network.weight.zero_()
        network.bias.zero_()
        network.weight[1, columns] = torch.from_numpy((fit.coef_[0] / spread[columns]).astype(np.float32))
        network.bias[1] = float(fit.intercept_[0])
        if version == "v3":
            network.weight[1, LOST] = 0.0
    return network


def main() -> None:
    for version in sys.argv[1:]:
        with bentoml.models.create(f"tumours:{version}") as model:
            right = train_into(Path(model.path), version)
        print(f"trained tumours:{version}, right about {right:.0%} of the held-out rows")


if __name__ == "__main__":
    main()
