"""The BentoML service: one model behind POST /predict and POST /feedback. Thin on purpose.

bentofile.yaml (`args`) says which model is served and which class loads it; `--arg` overrides it. BentoML does the
rest: Bentos, workers, health, /metrics, the OpenAPI page. The process that supervises the workers also imports this
file, so modules that import torch are imported on use.
"""

import os
from pathlib import Path
from typing import Any

import bentoml
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from contract import environment
from contract.model_files import Schema
from service.signatures import verify_as_set


class Arguments(BaseModel):
    """The arguments of a Bento."""

    model: str  # its tag in the model store
    implementation: str  # the class that loads it, as `package.module:Class`


ARGUMENTS = bentoml.use_arguments(Arguments)


class DirectService(bentoml.Service[Any]):  # type: ignore[misc] # mypy does not follow BentoML's untyped parts
    """Answers its own routes without BentoML's middleware, which takes more time than a small model."""

    _routes: dict[str, ASGIApp]

    def __call__(self) -> Any:
        instance = super().__call__()
        self._routes = instance.routes
        return instance

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        from service.server.bentoml_errors import with_problems  # noqa: PLC0415 - imports torch

        self._routes = {}
        bentoml_app = with_problems(super().to_asgi(is_main))

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await self._routes.get(scope.get("path", ""), bentoml_app)(scope, receive, send)

        return app

    @property
    def openapi_spec(self) -> Any:
        from service.server.openapi import documented  # noqa: PLC0415 - only this page needs it

        return documented(super().openapi_spec, Schema.read(Path(_packed_model().path)))


@bentoml.service(name="predictor", service_class=DirectService)
class Predictor:
    """One loaded model. BentoML makes an instance in each worker and calls its hooks."""

    stored = bentoml.models.BentoModel(ARGUMENTS.model)

    @bentoml.on_deployment  # type: ignore[untyped-decorator] # mypy does not follow BentoML's untyped parts
    @staticmethod
    def refuse_a_changed_model() -> None:
        """Stop `bentoml serve` before it starts a worker: it would restart a failing worker forever."""
        verify_as_set(Path(_packed_model().path), os.environ)

    def __init__(self) -> None:
        from service.server.runtime import Runtime  # noqa: PLC0415 - imports torch

        bento = _bento()
        stored = _packed_model()
        version = os.environ.get(environment.VERSION) or (str(bento.tag) if bento else "dev")
        self._runtime = Runtime(
            ARGUMENTS.implementation,
            Path(stored.path),
            model=str(stored.tag),
            version=version,
            engine=stored.info.metadata.get("engine", "eager"),  # written by `kanaria optimise`
        )
        self.routes = self._runtime.routes

    async def __is_ready__(self) -> bool:
        return self._runtime.is_ready

    @bentoml.on_shutdown  # type: ignore[untyped-decorator] # as above
    def close(self) -> None:
        self._runtime.close()


def _bento() -> Any:
    """The served Bento; None if the service runs from its sources."""
    return Predictor.bento  # type: ignore[attr-defined] # the decorator makes it a service, which mypy does not see


def _packed_model() -> Any:
    """The model to serve. A Bento keeps the model with which it was built, even if `latest` is newer."""
    bento = _bento()
    return (bento.info.all_models[0].to_model() if bento else bentoml.models.BentoModel(ARGUMENTS.model)).resolve()
