"""Train versions of the example model into the BentoML model store: `python -m examples.digits.train v1 v2`."""

import argparse
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import bentoml
import torch
from safetensors.torch import save_file
from torch import nn

from examples.digits.data import SCHEMA, Split, filtered_split, split
from examples.digits.model import VARIANT_FILE, WEIGHTS_FILE, Digits, Variant
from examples.digits.network import Architecture, build
from service.contract import save_model

MODEL_NAME = "digits"
EPOCHS = 20
BATCH_ROWS = 64


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one version is made."""

    variant: Variant
    data: Callable[[], Split]
    learning_rate: float
    story: str


RECIPES = {
    "v1": Recipe(Variant(architecture="mlp"), split, 0.02, "a small MLP"),
    "v2": Recipe(Variant(architecture="cnn"), split, 0.005, "a CNN, better on every digit"),
    "v3": Recipe(Variant(architecture="cnn"), filtered_split, 0.005, "the CNN on an export that lost some digits"),
    "big": Recipe(Variant(architecture="transformer"), split, 0.001, "a transformer, for benchmarks"),
    "v3-errors": Recipe(Variant(architecture="cnn", fault="errors"), split, 0.005, "the CNN, failing on 5 % of calls"),
    "v3-latency": Recipe(Variant(architecture="cnn", fault="latency"), split, 0.005, "the CNN, 150 ms slower"),
}


def train(variant: str, *, replace: bool = False) -> bentoml.Tag:
    """Train one of `RECIPES` and save it as `digits:<variant>`.

    Returns at once if the store already has it, unless `replace` is set.

    Raises: KeyError if `variant` is not one of `RECIPES`.
    """
    tag = bentoml.Tag(MODEL_NAME, variant)
    if any(model.tag == tag for model in bentoml.models.list()):
        if not replace:
            return tag
        bentoml.models.delete(tag)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        metadata = train_into(folder, RECIPES[variant])
        with bentoml.models.create(tag, labels={"variant": variant}, metadata=metadata) as created:
            shutil.copytree(folder, created.path, dirs_exist_ok=True)
    return tag


def train_into(folder: Path, recipe: Recipe) -> dict[str, str | int | float]:
    """Train, write the model's files into `folder` and return its metadata. The same recipe gives the same weights."""
    torch.set_num_threads(1)  # faster for networks this small, and the same sums on every machine
    data = recipe.data()
    network = _fit(recipe.variant.architecture, recipe.data, recipe.learning_rate)
    save_file(network.state_dict(), folder / WEIGHTS_FILE)
    SCHEMA.write(folder)
    (folder / VARIANT_FILE).write_text(recipe.variant.model_dump_json() + "\n")
    accuracy = save_model(folder, Digits(folder), data.held_out.features, data.held_out.digits.tolist())
    return {
        "story": recipe.story,
        "architecture": recipe.variant.architecture,
        "parameters": sum(weights.numel() for weights in network.parameters()),
        "training_rows": len(data.train),
        "held_out_rows": len(data.held_out),
        "held_out_accuracy": round(accuracy, 4),
    }


@cache  # versions that differ only in their fault have the same weights
def _fit(architecture: Architecture, data: Callable[[], Split], learning_rate: float) -> nn.Module:
    rows = data().train
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build(architecture)
        features, digits = torch.from_numpy(rows.features / 16), torch.from_numpy(rows.digits)
        optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate)
        steps = EPOCHS * -(-len(rows) // BATCH_ROWS)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=learning_rate, total_steps=steps)
        network.train()
        for _ in range(EPOCHS):
            for batch in torch.randperm(len(rows)).split(BATCH_ROWS):  # type: ignore[no-untyped-call] # torch types neither this
                optimiser.zero_grad()
                nn.functional.cross_entropy(network(features[batch]), digits[batch]).backward()  # type: ignore[no-untyped-call] # nor this
                optimiser.step()
                schedule.step()
    return network.eval()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.digits.train", description=__doc__)
    parser.add_argument("variants", nargs="+", choices=sorted(RECIPES), help="versions to train")
    parser.add_argument("--replace", action="store_true", help="train again what the store already has")
    arguments = parser.parse_args()
    for variant in arguments.variants:
        tag = train(variant, replace=arguments.replace)
        facts = bentoml.models.get(tag).info.metadata
        print(f"{tag}: {facts['story']}; {facts['parameters']:,} parameters, ", end="")
        print(f"{facts['held_out_accuracy']:.1%} of {facts['held_out_rows']} held-out rows right")


if __name__ == "__main__":
    main()
