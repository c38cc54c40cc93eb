"""BentoML as its quickstart shows it: a plain `@bentoml.api` that returns a dict, under `bentoml serve`."""

import bentoml

from benchmarks.service.peers.model import LoadedModel


@bentoml.service
class Quickstart:
    def __init__(self) -> None:
        self._model = LoadedModel()

    @bentoml.api
    def predict(self, features: list[list[float]]) -> dict:  # type: ignore[type-arg] # as the quickstart has it
        return {"predictions": self._model.answers(features)}
