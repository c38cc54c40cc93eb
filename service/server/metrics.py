"""The Prometheus metrics of a server process; they exist at 0 before the first request.

`prometheus_client` decides on import whether it counts for several processes, and BentoML sets that up after it has
imported the service. So it is imported when `Metrics` is made, not earlier (BentoML issue 5056).
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil

from contract import metrics as m
from contract.answer_types import AnswerKind, Prediction
from contract.http import FEEDBACK_PATH, PREDICT_PATH
from contract.label_metrics import LabelMetrics
from service.server.counting import QuickHistogram, adder

ROUTES = (PREDICT_PATH, FEEDBACK_PATH)
STATUS_CLASSES = ("2xx", "4xx", "5xx")
MetricT = TypeVar("MetricT")
MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """The counters of one served version.

    Args:
        version: the Bento tag, the label of every series.
        model: the tag of the model in that Bento.
        answer: the kind of answer; it names the classes that are counted.
        engine: the engine on which the model runs.
    """

    def __init__(self, version: str, model: str, answer: AnswerKind, *, engine: str = "eager") -> None:
        import prometheus_client as prometheus  # noqa: PLC0415 - see the module docstring

        requests = _made(prometheus.Counter, m.REQUESTS)
        duration = _made(prometheus.Histogram, m.REQUEST_DURATION, buckets=m.REQUEST_DURATION.bounds)
        predictions = _made(prometheus.Counter, m.PREDICTIONS)
        confidence = _made(prometheus.Histogram, m.CONFIDENCE, buckets=m.CONFIDENCE.bounds)
        feedback = _made(prometheus.Counter, m.FEEDBACK)
        labels = _made(prometheus.Counter, m.LABELS)
        disagreement = _made(prometheus.Counter, m.DISAGREEMENT)
        pairs = _made(prometheus.Counter, m.PAIRED_LABELS)
        dropped = _made(prometheus.Counter, m.ANSWERS_DROPPED)
        log_dropped = _made(prometheus.Counter, m.PREDICTION_LOG_DROPPED)
        log_failures = _made(prometheus.Counter, m.LOG_FAILURES)
        info = _made(prometheus.Gauge, m.MODEL_INFO, multiprocess_mode="max")
        info.labels(version, model, engine).set(1)
        # Each series is made now, so that it exists at 0 and needs no lookup by labels later.
        self._requests = {
            (route, int(status_class[0])): _adder(requests.labels(version, route, status_class))
            for route in ROUTES
            for status_class in STATUS_CLASSES
        }
        self._duration = {route: QuickHistogram(duration.labels(version, route)) for route in ROUTES}
        self._class_of = answer.class_of
        self._predictions = {name: _adder(predictions.labels(version, name)) for name in answer.classes}
        self._confidence = QuickHistogram(confidence.labels(version))
        self.of_labels = LabelMetrics(version, feedback=feedback, labels=labels, pairs=pairs)
        self._same, self._different = (disagreement.labels(version, outcome) for outcome in (m.SAME, m.DIFFERENT))
        self._dropped = dropped.labels(version)
        self._log_dropped = log_dropped.labels(version)
        self._log_failures = {thread: log_failures.labels(version, thread) for thread in m.LOG_THREADS}

    def count_request(self, route: str, status: int, duration_s: float) -> None:
        """Count an answered request to one of ROUTES. Called on the event loop only."""
        self._requests[route, status // 100](1)
        self._duration[route].observe(duration_s)

    def count_predictions(self, predictions: list[Prediction]) -> None:
        """Count answers, one of each request. Called by one thread at a time."""
        if len(predictions) == 1:
            self._count_prediction(predictions[0])
            return
        names = Counter(self._class_of(prediction.label) for prediction in predictions)
        found = [(self._predictions[name], rows) for name, rows in names.items()]  # fails before anything is counted
        for add, rows in found:
            add(rows)
        confidences = [confidence for prediction in predictions if (confidence := prediction.confidence) is not None]
        self._confidence.observe_all(confidences)

    def _count_prediction(self, prediction: Prediction) -> None:
        self._predictions[self._class_of(prediction.label)](1)
        if prediction.confidence is not None:
            self._confidence.observe(prediction.confidence)

    def count_disagreement(self, *, same: int, different: int) -> None:
        """Count requests, each by one of its rows."""
        self._same.inc(same)
        self._different.inc(different)

    def count_dropped(self, answers: int) -> None:
        self._dropped.inc(answers)

    def count_log_dropped(self, rows: int) -> None:
        self._log_dropped.inc(rows)

    def count_log_failure(self, thread: str) -> None:
        self._log_failures[thread].inc()


def _made(kind: Callable[..., MetricT], metric: m.Metric, **more: Any) -> MetricT:
    return kind(metric.name, metric.meaning, metric.labels, **more)


def _adder(counter: Any) -> Callable[[float], None]:
    return adder(counter._value)  # noqa: SLF001 - see `counting`


def use_own_multiprocess_dir() -> Path | None:
    """Give the workers of this server their own folder for counters, and return it.

    BentoML uses one folder per BENTOML_HOME and empties it whenever a server starts, which would delete the counters of
    a version that already serves. The folder is named after the process that started the workers; folders of ended
    servers are removed. Outside BentoML's workers, this does nothing and returns None.
    """
    if MULTIPROCESS_DIR not in os.environ:
        return None
    shared = Path(os.environ[MULTIPROCESS_DIR])
    for folder in shared.parent.glob(f"{shared.name}.*"):
        if not _is_running(folder.suffix[1:]):
            shutil.rmtree(folder, ignore_errors=True)
    own = shared.with_name(f"{shared.name}.{_identity(psutil.Process(os.getppid()))}")
    own.mkdir(parents=True, exist_ok=True)
    os.environ[MULTIPROCESS_DIR] = str(own)
    return own


def _identity(process: psutil.Process) -> str:
    return f"{process.pid}-{process.create_time():.0f}"  # a reused process id has another start time


def _is_running(identity: str) -> bool:
    try:
        return _identity(psutil.Process(int(identity.partition("-")[0]))) == identity
    except psutil.Error:
        return False
