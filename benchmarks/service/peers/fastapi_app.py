"""FastAPI under uvicorn, with a typed body and answer; a plain function, which FastAPI runs in its thread pool."""

from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.service.peers.model import LoadedModel

app = FastAPI()
model = LoadedModel()


class Rows(BaseModel):
    features: list[list[float]]


class Prediction(BaseModel):
    label: str
    confidence: float


class Answer(BaseModel):
    predictions: list[Prediction]


@app.post("/predict")
def predict(rows: Rows) -> Answer:
    return Answer.model_validate({"predictions": model.answers(rows.features)})
