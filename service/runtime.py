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
from starlette.types import ASGIApp

from service.answers import AnswerLog
from service.batching import Batcher, predict_rows
from service.contract import GOLDEN_FILE, Golden, Model, read_lines
from service.http import Handlers, Route
from service.metrics import Metrics, use_own_multiprocess_dir
from service.parsing import RowParser

MAX_WAITING_REQUESTS = 8  # of the largest size; more would wait longer than a client does
PARENT_CHECK_EVERY_S = 1.0


class Runtime:
    """A loaded, warmed-up model with its routes, metrics and answers.

    Args:
        implementation: the class that loads the model, as `package.module:Class`.
        folder: the model's files.
        model: the tag of the model.
        version: the Bento tag, or what stands for it.
    """

    def __init__(self, implementation: str, folder: Path, *, model: str, version: str) -> None:
        _log_as_json()
        threading.Thread(target=_stop_with_parent, args=(os.getppid(),), name="parent", daemon=True).start()
        torch.set_num_threads(1)  # one model thread per worker; more would fight the other workers for cores
        loaded: Model = pkgutil.resolve_name(implementation)(folder)
        _warm_up(loaded, folder)
        use_own_multiprocess_dir()
        metrics = Metrics(version, model, loaded.schema.labels)
        self._opened = ExitStack()
        answers = self._opened.enter_context(
            AnswerLog(
                _answers_folder(),
                version,
                count_feedback=metrics.count_feedback,
                count_dropped=metrics.count_dropped,
            )
        )
        self._batcher = self._opened.enter_context(
            Batcher(loaded, max_waiting_rows=MAX_WAITING_REQUESTS * loaded.schema.max_rows)
        )
        handlers = Handlers(version, RowParser(loaded.schema), self._batcher, answers, metrics)
        self.routes: dict[str, ASGIApp] = {
            "/predict": Route("predict", version, handlers.predict, metrics),
            "/feedback": Route("feedback", version, handlers.feedback, metrics),
        }
        # torch leaves a big heap that never changes; walking it again and again costs tens of milliseconds.
        gc.collect()
        gc.freeze()
        structlog.get_logger().info("model_ready", version=version, model=model)

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


def _warm_up(model: Model, folder: Path) -> None:
    """Answer the golden requests once: the first call of a network is its slowest."""
    rows = [row for golden in read_lines(folder / GOLDEN_FILE, Golden) for row in golden.features]
    with torch.inference_mode():
        predict_rows(model, np.array(rows, dtype=np.float32))


def _answers_folder() -> Path:
    """Return `$KANARIA_ANSWERS_DIR`, or a folder in BentoML's home."""
    home = os.environ.get("BENTOML_HOME") or "~/bentoml"
    return Path(os.environ.get("KANARIA_ANSWERS_DIR") or Path(home, "answers")).expanduser()


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
