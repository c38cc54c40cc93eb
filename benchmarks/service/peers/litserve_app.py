"""LitServe with one worker, as its README shows it: `python -m benchmarks.service.peers.litserve_app PORT`.

Its batching is off: with it, single rows were answered more slowly at 1 and at 16 connections.
"""

import sys

import litserve

from benchmarks.service.peers.model import LoadedModel

Features = list[list[float]]
Answers = list[dict[str, object]]


class Predict(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe calls it so
        self._model = LoadedModel()

    def decode_request(self, request: dict[str, Features]) -> Features:
        return request["features"]

    def predict(self, features: Features) -> Answers:
        return self._model.answers(features)

    def encode_response(self, answers: Answers) -> dict[str, Answers]:
        return {"predictions": answers}


if __name__ == "__main__":
    server = litserve.LitServer(Predict(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
