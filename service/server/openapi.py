"""Add the two endpoints of http.py to BentoML's OpenAPI page."""

from collections.abc import Sequence
from typing import Any

import attrs
from bentoml._internal.service.openapi.specification import PathItem  # BentoML documents only its own routes
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from contract.answer_types import Prediction
from contract.http import FEEDBACK_PATH, PREDICT_PATH, PROBLEM_JSON
from contract.model_files import Schema
from service.server.parsing import bodies, named_body

REFERENCE = "#/components/schemas/{model}"


class PredictAnswer(BaseModel):
    """One prediction per row, in order."""

    request_id: str
    version: str
    predictions: list[Prediction]


class FeedbackAnswer(BaseModel):
    """`counted` is false when this request already had feedback."""

    request_id: str
    counted: bool


class ProblemBody(BaseModel):
    """An RFC 9457 problem."""

    title: str
    status: int
    detail: str
    request_id: str
    pointer: str | None = None


def documented(specification: Any, schema: Schema) -> Any:
    """Return BentoML's OpenAPI specification with /predict and /feedback of one model added."""
    predict_body, feedback_body = bodies(schema)
    named = named_body(schema)
    models = (predict_body, named, PredictAnswer, feedback_body, FeedbackAnswer, ProblemBody)
    _, definitions = models_json_schema([(model, "validation") for model in models], ref_template=REFERENCE)
    components = specification.components or {}
    return attrs.evolve(
        specification,
        paths={
            **specification.paths,
            PREDICT_PATH: _post(
                "Answer each row.", (predict_body, named), PredictAnswer, (400, 413, 415, 422, 500, 503)
            ),
            FEEDBACK_PATH: _post(
                "Report the true labels of an earlier request's rows.",
                (feedback_body,),
                FeedbackAnswer,
                (400, 404, 413, 415, 422, 503),
            ),
        },
        components={**components, "schemas": {**components.get("schemas", {}), **definitions["$defs"]}},
    )


def _post(summary: str, body: Sequence[type[BaseModel]], answer: type[BaseModel], problems: Sequence[int]) -> Any:
    def content(*models: type[BaseModel], media_type: str = "application/json") -> dict[str, object]:
        kinds = [{"$ref": REFERENCE.format(model=model.__name__)} for model in models]
        return {media_type: {"schema": kinds[0] if len(kinds) == 1 else {"oneOf": kinds}}}

    refused = {
        str(status): {"description": "Problem", "content": content(ProblemBody, media_type=PROBLEM_JSON)}
        for status in problems
    }
    return PathItem(
        post={
            "summary": summary,
            "tags": ["Service APIs"],
            "requestBody": {"required": True, "content": content(*body)},
            "responses": {"200": {"description": "Answer", "content": content(answer)}, **refused},
        }
    )
