"""Train versions of the model into the BentoML model store: `python -m examples.diabetes.train v1 v2`."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import bentoml
import torch
from safetensors.torch import save_file
from sklearn.linear_model import LinearRegression
from torch import nn

from examples.diabetes.data import FEATURES, TOLERANCE, Patients, mild_cases, split
from examples.diabetes.model import WEIGHTS_FILE, Diabetes
from service.contract import Number, Schema, save_model


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one version is made."""

    columns: list[int]  # indices of the features that it uses
    seen: Callable[[Patients], Patients]  # selects the training rows that it gets


ALL = list(range(len(FEATURES)))
RECIPES = {
    "v1": Recipe([2, 3], lambda patients: patients),  # body mass index and blood pressure
    "v2": Recipe(ALL, lambda patients: patients),  # better
    "v3": Recipe(ALL, mild_cases),  # silently wrong
}


def train_into(folder: Path, recipe: Recipe) -> None:
    """Fit the model and write all files of the model contract."""
    everybody, held_out = split()
    network = _fitted(recipe, recipe.seen(everybody))
    save_file(network.state_dict(), folder / WEIGHTS_FILE)
    with torch.inference_mode():
        answers = network(torch.from_numpy(held_out.features))[:, 0]
    Schema(features=FEATURES, answer=Number.binned(answers, tolerance=TOLERANCE)).write(folder)
    save_model(folder, Diabetes(folder), held_out.features, held_out.progression.tolist())


def _fitted(recipe: Recipe, patients: Patients) -> nn.Linear:
    fit = LinearRegression().fit(patients.features[:, recipe.columns], patients.progression)
    network = nn.Linear(len(FEATURES), 1)
    with torch.no_grad():
        network.weight.zero_()
        network.weight[0, recipe.columns] = torch.from_numpy(fit.coef_)
        network.bias.fill_(float(fit.intercept_))
    return network


def main() -> None:
    for version in sys.argv[1:]:
        with bentoml.models.create(f"diabetes:{version}") as model:
            train_into(Path(model.path), RECIPES[version])
        print(f"trained diabetes:{version}")


if __name__ == "__main__":
    main()
