"""Flask, as in most tutorials about serving a model: `gunicorn --workers 1 flask_app:app`."""

from flask import Flask, request

from benchmarks.service.peers.model import LoadedModel

app = Flask(__name__)
model = LoadedModel()


@app.post("/predict")
def predict() -> dict[str, object]:
    return {"predictions": model.answers(request.get_json()["features"])}
