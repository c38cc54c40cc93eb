"""Writes a torch network to the file that an engine loads. It needs export packages that serving does not need."""

import logging
import tempfile
import warnings
from pathlib import Path

import torch
from torch import nn

from service.engines import INPUT, Engine


def write_file(engine: Engine, network: nn.Module, batch: torch.Tensor, path: Path) -> None:
    """Write the file of `engine` to `path`.

    Args:
        engine: an engine that has a file.
        batch: a few rows as `preprocess` returns them; the exported network accepts any number of rows.

    Raises: what the exporter raises.
    """
    if engine is Engine.ONNX:
        _export(network, batch, path)
        return
    with tempfile.TemporaryDirectory() as temporary:
        plain, prepared = Path(temporary, "plain.onnx"), Path(temporary, "prepared.onnx")
        _export(network, batch, plain)
        _quantise(plain, prepared, path)


def _export(network: nn.Module, batch: torch.Tensor, path: Path) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is not installed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch warns about its own internals
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network,
            (batch,),
            path,
            input_names=[INPUT],
            dynamic_shapes=({0: torch.export.Dim("rows")},),
            external_data=False,  # one file, so that no part can be forgotten
            dynamo=True,
            verbose=False,
        )


def _quantise(plain: Path, prepared: Path, path: Path) -> None:
    """Store the weights of matrix products as 8-bit integers; each call scales their inputs.

    Convolutions stay as they are: ONNX Runtime's integer convolutions are several times slower on a CPU. The weights
    use 7 of the 8 bits, because processors without VNNI overflow on the eighth and would give other answers.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415 - imports onnx, half a second
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415 - as above

    quant_pre_process(plain, prepared, skip_symbolic_shape=True)
    quantize_dynamic(
        prepared,
        path,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
    )
