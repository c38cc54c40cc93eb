"""Loads a model from its folder and makes all that one worker needs to answer requests."""

import gc
import logging
import os
import pkgutil
import signal
import threading
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from starlette.types import ASGIApp

from contract import environment
from contract.answer_types import Labels, counted_as
from contract.http import FEEDBACK_PATH, LIVE_PATH, METRICS_PATH, PREDICT_PATH, READY_PATH
from contract.log_lines import log_as_json
from contract.model_files import GOLDEN_FILE, Golden, Schema
from contract.records import read_lines
from service.contract import Model
from service.engines import Engine, move_or_stay_eager
from service.logs.answers import AnswerLog
from service.logs.background import BackgroundWriter
from service.logs.predictions import PredictionLog
from service.server.batching import DEFAULT_DEADLINE_S, LOOP_S, Batcher, predict_rows, rows_within
from service.server.http import Handlers, Route
from service.server.metrics import Metrics, use_own_multiprocess_dir
from service.server.metrics_page import MetricsPage
from service.server.parsing import BodyParser
from service.server.probes import probe
from service.signatures import verified

MAX_WAITING_REQUESTS = 8  # of the largest size; with more, requests would wait longer than clients do
PARENT_CHECK_EVERY_S = 1.0
DEFAULT_LOG_MB = 512


class Runtime:
    """A loaded, warmed-up model with its routes, metrics and logs.

    Args:
        implementation: the class that loads the model, as `package.module:Class`.
        folder: the model's files.
        model: the tag of the model.
        version: the Bento tag, or the name used in its place.
        engine: the engine on which the network should run; see `engines`.
    """

    def __init__(
        self, implementation: str, folder: Path, *, model: str, version: str, engine: str = Engine.EAGER
    ) -> None:
        log_as_json()
        _leave_out_access_log()
        threading.Thread(target=_stop_with_parent, args=(os.getppid(),), name="parent", daemon=True).start()
        torch.set_num_threads(1)  # one model thread per worker; more would compete with other workers for cores
        with verified(folder, os.environ) as (files, is_verified):  # again: the files may have changed since the start
            loaded: Model = pkgutil.resolve_name(implementation)(files)
            rows = _golden_rows(files, loaded.schema)
            used_engine = move_or_stay_eager(engine, loaded, files, rows)
        loop_rows = _warm_up(loaded, rows)
        counters = use_own_multiprocess_dir()
        answer = counted_as(loaded.schema.answer, os.environ.get(environment.COMPARISON_SCHEMA))
        metrics = Metrics(version, model, answer, engine=used_engine)
        self._opened = ExitStack()
        answers = self._opened.enter_context(
            AnswerLog(
                _folder(environment.ANSWERS_DIR, "answers"),
                version,
                count_feedback=metrics.of_labels.count_feedback,
                count_labels=metrics.of_labels.count_labels,
                count_disagreement=metrics.count_disagreement,
                count_pairs=metrics.of_labels.count_pairs,
                count_dropped=metrics.count_dropped,
                count_failure=partial(metrics.count_log_failure, "answers"),
                is_same=answer.is_same,
                labels=loaded.schema.answer.labels if isinstance(loaded.schema.answer, Labels) else None,
                key=os.environ.get(environment.ANSWERS_KEY, "").encode(),
            )
        )
        self._batcher = self._opened.enter_context(
            Batcher(
                loaded,
                max_waiting_rows=MAX_WAITING_REQUESTS * loaded.schema.max_rows,
                loop_rows=loop_rows,
                deadline_s=float(os.environ.get(environment.DEADLINE_S) or DEFAULT_DEADLINE_S),
                count=metrics.count_predictions,
            )
        )
        prediction_log = None
        if max_bytes := _log_megabytes() * 1_000_000:
            prediction_log = self._opened.enter_context(
                PredictionLog(
                    _folder(environment.PREDICTIONS_DIR, "predictions"),
                    version,
                    model,
                    loaded.schema,
                    max_bytes=max_bytes,
                    count_dropped=metrics.count_log_dropped,
                    count_failure=partial(metrics.count_log_failure, "predictions"),
                )
            )
        self._threads: tuple[Batcher | BackgroundWriter, ...] = (
            self._batcher,
            answers,
            *filter(None, [prediction_log]),
        )
        handlers = Handlers(version, BodyParser(loaded.schema), self._batcher, answers, prediction_log=prediction_log)
        self.routes: dict[str, ASGIApp] = {
            PREDICT_PATH: Route(PREDICT_PATH, version, handlers.predict, metrics),
            FEEDBACK_PATH: Route(FEEDBACK_PATH, version, handlers.feedback, metrics),
            READY_PATH: probe(lambda: self.is_ready),
            LIVE_PATH: probe(lambda: True),
        }
        if counters is not None:
            self.routes[METRICS_PATH] = MetricsPage(counters).endpoint
        # torch leaves a big heap that never changes; each garbage collection would spend tens of milliseconds on it.
        gc.collect()
        gc.freeze()
        structlog.get_logger().info(
            "model_ready", version=version, model=model, engine=used_engine, is_verified=is_verified
        )

    @property
    def is_ready(self) -> bool:
        return all(thread.is_alive for thread in self._threads)

    def close(self) -> None:
        """Write what is waiting, then stop. Call it after every request has been answered."""
        self._opened.close()


def _stop_with_parent(parent: int) -> None:
    """Stop this worker if its supervisor is killed: an orphan would keep the port from the next server."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_EVERY_S)
    os.kill(os.getpid(), signal.SIGTERM)


def _leave_out_access_log() -> None:
    """Turn uvicorn's access log off. uvicorn formats a line for each answer even if its logger drops the line."""
    logger = logging.getLogger("uvicorn.access")
    if not logger.isEnabledFor(logging.INFO):
        logger.propagate = False


def _golden_rows(folder: Path, schema: Schema) -> NDArray[np.float32]:
    golden = read_lines(folder / GOLDEN_FILE, Golden)
    return np.array([schema.numbers(row) for request in golden for row in request.features], dtype=np.float32)


def _warm_up(model: Model, rows: NDArray[np.float32]) -> int:
    """Answer the golden requests, because a network's first call is its slowest.

    Returns: how many rows fit on the event loop.
    """
    with torch.inference_mode():
        predict_rows(model, rows)
    return rows_within(LOOP_S, model, rows)


def _folder(variable: str, name: str) -> Path:
    """The folder that `variable` holds, or the folder `name` in BentoML's home."""
    home = os.environ.get("BENTOML_HOME") or "~/bentoml"
    return Path(os.environ.get(variable) or Path(home, name)).expanduser()


def _log_megabytes() -> int:
    """The size of the prediction log on this machine, megabytes; 0: no log."""
    return int(os.environ.get(environment.PREDICTION_LOG_MB) or DEFAULT_LOG_MB)
