"""The model that every peer serves. The environment names its class and its files."""

import os
import pkgutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from benchmarks.service.peers import FOLDER, IMPLEMENTATION


class LoadedModel:
    """Rows in, one answer per row out. The benchmark compares what each framework adds to this."""

    def __init__(self) -> None:
        torch.set_num_threads(1)  # as in the service: more threads would compete with the client for the cores
        self._model: Any = pkgutil.resolve_name(os.environ[IMPLEMENTATION])(Path(os.environ[FOLDER]))

    def answers(self, features: ArrayLike) -> list[dict[str, object]]:
        with torch.inference_mode():
            probabilities = self._model.predict(self._model.preprocess(np.asarray(features, dtype=np.float32)))
            predictions = self._model.postprocess(probabilities)
        return [{"label": prediction.label, "confidence": prediction.confidence} for prediction in predictions]
