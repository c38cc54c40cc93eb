"""Checks that a model's class loads and answers rows as the contract says, one by one and in a batch.

This runs the code of the model's author.
"""

import math
import pkgutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from contract.answer_types import Labels, Prediction
from contract.model_files import GOLDEN_FILE, SCHEMA_FILE, Golden, Value
from service.contract import Model
from service.server.batching import BrokenModel, predict_rows
from service.validation.faults import Fault, FaultFound, label_faults

TOLERANCE = 1e-3  # for numbers in an answer, absolute and relative: another CPU may sum in another order


def load(folder: Path, implementation: str) -> Model:
    """Load the model as a server would. Raises FaultFound."""
    try:
        loader = pkgutil.resolve_name(implementation)
    except (ImportError, AttributeError, ValueError) as error:
        do = "correct `implementation` in the bentofile's args (`package.module:Class`), and `include` that folder"
        raise FaultFound(f"the class {implementation} cannot be imported", saw=str(error), do=do) from None
    if not (isinstance(loader, type) and issubclass(loader, Model)):
        do = "derive the class from service.contract.Model"
        raise FaultFound(f"{implementation} is not a model", saw=str(loader), do=do)
    try:
        model = loader(folder)
    except Exception as error:  # the author's code may raise anything
        saw, do = f"{type(error).__name__}: {error}", "correct __init__; it gets the folder that training wrote"
        raise FaultFound(f"{implementation} does not load the model", saw=saw, do=do) from error
    if not hasattr(model, "schema"):
        do = "begin __init__ with super().__init__(folder)"
        raise FaultFound(f"{implementation} did not read {SCHEMA_FILE}", saw="no attribute `schema`", do=do)
    return model


def golden_faults(model: Model, golden: Sequence[Golden]) -> Iterator[Fault]:
    """What is wrong with the model's answers to the golden requests."""
    rows = [model.schema.numbers(row) for request in golden for row in request.features]
    together = answers(model, rows)
    alone = [answers(model, [row])[0] for row in rows]
    expected = [answer for request in golden for answer in request.predictions]
    if isinstance(model.schema.answer, Labels):
        yield from _probability_faults(model, rows)
    for number, (one, again) in enumerate(zip(together, alone, strict=True)):
        if not _is_same(one, again):
            do = "call .eval() on the network in __init__, which switches off dropout and batch statistics"
            saw = f"golden row {number}: {one} in a batch, {again} alone"
            yield Fault("an answer depends on the other rows of its batch, or on chance", saw, do)
            return
    for number, (given, wanted) in enumerate(zip(together, expected, strict=True)):
        if not _is_same(given, wanted):
            saw = f"golden row {number}: {given}, expected {wanted}"
            do = f"write {GOLDEN_FILE} with save_model, after the weights of this model are saved"
            yield Fault("the model does not give the golden answers", saw, do)
            return


def value_faults(model: Model, golden: Sequence[Golden]) -> Iterator[Fault]:
    """The values that the schema allows and the model cannot answer, tried in the first golden request."""
    base = model.schema.numbers(golden[0].features[0])
    for column, feature in enumerate(model.schema.features):
        values: list[Value] = [*feature.categories, *([None] if feature.may_be_missing else [])]
        rows = [[*base[:column], feature.number(value), *base[column + 1 :]] for value in values]
        try:
            answers(model, rows)
        except FaultFound as found:
            do = "handle it in preprocess: a missing value is NaN, a category its index in the schema"
            what = f"the model does not answer every value of {feature.name} that the schema allows"
            yield Fault(what, f"{found.what}: {found.saw}", do)


def _probability_faults(model: Model, rows: Sequence[Sequence[float]]) -> Iterator[Fault]:
    with torch.inference_mode():
        outputs = model.predict(model.preprocess(np.array(rows, dtype=np.float32)))
    sums = outputs.sum(dim=1)
    if bool((outputs < 0).any()) or bool(((sums - 1).abs() > TOLERANCE).any()):
        saw = f"the first row is {[round(value, 3) for value in outputs[0].tolist()][:5]}, its sum {sums[0].item():.3f}"
        yield Fault("predict does not return probabilities", saw, "end predict with .softmax(dim=1)")


def answers(model: Model, rows: Sequence[Sequence[float]]) -> list[Prediction]:
    """One answer per row, in batches of the largest size that a request may have. Raises FaultFound."""
    do = "return a tensor of shape (rows, labels) or (rows, 1) from predict, and one answer per row from postprocess"
    try:
        given: list[Prediction] = []
        with torch.inference_mode():
            for start in range(0, len(rows), model.schema.max_rows):
                batch = rows[start : start + model.schema.max_rows]
                given += predict_rows(model, np.array(batch, dtype=np.float32))
    except BrokenModel as error:
        raise FaultFound("the model breaks the contract", saw=str(error), do=do) from None
    except Exception as error:  # the author's code may raise anything
        saw = f"{type(error).__name__}: {error}"
        raise FaultFound("the model fails on its own rows", saw=saw, do="correct preprocess or predict") from error
    for answer in given:
        for fault in label_faults("an answer", model.schema, answer.label):
            raise FaultFound(fault.what, saw=fault.saw, do="let postprocess give a label of the schema, or a number")
        if answer.confidence is not None and not 0 <= answer.confidence <= 1 + TOLERANCE:
            saw = f"{answer.confidence:g}"
            raise FaultFound("a confidence is not a probability", saw=saw, do="end predict with .softmax(dim=1)")
    return given


def _is_same(one: Prediction, other: Prediction) -> bool:
    pairs = ((one.label, other.label), (one.confidence, other.confidence))
    return all(
        math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        if isinstance(a, float) and isinstance(b, float)
        else a == b
        for a, b in pairs
    )
