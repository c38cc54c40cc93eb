"""Ray Serve with one replica: `python -m benchmarks.service.peers.ray_app PORT`."""

import sys

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.service.peers.model import LoadedModel


@serve.deployment
class Predict:
    def __init__(self) -> None:
        self._model = LoadedModel()

    async def __call__(self, request: Request) -> dict[str, object]:
        return {"predictions": self._model.answers((await request.json())["features"])}


if __name__ == "__main__":
    ray.init(include_dashboard=False, configure_logging=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Predict.bind(), blocking=True)  # type: ignore[attr-defined] # the decorator made it a deployment
