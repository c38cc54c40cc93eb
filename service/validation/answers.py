"""The class of a model: it loads, and answers rows as the contract says, alone and in company. Runs somebody's code."""

import math
import pkgutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from service.batching import BrokenModel, predict_rows
from service.contract import GOLDEN_FILE, SCHEMA_FILE, Golden, Model
from service.kinds import Labels, Prediction
from service.validation.faults import Fault, FaultFound, label_faults

TOLERANCE = 1e-3  # of numbers in an answer, absolute and relative: another CPU sums in another order


def load(folder: Path, implementation: str) -> Model:
    """The model as a server has it. Raises FaultFound."""
    try:
        loader = pkgutil.resolve_name(implementation)
    except (ImportError, AttributeError, ValueError) as error:
        do = "correct `implementation` in the bentofile's args (`package.module:Class`), and `include` that folder"
        raise FaultFound(f"the class {implementation} cannot be imported", saw=error, do=do) from None
    if not (isinstance(loader, type) and issubclass(loader, Model)):
        raise FaultFound(f"{implementation} is no model", saw=loader, do="derive the class from service.contract.Model")
    try:
        model = loader(folder)
    except Exception as error:  # whatever somebody's code raises
        saw, do = f"{type(error).__name__}: {error}", "correct __init__; it gets the folder that training filled"
        raise FaultFound(f"{implementation} does not load the model", saw=saw, do=do) from error
    if not hasattr(model, "schema"):
        do = "begin __init__ with super().__init__(folder)"
        raise FaultFound(f"{implementation} did not read {SCHEMA_FILE}", saw="no attribute `schema`", do=do)
    return model


def golden_faults(model: Model, golden: Sequence[Golden]) -> Iterator[Fault]:
    """What is wrong with the model's answers to the golden requests."""
    rows = [row for request in golden for row in request.features]
    together = answers(model, rows)
    alone = [answers(model, [row])[0] for row in rows]
    expected = [answer for request in golden for answer in request.predictions]
    if isinstance(model.schema.answer, Labels):
        yield from _probability_faults(model, rows)
    for number, (told, again) in enumerate(zip(together, alone, strict=True)):
        if not _is_same(told, again):
            do = "call .eval() on the network in __init__, so that dropout and batch norm rest"
            saw = f"golden row {number}: {told} in a batch, {again} alone"
            yield Fault("an answer depends on the other rows of its batch, or on chance", saw, do)
            return
    for number, (told, wanted) in enumerate(zip(together, expected, strict=True)):
        if not _is_same(told, wanted):
            saw = f"golden row {number}: {told}, expected {wanted}"
            do = f"write {GOLDEN_FILE} with the answers of this very model, after its weights are saved"
            yield Fault("the model does not give the golden answers", saw, do)
            return


def _probability_faults(model: Model, rows: Sequence[Sequence[float]]) -> Iterator[Fault]:
    with torch.inference_mode():
        outputs = model.predict(model.preprocess(np.array(rows, dtype=np.float32)))
    sums = outputs.sum(dim=1)
    if bool((outputs < 0).any()) or bool(((sums - 1).abs() > TOLERANCE).any()):
        saw = f"the first row is {[round(value, 3) for value in outputs[0].tolist()][:5]}, its sum {sums[0].item():.3f}"
        yield Fault("predict does not return probabilities", saw, "end predict with .softmax(dim=1)")


def answers(model: Model, rows: Sequence[Sequence[float]]) -> list[Prediction]:
    """One answer per row, as large a batch at a time as a request may be. Raises FaultFound."""
    do = "return a tensor of shape (rows, labels) or (rows, 1) from predict, and one answer per row from postprocess"
    try:
        told: list[Prediction] = []
        with torch.inference_mode():
            for start in range(0, len(rows), model.schema.max_rows):
                batch = rows[start : start + model.schema.max_rows]
                told += predict_rows(model, np.array(batch, dtype=np.float32))
    except BrokenModel as error:
        raise FaultFound("the model breaks the contract", saw=error, do=do) from None
    except Exception as error:  # whatever somebody's code raises
        saw = f"{type(error).__name__}: {error}"
        raise FaultFound("the model fails on a row of its own", saw=saw, do="correct preprocess or predict") from error
    for answer in told:
        for fault in label_faults("an answer", model.schema, answer.label):
            raise FaultFound(fault.what, saw=fault.saw, do="let postprocess give a label of the schema, or a number")
        if answer.confidence is not None and not 0 <= answer.confidence <= 1 + TOLERANCE:
            saw = f"{answer.confidence:g}"
            raise FaultFound("a confidence is no probability", saw=saw, do="end predict with .softmax(dim=1)")
    return told


def _is_same(one: Prediction, other: Prediction) -> bool:
    pairs = ((one.label, other.label), (one.confidence, other.confidence))
    return all(
        math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        if isinstance(a, float) and isinstance(b, float)
        else a == b
        for a, b in pairs
    )
