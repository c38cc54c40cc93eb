"""Bare Starlette and orjson under uvicorn: no validation, no metrics, no log; the model runs on the event loop."""

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.service.peers.model import LoadedModel

model = LoadedModel()


async def predict(request: Request) -> Response:
    features = orjson.loads(await request.body())["features"]
    return Response(orjson.dumps({"predictions": model.answers(features)}), media_type="application/json")


app = Starlette(routes=[Route("/predict", predict, methods=["POST"])])
