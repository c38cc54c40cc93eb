"""The engines that a model's network can run on, and how the network is moved to one when a server loads the model.

`eager` is the network as its class loads it; it works for every model. The other engines need a model that calls
its network as `Model.network`. `kanaria optimise` measures the engines and writes its choice into the model's metadata.
No engine unpickles or runs code from the model's files.
"""

import copy
import warnings
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import nn

from service.contract import Model
from service.server.batching import predict_rows

METADATA_KEY = "engine"
INPUT = "batch"  # the name of an exported network's only input

Network = Callable[[torch.Tensor], torch.Tensor]

log = structlog.get_logger()


class Engine(StrEnum):
    """The engines, ordered by how much each changes the network, least first."""

    EAGER = "eager"
    FROZEN = "frozen"  # traced when it is loaded: weights become constants, operations are fused
    BFLOAT16 = "bfloat16"  # 16-bit weights and arithmetic; fast on processors that support it
    ONNX = "onnx"  # the same arithmetic, in ONNX Runtime
    ONNX_INT8 = "onnx-int8"  # ONNX Runtime with the matrices as 8-bit integers

    @property
    def file(self) -> str | None:
        """The file that the engine needs in the model's folder besides the model's own files; None: no file."""
        return {Engine.ONNX: "network.onnx", Engine.ONNX_INT8: "network-int8.onnx"}.get(self)


def move_or_stay_eager(engine: str, model: Model, folder: Path, rows: NDArray[np.float32]) -> Engine:
    """Move `model`'s network to `engine`, or leave it on eager if `engine` does not work on this machine.

    Args:
        engine: the value of an `Engine`, as the model's metadata has it.
        model: freshly loaded.
        folder: the model's files.
        rows: some rows that it accepts; the engine must answer them.

    Returns: the engine that the network runs on.
    """
    network = getattr(model, "network", None)
    try:
        wanted = Engine(engine)
        move(model, wanted, folder, rows)
        if wanted is not Engine.EAGER:
            with torch.inference_mode():
                predict_rows(model, rows)
    except Exception as error:  # noqa: BLE001 - an engine may raise anything; slower answers are better than none
        reason = f"{type(error).__name__}: {error}"
        log.warning("engine_unavailable", engine=engine, fallback=Engine.EAGER, reason=reason)
        model.network = cast("Network", network)
        return Engine.EAGER
    return wanted


def move(model: Model, engine: Engine, folder: Path, rows: NDArray[np.float32]) -> None:
    """Move `model`'s network to `engine`. Raises what the engine raises; the network itself is not changed.

    Arguments as for `move_or_stay_eager`.
    """
    match engine:
        case Engine.EAGER:
            pass
        case Engine.FROZEN:
            model.network = _frozen(cast("nn.Module", model.network), model.preprocess(rows))
        case Engine.BFLOAT16:
            model.network = _bfloat16(cast("nn.Module", model.network))
        case Engine.ONNX | Engine.ONNX_INT8:
            model.network = _onnx(folder / cast("str", engine.file))


def _frozen(network: nn.Module, batch: torch.Tensor) -> Network:
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore", DeprecationWarning)  # its successors need a compiler on the serving machine
        traced = torch.jit.trace(network, batch)  # type: ignore[no-untyped-call] # torch has no annotations here
        frozen: Network = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
        for _ in range(2):  # TorchScript profiles the first calls, then optimises
            frozen(batch)
    return frozen


def _bfloat16(network: nn.Module) -> Network:
    halved = copy.deepcopy(network).to(torch.bfloat16)

    def run(batch: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = halved(batch.to(torch.bfloat16))
        return answer.to(batch.dtype)

    return run


def _onnx(file: Path) -> Network:
    import onnxruntime  # noqa: PLC0415 - a model that runs on torch alone needs no ONNX Runtime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # one model thread per worker, as with torch
    session: Any = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run(batch: torch.Tensor) -> torch.Tensor:
        (answer,) = session.run(None, {INPUT: batch.numpy()})
        return torch.from_numpy(answer)

    return run
