"""Everything that one worker needs to answer requests, from a model folder to routes. Opened by service.py."""

import gc
import os
import pkgutil
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from starlette.types import ASGIApp

from service.answers import AnswerLog
from service.batching import DEFAULT_DEADLINE_S, LOOP_S, Batcher, predict_rows, rows_within
from service.contract import GOLDEN_FILE, Golden, Model, read_lines
from service.engines import Engine, put_on
from service.http import Handlers, Route
from service.kinds import counted_as
from service.metrics import Metrics, use_own_multiprocess_dir
from service.parsing import BodyParser
from service.predictions import PredictionLog
from service.signatures import verify_as_set

MAX_WAITING_REQUESTS = 8  # of the largest size; more would wait longer than a client does
PARENT_CHECK_EVERY_S = 1.0
YARDSTICK_VARIABLE = "KANARIA_YARDSTICK"  # the `answer` of the schema that a release counts both versions by
DEADLINE_VARIABLE = "KANARIA_DEADLINE_S"  # longest wait of a request for the model, seconds
LOG_SIZE_VARIABLE = "KANARIA_PREDICTION_LOG_MB"
DEFAULT_LOG_MB = 512


class Runtime:
    """A loaded, warmed-up model with its routes, metrics and answers.

    Args:
        implementation: the class that loads the model, as `package.module:Class`.
        folder: the model's files.
        model: the tag of the model.
        version: the Bento tag, or what stands for it.
        engine: what the network should run on; see `engines`.
    """

    def __init__(
        self, implementation: str, folder: Path, *, model: str, version: str, engine: str = Engine.EAGER
    ) -> None:
        _log_as_json()
        threading.Thread(target=_stop_with_parent, args=(os.getppid(),), name="parent", daemon=True).start()
        is_verified = verify_as_set(folder, os.environ)  # what this worker loads, not what the server started with
        torch.set_num_threads(1)  # one model thread per worker; more would fight the other workers for cores
        loaded: Model = pkgutil.resolve_name(implementation)(folder)
        rows = _golden_rows(folder)
        used_engine = put_on(engine, loaded, folder, rows)
        loop_rows = _warm_up(loaded, rows)
        use_own_multiprocess_dir()
        answer = counted_as(loaded.schema.answer, os.environ.get(YARDSTICK_VARIABLE))
        metrics = Metrics(version, model, answer, engine=used_engine)
        self._opened = ExitStack()
        answers = self._opened.enter_context(
            AnswerLog(
                _folder("answers"),
                version,
                count_feedback=metrics.count_feedback,
                count_disagreement=metrics.count_disagreement,
                count_dropped=metrics.count_dropped,
                is_same=answer.is_same,
            )
        )
        self._batcher = self._opened.enter_context(
            Batcher(
                loaded,
                max_waiting_rows=MAX_WAITING_REQUESTS * loaded.schema.max_rows,
                loop_rows=loop_rows,
                deadline_s=float(os.environ.get(DEADLINE_VARIABLE) or DEFAULT_DEADLINE_S),
                count=metrics.count_predictions,
            )
        )
        prediction_log = None
        if max_bytes := _log_megabytes() * 1_000_000:
            prediction_log = self._opened.enter_context(
                PredictionLog(
                    _folder("predictions"),
                    version,
                    model,
                    loaded.schema,
                    max_bytes=max_bytes,
                    count_dropped=metrics.count_log_dropped,
                )
            )
        handlers = Handlers(version, BodyParser(loaded.schema), self._batcher, answers, prediction_log=prediction_log)
        self.routes: dict[str, ASGIApp] = {
            "/predict": Route("predict", version, handlers.predict, metrics),
            "/feedback": Route("feedback", version, handlers.feedback, metrics),
        }
        # torch leaves a big heap that never changes; walking it again and again costs tens of milliseconds.
        gc.collect()
        gc.freeze()
        structlog.get_logger().info(
            "model_ready", version=version, model=model, engine=used_engine, is_verified=is_verified
        )

    @property
    def is_ready(self) -> bool:
        return self._batcher.is_alive

    def close(self) -> None:
        """Write what waits and stop. Call it when every request has been answered."""
        self._opened.close()


def _stop_with_parent(parent: int) -> None:
    """End this worker when its supervisor was killed: an orphan would hold the port against the next start."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_EVERY_S)
    os.kill(os.getpid(), signal.SIGTERM)


def _golden_rows(folder: Path) -> NDArray[np.float32]:
    golden = read_lines(folder / GOLDEN_FILE, Golden)
    return np.array([row for request in golden for row in request.features], dtype=np.float32)


def _warm_up(model: Model, rows: NDArray[np.float32]) -> int:
    """Answer the golden requests: a network's first call is its slowest. Return how many rows it answers quickly."""
    with torch.inference_mode():
        predict_rows(model, rows)
    return rows_within(LOOP_S, model, rows)


def _folder(name: str) -> Path:
    """Return `$KANARIA_ANSWERS_DIR` for `answers`, or a folder of that name in BentoML's home."""
    home = os.environ.get("BENTOML_HOME") or "~/bentoml"
    return Path(os.environ.get(f"KANARIA_{name.upper()}_DIR") or Path(home, name)).expanduser()


def _log_megabytes() -> int:
    """How much of the prediction log is kept on this machine; 0: there is none."""
    return int(os.environ.get(LOG_SIZE_VARIABLE) or DEFAULT_LOG_MB)


def _log_as_json() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        cache_logger_on_first_use=True,
    )
